/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mremap of memory that is away: the bytes follow the mapping, in growth, in a
 * move to a fixed place, in a shrink, and with DONTUNMAP, where the old place
 * reads zero.
 */
#include "prog.h"

#define LEN (24 * MIB)

static void grow(char **mem)
{
	pattern_fill(*mem, LEN, 1);
	send_away(*mem, LEN);
	*mem = mremap(*mem, LEN, 2 * LEN, MREMAP_MAYMOVE);
	CHECK(*mem != MAP_FAILED);
	for (size_t at = LEN; at < 2 * LEN; at += 16 * page_bytes())
		CHECK(is_zero(*mem + at, page_bytes()));
	pattern_check(*mem, LEN, 1);
	pattern_fill(*mem, 2 * LEN, 2);
}

static void move(char **mem)
{
	char *place = mmap(NULL, 2 * LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(place != MAP_FAILED);
	send_away(*mem, 2 * LEN);
	CHECK(mremap(*mem, 2 * LEN, 2 * LEN, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
	*mem = place;
	pattern_check(*mem, 2 * LEN, 2);
}

static void shrink_and_grow_back(char *mem)
{
	send_away(mem, 2 * LEN);
	CHECK(mremap(mem, 2 * LEN, LEN, 0) == mem);
	CHECK(mremap(mem, LEN, 2 * LEN, 0) == mem);
	CHECK(is_zero(mem + LEN, LEN));
	pattern_check(mem, LEN, 2);
}

static void leave_the_old_place(char *mem)
{
	char *copy;

	send_away(mem, LEN);
	copy = mremap(mem, LEN, LEN, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	CHECK(copy != MAP_FAILED && copy != mem);
	CHECK(is_zero(mem, LEN));
	pattern_fill(mem, LEN, 3);
	send_away(mem, LEN);
	pattern_check(copy, LEN, 2);
	pattern_check(mem, LEN, 3);
	CHECK(munmap(copy, LEN) == 0);
}

int main(void)
{
	char *mem = map_private(LEN);

	grow(&mem);
	move(&mem);
	shrink_and_grow_back(mem);
	leave_the_old_place(mem);
	return 0;
}
