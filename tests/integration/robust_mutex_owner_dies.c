/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that ends while it holds a robust mutex: the next one is told, also
 * when the mutex's page was asked to leave meanwhile. The kernel's last walk over
 * the robust list raises no fault, so those pages have to be at home.
 */
#include <pthread.h>

#include "prog.h"

#define LEN (16 * MIB)
#define MUTEXES 64
#define ROUNDS 12

static pthread_mutex_t *mutex_at(char *mem, size_t i)
{
	return (void *)(mem + i * (LEN / MUTEXES));
}

static void *owner_run(void *mem)
{
	for (size_t i = 0; i < MUTEXES; i++)
		CHECK(pthread_mutex_lock(mutex_at(mem, i)) == 0);
	for (int i = 0; i < 3; i++)
		ask_away(mem, LEN);
	return NULL;
}

static void take_over(pthread_mutex_t *mutex, size_t i)
{
	struct timespec limit;
	int error;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	error = pthread_mutex_timedlock(mutex, &limit);
	if (error != EOWNERDEAD)
		prog_fail("mutex %zu: wanted EOWNERDEAD, got %s", i, strerror(error));
	CHECK(pthread_mutex_consistent(mutex) == 0);
	CHECK(pthread_mutex_unlock(mutex) == 0);
}

/* A mutex can be taken when the daemon has just looked at the threads. One that no thread has
 * in its list, but looks as if it were held, stands for it: its page stays. */
static void stays_unknown(const pthread_mutexattr_t *attr)
{
	char *mem = map_private(LEN);
	pthread_mutex_t *mutex = mutex_at(mem, 1);
	pthread_mutex_t copy;

	pattern_fill(mem, LEN, 1);
	CHECK(pthread_mutex_init(mutex, attr) == 0);
	CHECK(pthread_mutex_lock(mutex) == 0);
	memcpy(&copy, mutex, sizeof(copy));
	CHECK(pthread_mutex_unlock(mutex) == 0);
	memcpy(mutex, &copy, sizeof(copy));
	send_away(mem, LEN);
	if (managed() && present_pages(mutex, page_bytes()) == 0)
		prog_fail("the page of a mutex that seems to be held has left");
	CHECK(munmap(mem, LEN) == 0);
}

/* The owner is a process, the mutexes lie in shared memory, and it is asked to leave. */
static void process_owner_dies(pthread_mutexattr_t *attr)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int held[2], go[2];
	char byte = 0;
	pid_t pid;

	CHECK(mem != MAP_FAILED && pipe(held) == 0 && pipe(go) == 0);
	CHECK(pthread_mutexattr_setpshared(attr, PTHREAD_PROCESS_SHARED) == 0);
	pattern_fill(mem, LEN, 1);
	for (size_t i = 0; i < MUTEXES; i++)
		CHECK(pthread_mutex_init(mutex_at(mem, i), attr) == 0);
	pid = fork();
	if (pid == 0) {
		for (size_t i = 0; i < MUTEXES; i++)
			CHECK(pthread_mutex_lock(mutex_at(mem, i)) == 0);
		CHECK(write(held[1], &byte, 1) == 1);
		CHECK(read(go[0], &byte, 1) == 1);
		_exit(0);
	}
	CHECK(read(held[0], &byte, 1) == 1);
	ask_away(mem, LEN);
	CHECK(write(go[1], &byte, 1) == 1);
	child_join(pid);
	for (size_t i = 0; i < MUTEXES; i++)
		take_over(mutex_at(mem, i), i);
}

int main(void)
{
	char *mem = map_private(LEN);
	pthread_mutexattr_t attr;
	pthread_t thread;

	for (size_t at = 0; at < LEN; at += page_bytes())
		mem[at + page_bytes() - 1] = 1;
	CHECK(pthread_mutexattr_init(&attr) == 0);
	CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	for (size_t i = 0; i < MUTEXES; i++)
		CHECK(pthread_mutex_init(mutex_at(mem, i), &attr) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		send_away(mem, LEN);
		CHECK(pthread_create(&thread, NULL, owner_run, mem) == 0);
		CHECK(pthread_join(thread, NULL) == 0);
		for (size_t i = 0; i < MUTEXES; i++)
			take_over(mutex_at(mem, i), i);
	}
	stays_unknown(&attr);
	process_owner_dies(&attr);
	return 0;
}
