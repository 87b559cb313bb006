/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MAP_SHARED|MAP_ANONYMOUS across a fork family: what one writes another reads, whoever's
 * touch brings a page home; madvise keeps its meaning.
 */
#include "prog.h"

#define LEN (32 * MIB)
#define HALF (LEN / 2)

static char *mem;
static int to_child[2], to_parent[2];

static void child(void)
{
	pattern_check(mem, LEN, 1);
	pattern_fill(mem, HALF, 2);
	tell(to_parent[1]);
	hear(to_child[0]);
	pattern_check(mem, HALF, 2);
	pattern_check(mem + HALF, HALF, 3);
	/* One mapping lets go of its pages; the object keeps them. */
	CHECK(madvise(mem, LEN, MADV_DONTNEED) == 0);
	pattern_check(mem, HALF, 2);
	pattern_check(mem + HALF, HALF, 3);
	/* The object gives them up, for all. */
	CHECK(madvise(mem + HALF, HALF, MADV_REMOVE) == 0);
	CHECK(is_zero(mem + HALF, HALF));
	tell(to_parent[1]);
	hear(to_child[0]);
	CHECK(is_zero(mem + HALF, HALF / 2));
	pattern_check(mem + HALF + HALF / 2, HALF / 2, 5);
	_exit(0);
}

int main(void)
{
	pid_t pid;

	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	CHECK(pipe(to_child) == 0 && pipe(to_parent) == 0);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	pid = fork();
	if (pid == 0)
		child();
	hear(to_parent[0]);
	pattern_fill(mem + HALF, HALF, 3);
	send_away(mem, LEN);
	tell(to_child[1]);
	hear(to_parent[0]);
	pattern_check(mem, HALF, 2);
	CHECK(is_zero(mem + HALF, HALF));
	pattern_fill(mem + HALF + HALF / 2, HALF / 2, 5);
	send_away(mem, HALF);
	tell(to_child[1]);
	child_join(pid);
	pattern_check(mem, HALF, 2);
	pattern_check(mem + HALF + HALF / 2, HALF / 2, 5);
	return 0;
}
