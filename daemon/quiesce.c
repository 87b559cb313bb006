/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * REMOVE is delivered before the kernel drops the pages, and nothing says when it has. A page
 * that was present may therefore not leave: it could be moved out in the instant before it
 * would have been dropped, and come back. A fault on it proves that it was dropped. But
 * MADV_FREE drops nothing until memory is short, and a range that is let go raises no fault:
 * such pages would stay in host RAM for ever. So the end of the madvise is proven otherwise.
 *
 * Between the reading of the event and the lock of the address space, under which the pages
 * are dropped, the thread executes a few instructions. A thread is past them when it is seen
 * asleep in anything but madvise, or when it has consumed so much processor time since that it
 * cannot still be there, or when it has gone. When that holds for every thread that there was,
 * the address space is locked once for writing (a REGISTER), which waits for whoever is
 * dropping pages.
 *
 * Runs on the space's worker, a few times a second at most.
 */
#define _GNU_SOURCE
#include "quiesce.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd.h"

#define QUIESCE_WAIT_NS 20000000u
/* Far more than the way to the lock costs, spinning for it included. */
#define QUIESCE_RUN_NS 50000000u

void quiesce_note_remove(struct space *space)
{
	space->quiesce.phase = QUIESCE_PENDING;
	space->quiesce.since_ns = clock_now_ns();
	space->quiesce.n_threads = 0;
}

static ssize_t read_task_file(const struct space *space, pid_t tid, const char *name, char *text,
			      size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%d/%s", tid, name);
	fd = openat(space->task_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* Nanoseconds on a processor; false: the thread has gone. */
static bool run_time(const struct space *space, pid_t tid, uint64_t *ret_ns)
{
	char text[128];

	if (read_task_file(space, tid, "schedstat", text, sizeof(text)) <= 0)
		return false;
	*ret_ns = strtoull(text, NULL, 10);
	return true;
}

/* Asleep in a system call that is not madvise. "running", or a fault (-1), proves nothing. */
static bool sleeps_elsewhere(const struct space *space, pid_t tid)
{
	char text[256], *end;
	long nr;

	if (read_task_file(space, tid, "syscall", text, sizeof(text)) <= 0)
		return false;
	nr = strtol(text, &end, 10);
	return end != text && nr >= 0 && nr != SYS_madvise && nr != SYS_process_madvise;
}

static bool note_thread(struct space *space, pid_t tid)
{
	struct quiesce *q = &space->quiesce;
	uint64_t ns;

	if (!run_time(space, tid, &ns))
		return true;
	if (q->n_threads == q->cap) {
		uint32_t cap = q->cap ? 2 * q->cap : 16;
		struct quiesce_thread *threads = realloc(q->threads, cap * sizeof(*threads));

		if (!threads)
			return false;
		q->threads = threads;
		q->cap = cap;
	}
	q->threads[q->n_threads++] = (struct quiesce_thread){ .tid = tid, .run_ns = ns };
	return true;
}

/* Every thread that there is now: one that is born later was not in that madvise. */
static bool note_threads(struct space *space)
{
	char buf[4096] __attribute__((aligned(8)));
	long n;

	space->quiesce.n_threads = 0;
	if (lseek(space->task_fd, 0, SEEK_SET) < 0)
		return false;
	while ((n = syscall(SYS_getdents64, space->task_fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const void *)(buf + at);
			pid_t tid = (pid_t)atoi(entry->d_name);

			at += entry->d_reclen;
			if (tid > 0 && !note_thread(space, tid))
				return false;
		}
	}
	return n == 0;
}

/* Drop the threads that are past the madvise; true when none is left. */
static bool threads_are_past(struct space *space)
{
	struct quiesce *q = &space->quiesce;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < q->n_threads; i++) {
		uint64_t ns;

		if (run_time(space, q->threads[i].tid, &ns) &&
		    ns - q->threads[i].run_ns < QUIESCE_RUN_NS &&
		    !sleeps_elsewhere(space, q->threads[i].tid))
			q->threads[kept++] = q->threads[i];
	}
	q->n_threads = kept;
	return kept == 0;
}

/* Take the address space's lock for writing, once: the beacon is ours to register. */
static bool pass_lock(struct space *space)
{
	return uffd_register(space->uffd, space->layout.beacon_addr, space->page_size,
			     UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP) == UFFD_OK;
}

void quiesce_step(struct space *space)
{
	struct quiesce *q = &space->quiesce;

	if (q->phase == QUIESCE_REACHED || !space->beacon_out || space->n_events ||
	    !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    clock_now_ns() - q->since_ns < QUIESCE_WAIT_NS)
		return;
	q->since_ns = clock_now_ns();
	if (q->phase == QUIESCE_PENDING) {
		if (note_threads(space))
			q->phase = QUIESCE_PROVING;
		return;
	}
	if (threads_are_past(space) && pass_lock(space))
		q->phase = QUIESCE_REACHED;
}
