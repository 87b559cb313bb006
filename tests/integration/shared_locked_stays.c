/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared memory that one of its mappers has locked stays for all of them, from the moment
 * mlock returns; the rest of the segment leaves.
 */
#include "prog.h"

#define LEN (16 * MIB)
#define LOCKED (4 * MIB)

int main(void)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int to_child[2], to_parent[2];
	pid_t pid;

	CHECK(mem != MAP_FAILED && pipe(to_child) == 0 && pipe(to_parent) == 0);
	pattern_fill(mem, LEN, 1);
	pid = fork();
	if (pid == 0) {
		close(to_child[1]);
		if (mlock(mem, LOCKED))
			_exit(77);
		tell(to_parent[1]);
		hear(to_child[0]);
		CHECK(present_pages(mem, LOCKED) == LOCKED / page_bytes());
		CHECK(munlock(mem, LOCKED) == 0);
		tell(to_parent[1]);
		hear(to_child[0]);
		_exit(0);
	}
	close(to_parent[1]);
	hear(to_parent[0]);
	/* Some may have left before it was locked: mapped here again, it stays so. */
	pattern_check(mem, LOCKED, 1);
	for (int i = 0; i < 5; i++)
		ask_away(mem, LOCKED);
	CHECK(present_pages(mem, LOCKED) == LOCKED / page_bytes());
	send_away(mem + LOCKED, LEN - LOCKED);
	CHECK(present_pages(mem, LOCKED) == LOCKED / page_bytes());
	tell(to_child[1]);
	hear(to_parent[0]);
	send_away(mem, LEN);
	tell(to_child[1]);
	child_join(pid);
	pattern_check(mem, LEN, 1);
	return 0;
}
