/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * exec while robust mutexes are held, in memory that is away: the kernel walks the
 * list after all other threads are gone, and those faults must still be served.
 * The process-shared mutex tells whether the walk reached its end.
 */
#include <pthread.h>

#include "prog.h"

#define LEN (16 * MIB)
#define MUTEXES 32
#define ROUNDS 10

static void mutex_make(pthread_mutex_t *mutex, int shared)
{
	pthread_mutexattr_t attr;

	CHECK(pthread_mutexattr_init(&attr) == 0);
	CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	CHECK(pthread_mutexattr_setpshared(&attr, shared) == 0);
	CHECK(pthread_mutex_init(mutex, &attr) == 0);
}

static void child(char *mem, pthread_mutex_t *shared)
{
	CHECK(pthread_mutex_lock(shared) == 0);
	for (size_t i = 0; i < MUTEXES; i++) {
		mutex_make((void *)(mem + i * (LEN / MUTEXES)), PTHREAD_PROCESS_PRIVATE);
		CHECK(pthread_mutex_lock((void *)(mem + i * (LEN / MUTEXES))) == 0);
	}
	ask_away(mem, LEN);
	execl("/bin/true", "true", (char *)NULL);
	_exit(3);
}

int main(void)
{
	char *mem = map_private(LEN);
	pthread_mutex_t *shared = mmap(NULL, page_bytes(), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(shared != MAP_FAILED);
	mutex_make(shared, PTHREAD_PROCESS_SHARED);
	pattern_fill(mem, LEN, 1);
	for (int round = 0; round < ROUNDS; round++) {
		pid_t pid;

		send_away(mem, LEN);
		pid = fork();
		if (pid == 0)
			child(mem, shared);
		child_join(pid);
		CHECK(pthread_mutex_lock(shared) == EOWNERDEAD);
		CHECK(pthread_mutex_consistent(shared) == 0);
		CHECK(pthread_mutex_unlock(shared) == 0);
	}
	pattern_check(mem, LEN, 1);
	return 0;
}
