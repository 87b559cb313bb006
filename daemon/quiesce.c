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
#include "quiesce.h"

#include <sys/syscall.h>

#include "object.h"
#include "uffd.h"

#define QUIESCE_WAIT_NS 20000000u

/* A page costs a removal far less than this. */
#define QUIESCE_PAGE_NS 2000u

void quiesce_note_remove(struct space *space)
{
	struct quiesce *q = &space->quiesce;

	/* What is being proven is of use to those who wait for it: finish that first. */
	if (q->phase == QUIESCE_PROVING) {
		q->again = true;
		return;
	}
	q->phase = QUIESCE_PENDING;
	q->since_ns = clock_now_ns();
}

void quiesce_note_long(struct space *space, uint64_t n_pages)
{
	uint64_t run_ns = THREADS_RUN_NS + n_pages * QUIESCE_PAGE_NS;

	if (space->quiesce.run_ns < run_ns)
		space->quiesce.run_ns = run_ns;
}

/* Asleep, and not in madvise. A fault (-1) that is waited for is of no system call: a thread
 * may fault on the very memory that waits for this proof. */
static bool sleeps_elsewhere(int task_fd, pid_t tid, const struct threads_call *call)
{
	(void)task_fd;
	(void)tid;
	return call->nr != SYS_madvise && call->nr != SYS_process_madvise;
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
		q->threads.run_ns = q->run_ns > THREADS_RUN_NS ? q->run_ns : THREADS_RUN_NS;
		q->remove_seq = space->remove_seq;
		if (threads_note(&q->threads, space->task_fd))
			q->phase = QUIESCE_PROVING;
		return;
	}
	if (!threads_are_past(&q->threads, sleeps_elsewhere) || !pass_lock(space))
		return;
	q->phase = q->again ? QUIESCE_PENDING : QUIESCE_REACHED;
	if (!q->again)
		q->run_ns = 0;
	q->again = false;
	object_removes_ended(space, q->remove_seq);
}
