/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was unmapped, or mapped over, is gone: the new mapping at the same address
 * reads zero, its neighbours keep their bytes, and no old slot comes back.
 */
#include "prog.h"

#define LEN (32 * MIB)
#define QUARTER (LEN / 4)
#define ROUNDS 6

static void round_once(char *mem, uint64_t seed)
{
	pattern_fill(mem, LEN, seed);
	send_away(mem, LEN);
	if (seed % 2)
		CHECK(munmap(mem + QUARTER, QUARTER) == 0);
	CHECK(mmap(mem + QUARTER, QUARTER, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem + QUARTER);
	CHECK(mmap(mem + 3 * QUARTER, page_bytes(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == mem + 3 * QUARTER);
	pattern_check(mem, QUARTER, seed);
	CHECK(is_zero(mem + QUARTER, QUARTER));
	pattern_check_from(mem + 2 * QUARTER, QUARTER, seed, 2 * QUARTER);
	CHECK(is_zero(mem + 3 * QUARTER, page_bytes()));
	pattern_fill(mem + QUARTER, QUARTER, seed + 100);
	send_away(mem, LEN);
	pattern_check(mem + QUARTER, QUARTER, seed + 100);
	pattern_check_from(mem + 3 * QUARTER + page_bytes(), QUARTER - page_bytes(), seed,
			   3 * QUARTER + page_bytes());
}

int main(void)
{
	char *mem = map_private(LEN);

	for (uint64_t seed = 1; seed <= ROUNDS; seed++)
		round_once(mem, seed);
	return 0;
}
