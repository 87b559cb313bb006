/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A forked child reads zero in WIPEONFORK memory, whether it was away or not,
 * has no DONTFORK memory at all, and the parent keeps both.
 */
#include "prog.h"

#define LEN (16 * MIB)

int main(void)
{
	char *wiped = map_private(LEN), *absent = map_private(LEN), *plain = map_private(LEN);
	unsigned char vec[1];
	pid_t pid;

	CHECK(madvise(wiped, LEN, MADV_WIPEONFORK) == 0);
	CHECK(madvise(absent, LEN, MADV_DONTFORK) == 0);
	pattern_fill(wiped, LEN, 1);
	pattern_fill(absent, LEN, 2);
	pattern_fill(plain, LEN, 3);
	send_away(wiped, LEN / 2);
	send_away(absent, LEN);
	send_away(plain, LEN);
	pid = fork();
	if (pid == 0) {
		CHECK(is_zero(wiped, LEN));
		CHECK(mincore(absent, page_bytes(), vec) == -1 && errno == ENOMEM);
		pattern_check(plain, LEN, 3);
		pattern_fill(wiped, LEN, 4);
		send_away(wiped, LEN);
		pattern_check(wiped, LEN, 4);
		_exit(0);
	}
	child_join(pid);
	pattern_check(wiped, LEN, 1);
	pattern_check(absent, LEN, 2);
	pattern_check(plain, LEN, 3);
	return 0;
}
