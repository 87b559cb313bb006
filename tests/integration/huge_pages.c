/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Huge pages leave and come home, whole or in parts, with their bytes.
 */
#include "prog.h"

#define LEN (64 * MIB)
#define HUGE (2 * MIB)

int main(void)
{
	char *raw = map_private(LEN + HUGE);
	char *mem = (char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
	size_t page = page_bytes();

	if (madvise(mem, LEN, MADV_HUGEPAGE))
		prog_skip("no transparent huge pages: the kernel was built without them");
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	for (size_t at = 0; at < LEN; at += HUGE)
		pattern_check_from(mem + at + 17 * page, page, 1, at + 17 * page);
	for (size_t at = 0; at < LEN; at += 2 * HUGE)
		pattern_fill(mem + at, HUGE, 2);
	send_away(mem, LEN);
	for (size_t at = 0; at < LEN; at += 2 * HUGE) {
		pattern_check(mem + at, HUGE, 2);
		pattern_check_from(mem + at + HUGE, HUGE, 1, at + HUGE);
	}
	return 0;
}
