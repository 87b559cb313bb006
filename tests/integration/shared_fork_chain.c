/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children that fork at once, again and again, while shared memory is brought under management:
 * whoever maps it then must be known before a page leaves. Each counts on a page of its own.
 */
#include "prog.h"

#define ROUNDS 5
#define DEPTH 24
#define COUNTS 200

static char *mem;

static void count(int depth)
{
	volatile uint64_t *page = (volatile uint64_t *)(mem + (size_t)depth * page_bytes());

	for (uint64_t i = 1; i <= COUNTS; i++) {
		CHECK(*page == i);
		*page = i + 1;
		usleep(500);
	}
}

static pid_t start_chain(int depth)
{
	pid_t pid = fork(), next = 0;

	if (pid)
		return pid;
	if (depth + 1 < DEPTH)
		next = start_chain(depth + 1);
	count(depth);
	if (next)
		child_join(next);
	_exit(0);
}

int main(void)
{
	size_t len = DEPTH * page_bytes();

	for (int round = 0; round < ROUNDS; round++) {
		int status = 0;
		pid_t pid;

		mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		CHECK(mem != MAP_FAILED);
		for (size_t i = 0; i < DEPTH; i++)
			*(uint64_t *)(mem + i * page_bytes()) = 1;
		pid = start_chain(0);
		while (waitpid(pid, &status, WNOHANG) == 0)
			ask_away(mem, len);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		CHECK(munmap(mem, len) == 0);
	}
	return 0;
}
