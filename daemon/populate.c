/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A knot in the kernel, and how it is untied. An mremap that grows locked memory populates the
 * new ground, and does so before it queues the REMAP of the move. The ground is registered
 * already, so populating it faults; but as long as that REMAP is outstanding every fill says
 * EAGAIN, and it comes only after the fault was served. Nobody gets on, whole space included.
 *
 * What still works is UNREGISTER. A fault of a thread that is in mremap can only be of that
 * kind, so the page is new ground, and what the kernel puts there by itself, a zero page, is
 * what it must hold. So the ground is let go until the thread has got on, and registered again
 * before anything is read. Should another thread move memory of ours onto it in this instant,
 * its records follow the events until they are marked again (space->raced), as in home.c.
 *
 * On the space's worker. A few locks of the address space and /proc reads, in a case that is
 * rare: not on the way of other faults.
 */
#define _GNU_SOURCE
#include "populate.h"

#include <poll.h>
#include <sys/syscall.h>

#include "evict.h"
#include "fault.h"
#include "space.h"
#include "threads.h"
#include "uffd.h"

/* Served by the usual way in less, if it can be. */
#define POPULATE_AFTER_NS 3000000u
#define POPULATE_BOUND_MS 10
#define POPULATE_PAGES_MAX 512u

static bool is_readable(const struct space *space, int timeout_ms)
{
	struct pollfd pollfd = { .fd = space->uffd, .events = POLLIN };

	return poll(&pollfd, 1, timeout_ms) > 0;
}

/* Pages by which the mremap grows in which the faulting thread is; 0: it is in none. */
static uint64_t growth_of(const struct space *space, const struct fault *fault)
{
	pid_t tid = threads_find(space->task_fd, (pid_t)fault->tid);
	struct threads_call call;

	if (tid == 0 || !threads_read_call(space->task_fd, tid, &call) ||
	    call.nr != SYS_mremap || call.args[2] <= call.args[1])
		return 0;
	return (call.args[2] - call.args[1]) >> space->page_shift;
}

/* How much from the fault on is certainly new ground. The page itself is. Its followers are if
 * there is nothing and no marker; a hole that should carry one and does not makes us careful. */
static uint64_t new_ground(const struct space *space, uint64_t pgidx, uint64_t growth)
{
	uint64_t entries[POPULATE_PAGES_MAX];
	uint64_t max = growth < POPULATE_PAGES_MAX ? growth : POPULATE_PAGES_MAX;
	uint64_t n = 1;
	int got;

	if (space->n_unmarked)
		return 1;
	got = fault_read_pagemap(space, pgidx, (uint32_t)max, entries);
	while (got > 0 && n < (uint64_t)got && entries[n] == 0)
		n++;
	return n;
}

static void populate_help(struct space *space, uint64_t addr, uint64_t bytes)
{
	const struct range before = space->raced;

	if (ranges_remove(&space->certain, addr, addr + bytes) < 0)
		return;
	/* Before it is let go: a successor registers it again. */
	space_set_raced(space, addr, addr + bytes);
	if (uffd_unregister(space->uffd, addr, bytes) != UFFD_OK) {
		space_set_raced(space, before.start, before.end);
		return;
	}
	/* Unregistering has woken it. It faults on the first page after this ground, or tells. */
	(void)is_readable(space, POPULATE_BOUND_MS);
	if (uffd_register(space->uffd, addr, bytes, UFFD_REGISTER_MODE) == UFFD_GONE)
		space->gone = true;
}

void populate_step(struct space *space)
{
	if (space->n_faults == 0 || space->gone ||
	    clock_now_ns() - space->faults[0].read_ns < POPULATE_AFTER_NS ||
	    uffd_settled(space->uffd) != UFFD_AGAIN || is_readable(space, 0))
		return;
	for (uint32_t i = 0; i < space->n_faults; i++) {
		const struct fault *fault = &space->faults[i];
		uint64_t growth = growth_of(space, fault);

		if (growth == 0)
			continue;
		/* No hole without a marker or a record of that. */
		if (!evict_close_gates(space))
			return;
		populate_help(space, fault->addr,
			      new_ground(space, space_pgidx(space, fault->addr), growth)
				      << space->page_shift);
		/* Its next fault, if any, is a new message. */
		space->faults[i] = space->faults[--space->n_faults];
		return;
	}
}
