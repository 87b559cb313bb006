/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Proof that every thread that a program had at one moment has got past what it was doing
 * then. From outside a thread shows four things: that it has gone, that it is stopped, that
 * it sleeps and in which system call, and how long it has run. One that has run for far longer
 * than the section in question can take cannot still be in it.
 *
 * Owned by one thread. Allocates; reads /proc; never on the fault path.
 */
#ifndef UHMMD_THREADS_H
#define UHMMD_THREADS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Far more processor time than any section that is waited for here, spinning for a lock
 * included. */
#define THREADS_RUN_NS 50000000u

struct threads_entry {
	pid_t tid;
	uint64_t run_ns;
};

struct threads {
	int task_fd; /* of the program's /proc/PID/task; not owned */
	uint64_t run_ns; /* what counts as far longer; at least THREADS_RUN_NS */
	struct threads_entry *v; /* not past yet */
	uint32_t n, cap;
};

#define THREADS_NULL ((struct threads){ .task_fd = -1, .run_ns = THREADS_RUN_NS })

/* What a sleeping thread is in. */
struct threads_call {
	long nr; /* -1: in no system call (a page fault, an interrupt) */
	uint64_t args[6];
	uint64_t sp; /* 0: made by the kernel, for io_uring, and the rest says nothing */
};

/* Is a thread that sleeps in this call past the section? */
typedef bool (*threads_judge)(int task_fd, pid_t tid, const struct threads_call *call);

/* A file in /proc could not be opened or read: because that which it is of has gone? Every other
 * errno says nothing about it. */
static inline bool proc_has_gone(int error)
{
	return error == ENOENT || error == ESRCH;
}

void threads_deinit(struct threads *threads);
/* Remember every thread that there is now; false when that failed. A thread that is born
 * later was in nothing now. */
bool threads_note(struct threads *threads, int task_fd);
/* Forget those that are past; true when none is left. */
bool threads_are_past(struct threads *threads, threads_judge judge);
/* How many threads has the program? 0: that cannot be seen. */
uint32_t threads_count(int task_fd);
/* How many pages of addresses it has mapped, by the kernel's own count. 0: none, or that cannot be
 * seen. */
uint64_t threads_mapped_pages(int task_fd);
/* What the thread sleeps in; false: it runs, or has gone. */
bool threads_read_call(int task_fd, pid_t tid, struct threads_call *ret_call);
/* The number by which /proc knows the thread that is `own_tid` in its own pid namespace, as a
 * fault names it; 0: there is none. Looks at every thread if the two differ. */
pid_t threads_find(int task_fd, pid_t own_tid);
/* Does it sleep uninterruptibly in a function of the kernel whose name begins so, or is it about
 * to? Then in which call. */
bool threads_sleeps_in(int task_fd, pid_t tid, const char *function, struct threads_call *ret_call);
/* Does it sleep, or is it stopped? One that has been woken does not, though it has not got a
 * processor yet; threads_read_call may still show its call. */
bool threads_sleeps(int task_fd, pid_t tid);
/* Call `fn` for each thread that there is; stops at false, and returns it. */
bool threads_each(int task_fd, bool (*fn)(void *arg, int task_fd, pid_t tid), void *arg);

#endif
