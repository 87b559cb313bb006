/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mappings that touch one another and differ in some flag: pages that are brought home
 * along with others cross from one to the next, which one system call cannot.
 */
#include "prog.h"

#define LEN (16 * MIB)
#define STRIPE 7 /* pages */

int main(void)
{
	char *mem = map_private(LEN);
	size_t page = page_bytes(), stripe = STRIPE * page;

	for (size_t at = 0; at + stripe <= LEN; at += 2 * stripe)
		CHECK(madvise(mem + at, stripe, MADV_DONTDUMP) == 0);
	for (uint64_t seed = 1; seed <= 3; seed++) {
		pattern_fill(mem, LEN, seed);
		send_away(mem, LEN);
		pattern_check(mem, LEN, seed); /* in order, which widens the window */
		send_away(mem, LEN);
		for (size_t at = LEN; at > 0; at -= page)
			pattern_check_from(mem + at - page, page, seed, at - page);
	}
	return 0;
}
