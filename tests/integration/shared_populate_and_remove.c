/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread gives shared pages up, again and again, while another populates them by madvise:
 * the second waits, inside madvise, for pages that are held back until the first is proven to
 * have ended. Neither may wait for the other for ever. The same with a neighbour that is
 * stopped where its own madvise returns.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "prog.h"

#define LEN (8 * MIB)
#define ROUNDS 20
#define STALL_SEC 20

static char *mem;
static bool stop;

static void *populate(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		CHECK(madvise(mem, LEN, MADV_POPULATE_WRITE) == 0);
	return arg;
}

static void on_alarm(int signum)
{
	static const char text[] = "nothing went on any more\n";

	(void)signum;
	(void)!write(2, text, sizeof(text) - 1);
	_exit(1);
}

static void with_populating_thread(void)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, populate, NULL) == 0);
	for (int i = 0; i < ROUNDS; i++) {
		alarm(STALL_SEC);
		CHECK(madvise(mem, LEN, MADV_REMOVE) == 0);
		CHECK(is_zero(mem, LEN));
		ask_away(mem, LEN);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	CHECK(pthread_join(thread, NULL) == 0);
}

/* A traced child that never gets past the end of its MADV_REMOVE. */
static pid_t stop_after_remove(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
		raise(SIGSTOP);
		(void)syscall(SYS_madvise, mem, LEN, MADV_REMOVE);
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	/* To the entry and to the exit of each call, until madvise has returned. */
	for (bool returned = false; !returned;) {
		for (int side = 0; side < 2; side++) {
			CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
			CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
		}
		returned = is_zero(mem, page_bytes());
	}
	return pid;
}

static void with_stopped_neighbour(void)
{
	pid_t pid;

	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	alarm(STALL_SEC);
	pid = stop_after_remove();
	CHECK(is_zero(mem, LEN));
	alarm(0);
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	pattern_fill(mem, LEN, 2);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 2);
}

int main(void)
{
	CHECK(signal(SIGALRM, on_alarm) != SIG_ERR);
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	with_populating_thread();
	with_stopped_neighbour();
	return 0;
}
