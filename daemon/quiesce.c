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
 * The ranges are kept here and not as records in the page map, which would need a leaf for
 * each chunk that a program gives a single page of up. What is removed while a proof is under
 * way waits for the next one, so that a program that never stops does not postpone it for ever.
 * Where too many ranges come together they are rounded outwards.
 *
 * Runs on the space's worker, a few times a second at most.
 */
#include "quiesce.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "object.h"
#include "space.h"
#include "uffd.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

#define QUIESCE_WAIT_NS 20000000u
#define REMOVED_RANGES_MAX 1024u
/* Each rounding makes ranges this much coarser. */
#define REMOVED_SHIFT_STEP 9u
#define REMOVED_SHIFT_MAX 45u

/* A page costs a removal far less than this. */
#define QUIESCE_PAGE_NS 2000u

/* ---- a set of removed ranges ------------------------------------------------------------ */

static void removed_clear(struct removed *removed)
{
	ranges_clear(&removed->ranges);
	removed->shift = 0;
	removed->all = false;
}

static bool removed_is_empty(const struct removed *removed)
{
	return removed->ranges.n == 0 && !removed->all;
}

static uint64_t round_down(uint64_t addr, unsigned int shift)
{
	return addr >> shift << shift;
}

static uint64_t round_up(uint64_t addr, unsigned int shift)
{
	return round_down(addr + ((1ull << shift) - 1), shift);
}

/* Round every range outwards, in place: what meets or overlaps becomes one. */
static void removed_widen(struct removed *removed, unsigned int page_shift)
{
	struct range *v = removed->ranges.v;
	size_t kept = 0;

	removed->shift += removed->shift ? REMOVED_SHIFT_STEP : page_shift + REMOVED_SHIFT_STEP;
	if (removed->shift > REMOVED_SHIFT_MAX) {
		removed_clear(removed);
		removed->all = true;
		return;
	}
	for (size_t i = 0; i < removed->ranges.n; i++) {
		struct range r = { round_down(v[i].start, removed->shift),
				   round_up(v[i].end, removed->shift), 0 };

		if (kept && v[kept - 1].end >= r.start)
			v[kept - 1].end = r.end;
		else
			v[kept++] = r;
	}
	removed->ranges.n = kept;
}

static void removed_add(struct removed *removed, uint64_t start, uint64_t end,
			unsigned int page_shift)
{
	if (removed->all)
		return;
	if (ranges_add(&removed->ranges, round_down(start, removed->shift),
		       round_up(end, removed->shift), 0) < 0)
		removed->all = true;
	while (removed->ranges.n > REMOVED_RANGES_MAX)
		removed_widen(removed, page_shift);
}

static bool removed_has(const struct removed *removed, uint64_t addr)
{
	return removed->all || ranges_find(&removed->ranges, addr) != NULL;
}

/* ---- the proof -------------------------------------------------------------------------- */

void quiesce_deinit(struct quiesce *quiesce)
{
	ranges_deinit(&quiesce->young.ranges);
	ranges_deinit(&quiesce->old.ranges);
	threads_deinit(&quiesce->threads);
}

void quiesce_note_remove(struct space *space, uint64_t start, uint64_t end)
{
	struct quiesce *q = &space->quiesce;

	if (quiesce_is_idle(q))
		q->since_ns = clock_now_ns();
	removed_add(&q->young, start, end, space->page_shift);
}

void quiesce_note_all(struct space *space)
{
	space->quiesce.since_ns = clock_now_ns();
	space->quiesce.young.all = true;
}

bool quiesce_is_pending(const struct quiesce *quiesce, uint64_t addr)
{
	return removed_has(&quiesce->young, addr) || removed_has(&quiesce->old, addr);
}

bool quiesce_is_idle(const struct quiesce *quiesce)
{
	return removed_is_empty(&quiesce->young) && removed_is_empty(&quiesce->old);
}

void quiesce_note_long(struct space *space, uint64_t n_pages)
{
	uint64_t run_ns = THREADS_RUN_NS + n_pages * QUIESCE_PAGE_NS;

	if (space->quiesce.run_ns < run_ns)
		space->quiesce.run_ns = run_ns;
}

bool quiesce_gives_up(const struct threads_call *call)
{
	int advice;

	if (call->nr != SYS_madvise && call->nr != SYS_process_madvise)
		return false;
	advice = (int)call->args[call->nr == SYS_madvise ? 2 : 3];
	return advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED || advice == MADV_FREE ||
	       advice == MADV_REMOVE;
}

/* Asleep, and not in a call that gives memory up. A fault (-1) that is waited for is of no
 * system call; a thread may fault on the very memory that waits for this proof, also within
 * MADV_POPULATE_WRITE. */
static bool sleeps_elsewhere(int task_fd, pid_t tid, const struct threads_call *call)
{
	(void)task_fd;
	(void)tid;
	return !quiesce_gives_up(call);
}

/* Take the address space's lock for writing, once: the beacon is ours to register. */
static bool pass_lock(struct space *space)
{
	return uffd_register(space->uffd, space->layout.beacon_addr, space->page_size,
			     UFFD_REGISTER_MODE) == UFFD_OK;
}

/* What was removed until now is what the next proof is about. */
static void begin_proof(struct quiesce *q)
{
	struct removed old = q->old;

	q->old = q->young;
	q->young = old;
	removed_clear(&q->young);
	q->proving = false;
}

void quiesce_step(struct space *space)
{
	struct quiesce *q = &space->quiesce;

	if (quiesce_is_idle(q) || !space->beacon_out || space->n_events ||
	    !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    clock_now_ns() - q->since_ns < QUIESCE_WAIT_NS)
		return;
	q->since_ns = clock_now_ns();
	if (removed_is_empty(&q->old))
		begin_proof(q);
	if (!q->proving) {
		q->threads.run_ns = q->run_ns > THREADS_RUN_NS ? q->run_ns : THREADS_RUN_NS;
		q->remove_seq = space->remove_seq;
		q->proving = threads_note(&q->threads, space->task_fd);
		return;
	}
	if (!threads_are_past(&q->threads, sleeps_elsewhere) || !pass_lock(space))
		return;
	removed_clear(&q->old);
	if (quiesce_is_idle(q))
		q->run_ns = 0;
	object_removes_ended(space, q->remove_seq);
}
