/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * As mremap_grows_locked, by a process whose thread numbers mean nothing outside its pid
 * namespace: the fault names its thread by such a number.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "prog.h"

#define ROUNDS 8
#define OLD (16 * page_bytes())
#define NEW (600 * page_bytes())
#define BULK (12 * MIB)

static void grow_locked(uint64_t seed)
{
	/* The page behind it is taken: it cannot grow in place. */
	char *mem = map_private(OLD + page_bytes()), *grown;

	pattern_fill(mem, OLD, seed);
	CHECK(mprotect(mem + OLD, page_bytes(), PROT_NONE) == 0);
	send_away(mem, OLD);
	if (mlock(mem, OLD))
		prog_skip("mlock refused: raise RLIMIT_MEMLOCK or run as root");
	alarm(20);
	grown = mremap(mem, OLD, NEW, MREMAP_MAYMOVE);
	alarm(0);
	CHECK(grown != MAP_FAILED && grown != mem);
	pattern_check(grown, OLD, seed);
	CHECK(is_zero(grown + OLD, NEW - OLD));
	CHECK(munmap(grown, NEW) == 0);
}

static void in_namespace(char *bulk)
{
	for (uint64_t i = 0; i < ROUNDS; i++) {
		pattern_fill(bulk, BULK, 2 + i);
		send_away(bulk, BULK);
		grow_locked(100 + i);
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
