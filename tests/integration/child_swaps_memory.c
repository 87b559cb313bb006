/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A forked child swaps two pieces of memory that are away, by three mremaps over ground that is
 * mapped in its parent and not in the child. The daemon hears of all three at once, and must not
 * take that ground for occupied.
 */
#include "prog.h"

#define PAGES 16u
#define ROUNDS 300u

static char *move(char *from, char *to, size_t len)
{
	CHECK(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	return to;
}

static void swap_on(char *one, char *two, char *ground, size_t len)
{
	for (unsigned int i = 0; i < ROUNDS; i++) {
		char *here = one, *there = two;

		if (i % 4 == 0) {
			ask_away(one, len);
			ask_away(two, len);
		}
		one = move(one, ground, len);
		two = move(two, here, len);
		one = move(one, there, len);
		if (i % 4 == 3) {
			pattern_check(one, len, 1);
			pattern_check(two, len, 2);
		}
	}
}

int main(void)
{
	size_t len = PAGES * page_bytes();
	/* Apart, so that each is a mapping of its own. */
	char *all = map_private(8 * len), *one = all, *two = all + 2 * len, *ground = all + 4 * len;
	pid_t pid;

	for (unsigned int i = 1; i < 8; i += 2)
		CHECK(munmap(all + i * len, len) == 0);
	CHECK(munmap(all + 6 * len, len) == 0);
	pattern_fill(ground, len, 3);
	send_away(ground, len);
	pattern_check(ground, len, 3);
	CHECK(madvise(ground, len, MADV_DONTFORK) == 0);
	pattern_fill(one, len, 1);
	pattern_fill(two, len, 2);
	send_away(one, len);
	send_away(two, len);
	pid = fork();
	if (pid == 0) {
		swap_on(one, two, ground, len);
		_exit(0);
	}
	child_join(pid);
	pattern_check(one, len, 1);
	pattern_check(two, len, 2);
	return 0;
}
