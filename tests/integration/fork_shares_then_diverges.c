/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * After a fork with memory away, parent, child and grandchild first see the same
 * bytes and then each its own: slots are shared by reference and never written.
 */
#include "prog.h"

#define LEN (48 * MIB)
#define HALF (LEN / 2)

static char *mem;

static void grandchild(void)
{
	pattern_check(mem, HALF, 2);
	pattern_fill(mem + HALF, HALF, 3);
	send_away(mem, LEN);
	pattern_check(mem, HALF, 2);
	pattern_check(mem + HALF, HALF, 3);
	_exit(0);
}

static void child(void)
{
	pid_t pid;

	pattern_check_from(mem + HALF, HALF, 1, HALF);
	pattern_fill(mem, HALF, 2);
	pid = fork();
	if (pid == 0)
		grandchild();
	pattern_check(mem, HALF, 2);
	pattern_check_from(mem + HALF, HALF, 1, HALF);
	child_join(pid);
	pattern_check_from(mem + HALF, HALF, 1, HALF);
	_exit(0);
}

int main(void)
{
	pid_t pid;

	mem = map_private(LEN);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	pid = fork();
	if (pid == 0)
		child();
	pattern_fill(mem + HALF, HALF, 4);
	pattern_check(mem, HALF, 1);
	pattern_check(mem + HALF, HALF, 4);
	child_join(pid);
	send_away(mem, LEN);
	pattern_check(mem, HALF, 1);
	pattern_check(mem + HALF, HALF, 4);
	return 0;
}
