/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process whose first thread has ended goes on: /proc/PID/maps says nothing of it any more.
 * Shared memory that it maps and another process sends away comes home for it as for all.
 */
#include <pthread.h>

#include "prog.h"

#define LEN (16 * MIB)

static char *mem;
static int to_child[2], to_parent[2];

/* Nothing of it has left when this process's first thread ends. */
static void *second_thread(void *arg)
{
	(void)arg;
	usleep(100000);
	tell(to_parent[1]);
	hear(to_child[0]);
	pattern_check(mem, LEN, 1);
	pattern_fill(mem, LEN, 2);
	_exit(0);
}

int main(void)
{
	pthread_t thread;
	pid_t pid;

	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED && pipe(to_child) == 0 && pipe(to_parent) == 0);
	pattern_fill(mem, LEN, 1);
	pid = fork();
	if (pid == 0) {
		CHECK(pthread_create(&thread, NULL, second_thread, NULL) == 0);
		pthread_exit(NULL);
	}
	close(to_parent[1]);
	hear(to_parent[0]);
	send_away(mem, LEN);
	tell(to_child[1]);
	child_join(pid);
	pattern_check(mem, LEN, 2);
	return 0;
}
