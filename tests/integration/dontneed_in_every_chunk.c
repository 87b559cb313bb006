/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A huge mapping of which little is used: a page of each 2 MiB is given up, again and again.
 * What was stored elsewhere in it stays, whatever the daemon has room for.
 */
#include "prog.h"

#define LEN ((size_t)64 << 30)
#define CHUNK (2 * MIB)
#define USED (16 * MIB)
#define SEED 33

int main(void)
{
	size_t page = page_bytes();
	char *area = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(area != MAP_FAILED);
	CHECK(madvise(area, LEN, MADV_NOHUGEPAGE) == 0);
	pattern_fill(area, USED, SEED);
	send_away(area, USED);
	for (int round = 0; round < 2; round++)
		for (size_t at = USED + 3 * page; at < LEN; at += CHUNK)
			CHECK(madvise(area + at, page, MADV_DONTNEED) == 0);
	pattern_check(area, USED, SEED);
	send_away(area, USED);
	area[LEN / 2 + 3 * page] = 1;
	CHECK(area[LEN / 2] == 0);
	pattern_check(area, USED, SEED);
	return 0;
}
