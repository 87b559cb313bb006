/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_DONTNEED of memory that is away, at home, or on its way: it reads zero,
 * what was not named keeps its bytes, and a later eviction keeps the new ones.
 */
#include "prog.h"

#define LEN (32 * MIB)

static void check_every_third(const char *mem, uint64_t seed)
{
	size_t page = page_bytes();

	for (size_t i = 0; i < LEN / page; i++) {
		if (i % 3 == 0)
			CHECK(is_zero(mem + i * page, page));
		else
			pattern_check_from(mem + i * page, page, seed, i * page);
	}
}

int main(void)
{
	size_t page = page_bytes();
	char *mem = map_private(LEN);

	for (uint64_t seed = 1; seed <= 3; seed++) {
		pattern_fill(mem, LEN, seed);
		send_away(mem, LEN);
		for (size_t i = 0; i < LEN / page; i += 3)
			CHECK(madvise(mem + i * page, page, MADV_DONTNEED) == 0);
		check_every_third(mem, seed);
		ask_away(mem, LEN); /* what reads zero has nothing to leave */
		check_every_third(mem, seed);
		CHECK(madvise(mem, LEN, MADV_DONTNEED) == 0);
		CHECK(is_zero(mem, LEN));
	}
	return 0;
}
