/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory at the lowest addresses that a program can map, inherited by a child that has no agent
 * and so no staging: no address may pass for staging there. The child gets what it inherited.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/syscall.h>

#include "prog.h"

#define LOW ((void *)(uintptr_t)MIB)
#define LEN (2 * MIB)
#define BULK (12 * MIB)

int main(void)
{
	char *bulk = map_private(BULK);
	char *low = mmap(LOW, LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	pid_t pid;

	if (low != LOW)
		prog_skip("nothing can be mapped at 1 MiB: see vm.mmap_min_addr");
	pattern_fill(bulk, BULK, 1);
	pattern_fill(low, LEN, 2);
	send_away(bulk, BULK);
	send_away(low, LEN);
	/* No library code runs in it. */
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		alarm(20);
		pattern_check(low, LEN, 2);
		_exit(0);
	}
	child_join(pid);
	pattern_check(low, LEN, 2);
	pattern_check(bulk, BULK, 1);
	return 0;
}
