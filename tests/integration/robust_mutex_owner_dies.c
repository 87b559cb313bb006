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
	return 0;
}
