/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All threads are seen, also while others end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"
#include "threads.h"

#define N_ENDING 50
#define N_STAYING 10
#define ENDING_USEC 3000
#define SECONDS 2

static pid_t staying[N_STAYING];
static bool stop;

static void *stay(void *arg)
{
	__atomic_store_n((pid_t *)arg, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		usleep(1000);
	return NULL;
}

static void *end_soon(void *arg)
{
	usleep((useconds_t)(uintptr_t)arg);
	return NULL;
}

static bool count_staying(void *arg, int task_fd, pid_t tid)
{
	(void)task_fd;
	for (int i = 0; i < N_STAYING; i++)
		*(int *)arg += staying[i] == tid;
	return true;
}

/* Those that end come first in the kernel's list. */
static unsigned int look_while_threads_end(int task_fd, uint64_t *random)
{
	pthread_t ending[N_ENDING], threads[N_STAYING];
	unsigned int seen = 0;

	for (int i = 0; i < N_ENDING; i++) {
		uintptr_t usec = fixture_random(random) % ENDING_USEC;

		ck_assert_int_eq(pthread_create(&ending[i], NULL, end_soon, (void *)usec), 0);
	}
	for (int i = 0; i < N_STAYING; i++) {
		staying[i] = 0;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, stay, &staying[i]), 0);
	}
	for (int i = 0; i < N_STAYING; i++)
		while (__atomic_load_n(&staying[i], __ATOMIC_ACQUIRE) == 0)
			usleep(10);
	for (int i = 0; i < 100; i++) {
		int n = 0;

		if (!threads_each(task_fd, count_staying, &n))
			continue;
		fixture_must(n == N_STAYING, "%d", n);
		seen++;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < N_ENDING; i++)
		pthread_join(ending[i], NULL);
	for (int i = 0; i < N_STAYING; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
	return seen;
}

START_TEST(all_threads_are_seen_while_others_end)
{
	int task_fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	time_t until = time(NULL) + SECONDS;
	uint64_t random = fixture_seed();
	unsigned int seen = 0;

	ck_assert_int_ge(task_fd, 0);
	while (time(NULL) < until)
		seen += look_while_threads_end(task_fd, &random);
	ck_assert_uint_gt(seen, 0);
	close(task_fd);
}
END_TEST

START_TEST(threads_are_counted)
{
	/* Another program: a sanitizer may have a thread of its own in this one. */
	char *const argv[] = { "sleep", "60", NULL };
	int own_fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC), task_fd;
	pthread_t thread;
	char path[64];
	pid_t pid;

	ck_assert_int_eq(posix_spawnp(&pid, argv[0], NULL, NULL, argv, NULL), 0);
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	task_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert(own_fd >= 0 && task_fd >= 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, stay, &staying[0]), 0);
	ck_assert_uint_eq(threads_count(task_fd), 1);
	ck_assert_uint_gt(threads_count(own_fd), 1);
	ck_assert_uint_eq(threads_count(-1), 0);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(own_fd);
	close(task_fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("threads");
	TCase *tcase = tcase_create("threads");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, all_threads_are_seen_while_others_end);
	tcase_add_test(tcase, threads_are_counted);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
