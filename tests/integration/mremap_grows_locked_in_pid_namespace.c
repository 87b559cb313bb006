/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * As mremap_grows_locked, by a process whose thread numbers mean nothing outside its pid
 * namespace: the fault names its thread by such a number.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "grow_locked.h"

#define ROUNDS 8
#define BULK (12 * MIB)

static void in_namespace(char *bulk)
{
	for (uint64_t i = 0; i < ROUNDS; i++) {
		pattern_fill(bulk, BULK, 2 + i);
		send_away(bulk, BULK);
		CHECK(munmap(grow_locked(100 + i, 20), GROW_NEW) == 0);
		pattern_check(bulk, BULK, 2 + i);
	}
}

int main(void)
{
	char *bulk = map_private(BULK);
	pid_t pid;

	pattern_fill(bulk, BULK, 1);
	if (unshare(CLONE_NEWPID))
		prog_skip("no pid namespace can be made");
	pid = fork();
	if (pid == 0) {
		in_namespace(bulk);
		_exit(0);
	}
	child_join(pid);
	return 0;
}
