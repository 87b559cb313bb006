/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mapping of which only a part is away is still one mapping to the program: it can
 * be moved and grown as a whole, as realloc does with large blocks. (The kernel
 * refuses to mremap across two areas, and registration must not make two of one.)
 */
#include "prog.h"

#define LEN (32 * MIB)

static char *move(char *mem, size_t len, size_t new_len)
{
	char *place = mmap(NULL, new_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(place != MAP_FAILED);
	CHECK(mremap(mem, len, new_len, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
	return place;
}

/* [from, from + len) is away, the rest was never asked to go. */
static void part_away(size_t from, size_t len)
{
	char *mem = map_private(LEN);

	pattern_fill(mem, LEN, 1);
	send_away(mem + from, len);
	mem = move(mem, LEN, LEN);
	pattern_check(mem, LEN, 1);
	send_away(mem + from, len);
	mem = move(mem, LEN, 2 * LEN);
	pattern_check(mem, LEN, 1);
	CHECK(is_zero(mem + LEN, LEN));
	CHECK(munmap(mem, 2 * LEN) == 0);
}

/* A block that grows under pressure, as a program that appends to an array makes it; malloc
 * aligns it to 16 bytes, so that its pages hold the allocator's words as well. */
static void realloc_under_pressure(void)
{
	char *block = NULL;
	size_t filled = 0;

	for (size_t len = MIB; len <= 96 * MIB; len += len / 4 / 4096 * 4096) {
		block = realloc(block, len);
		CHECK(block);
		CHECK(pattern_holds(block, filled, 2, 0));
		pattern_fill(block, len, 2);
		filled = len;
	}
	free(block);
}

int main(void)
{
	part_away(8 * MIB, 4 * MIB);
	part_away(0, MIB);
	part_away(LEN - MIB, MIB);
	realloc_under_pressure();
	return 0;
}
