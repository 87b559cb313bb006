/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * After MADV_FREE a page holds its old bytes or zeros, never a third thing and
 * never a mixture; a page written afterwards holds what was written.
 */
#include "prog.h"

#define LEN (32 * MIB)

static void check_old_or_zero(const char *mem, uint64_t seed)
{
	size_t page = page_bytes();

	for (size_t at = 0; at < LEN; at += page)
		if (!is_zero(mem + at, page))
			pattern_check_from(mem + at, page, seed, at);
}

int main(void)
{
	size_t page = page_bytes();
	char *mem = map_private(LEN);

	for (uint64_t seed = 1; seed <= 4; seed++) {
		pattern_fill(mem, LEN, seed);
		if (seed % 2)
			send_away(mem, LEN);
		CHECK(madvise(mem, LEN, MADV_FREE) == 0);
		check_old_or_zero(mem, seed);
		for (size_t at = 0; at < LEN; at += 2 * page)
			pattern_fill(mem + at, page, seed + 10);
		send_away(mem, LEN);
		for (size_t at = 0; at < LEN; at += 2 * page)
			pattern_check(mem + at, page, seed + 10);
	}
	return 0;
}
