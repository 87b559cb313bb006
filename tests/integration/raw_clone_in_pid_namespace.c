/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children that no library code runs in, with process numbers that mean nothing outside: the
 * first touch of what is away comes from a thread that is not the leader, from a thread whose
 * leader has ended, or from a child of such a child. Each gets the bytes it inherited.
 */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "prog.h"

#define LEN (8 * MIB)
#define HALF (LEN / 2)
#define SEED 21

static char *area;

static pid_t raw_clone(unsigned long flags)
{
	pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	CHECK(pid >= 0);
	return pid;
}

static void *check_first_half(void *arg)
{
	(void)arg;
	pattern_check(area, HALF, SEED);
	return NULL;
}

static void thread_touches_first(void)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, check_first_half, NULL) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
}

static void *check_and_exit(void *arg)
{
	usleep(100000);
	check_first_half(arg);
	_exit(0);
}

static void leader_ends_first(void)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, check_and_exit, NULL) == 0);
	syscall(SYS_exit, 0);
}

static void grandchild_touches(void)
{
	pid_t pid;

	pattern_check(area, HALF, SEED);
	pid = raw_clone(0);
	if (pid == 0) {
		pattern_check_from(area + HALF, HALF, SEED, HALF);
		_exit(0);
	}
	child_join(pid);
}

static void in_child(unsigned long flags, void (*run)(void))
{
	pid_t pid;

	send_away(area, LEN);
	pid = raw_clone(flags);
	if (pid == 0) {
		run();
		_exit(0);
	}
	child_join(pid);
}

int main(void)
{
	area = map_private(LEN);
	pattern_fill(area, LEN, SEED);
	in_child(0, thread_touches_first);
	in_child(CLONE_NEWPID, thread_touches_first);
	in_child(CLONE_NEWPID, leader_ends_first);
	in_child(0, grandchild_touches);
	in_child(CLONE_NEWPID, grandchild_touches);
	pattern_check(area, LEN, SEED);
	return 0;
}
