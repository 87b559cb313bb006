/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves evicted memory on, and other evicted memory to where it was, as fast as it
 * can, so that all of it is one set of events to the daemon. Whose bytes lie where at the end
 * follows from the order of the calls, not from what the page table shows at the end.
 */
#include "prog.h"

#define ROUNDS 300u
#define PAGES 7u
#define BYTES (PAGES * page_bytes())
#define PLACES 6u

static char *move(char *from, char *to)
{
	CHECK(mremap(from, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	return to;
}

int main(void)
{
	for (uint64_t i = 0; i < ROUNDS; i++) {
		/* Apart, so that nothing joins. */
		char *ground = mmap(NULL, PLACES * 2 * BYTES, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		char *place[PLACES], *one, *two;

		CHECK(ground != MAP_FAILED);
		for (uint32_t k = 0; k < PLACES; k++)
			place[k] = ground + 2 * k * BYTES;
		one = mmap(place[0], BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		two = mmap(place[1], BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		CHECK(one == place[0] && two == place[1]);
		pattern_fill(one, BYTES, 2 * i);
		pattern_fill(two, BYTES, 2 * i + 1);
		send_away(one, BYTES);
		send_away(two, BYTES);
		one = move(one, place[2]);
		one = move(one, place[3]);
		two = move(two, place[2]);
		one = move(one, place[4]);
		two = move(two, place[3]);
		one = move(one, place[2]);
		two = move(two, place[5]);
		one = move(one, place[3]);
		pattern_check(two, BYTES, 2 * i + 1);
		pattern_check(one, BYTES, 2 * i);
		CHECK(munmap(ground, PLACES * 2 * BYTES) == 0);
	}
	return 0;
}
