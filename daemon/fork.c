/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children. A FORK event brings the child's userfaultfd; its memory is as the parent's was at some
 * moment within the set of events that the fork is of. So the child gets the records that the
 * parent had before the set, and those that the set moved, where it has none: its own page table
 * decides between the two (fault.c).
 *
 * Runs on the parent's worker. A child waits at its first touch of what is away, so that what
 * takes time here is a pause for it, and an error a child that is not served: never one that reads
 * zeros.
 */
#include "fork.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "give_up.h"
#include "object.h"

/* How long there may be no descriptors or threads for a child. */
#define ADOPT_BOUND_NS 1000000000u
#define ADOPT_PAUSE_NS 5000000

static bool is_shortage(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -EAGAIN || err == -ENOMEM;
}

/* While there are no descriptors or threads to be had, we wait a while. */
static int adopt_child(struct space *space, int uffd, struct space **ret_child)
{
	uint64_t until_ns = clock_now_ns() + ADOPT_BOUND_NS;
	const struct timespec pause = { .tv_nsec = ADOPT_PAUSE_NS };
	int err;

	while (is_shortage(err = control_adopt_child(space, uffd, ret_child)) &&
	       clock_now_ns() < until_ns)
		(void)nanosleep(&pause, NULL);
	return err;
}

static int start_child(struct space *child)
{
	uint64_t until_ns = clock_now_ns() + ADOPT_BOUND_NS;
	const struct timespec pause = { .tv_nsec = ADOPT_PAUSE_NS };
	int err;

	while (is_shortage(err = space_start_worker(child)) && clock_now_ns() < until_ns)
		(void)nanosleep(&pause, NULL);
	return err;
}

/* The child's page map; without one it is served, and loses what is away. */
static int inherit(struct space *space, struct space *child)
{
	int err = pagemap_fork(&space->map, &child->map) < 0 ? -ENOSPC : 0, init = 0;

	if (err < 0)
		init = pagemap_init(&child->map, child->family);
	if (init == 0 && err < 0)
		give_up_child(space, child, err);
	if (init == 0)
		space_publish(child);
	return init;
}

static int add_heir(struct heirs *heirs, struct space *child)
{
	if (heirs->n == heirs->cap) {
		uint32_t cap = heirs->cap ? 2 * heirs->cap : 8;
		struct space **v = realloc(heirs->v, cap * sizeof(struct space *));

		if (!v)
			return -ENOMEM;
		heirs->v = v;
		heirs->cap = cap;
	}
	heirs->v[heirs->n++] = child;
	return 0;
}

static void strand(struct space *space, struct space *child, int uffd)
{
	if (child) {
		child->uffd = -1; /* still ours */
		space_unref(child);
	}
	give_up_strand(space, uffd, &space->map);
}

static void begin_one(struct space *space, struct heirs *heirs, struct uffd_msg *msg)
{
	int uffd = (int)msg->arg.fork.ufd;
	struct space *child = NULL;
	int err;

	event_log_flag(msg, LOG_DONE);
	if (!space->beacon_out) {
		/* Nothing was away: the child finds its beacon and enrols afresh. */
		close(uffd);
		return;
	}
	err = adopt_child(space, uffd, &child);
	if (err == 0)
		err = inherit(space, child);
	if (err == 0)
		err = add_heir(heirs, child);
	if (err < 0)
		strand(space, child, uffd);
}

void fork_begin(struct space *space, struct heirs *heirs)
{
	for (uint32_t i = 0; i < space->log.n; i++) {
		struct uffd_msg *msg = event_log_at(&space->log, i);

		if (msg->event == UFFD_EVENT_FORK && !event_log_is_done(msg))
			begin_one(space, heirs, msg);
	}
}

/* What lies in [first, end) now, the child has there too if it has nothing there. */
static int overlay_range(struct space *space, struct space *child, uint64_t first, uint64_t end)
{
	struct family *family = space->family;
	struct page_rec rec;
	int err = 0;

	for (uint64_t i = first; err == 0 && (i = pagemap_next(&space->map, i, end, &rec)) < end;
	     i++) {
		if (pagemap_get(&child->map, i).v != 0 || !page_state_has_slot(page_rec_state(rec)))
			continue;
		pthread_mutex_lock(&family->lock);
		err = family_slot_ref(family, page_rec_store(rec), page_rec_slot(rec));
		pthread_mutex_unlock(&family->lock);
		if (err == 0)
			err = pagemap_set(&child->map, i, rec);
	}
	return err;
}

static int overlay_moved(struct space *space, struct space *child)
{
	int err = 0;

	for (uint32_t i = 0; i < space->log.n && err == 0; i++) {
		const struct uffd_msg *msg = event_log_at(&space->log, i);

		if (msg->event == UFFD_EVENT_REMAP)
			err = overlay_range(space, child, space_pgidx(space, msg->arg.remap.to),
					    space_pgidx(space, msg->arg.remap.to +
								       msg->arg.remap.len));
	}
	return err;
}

static int finish_one(struct space *space, struct space *child)
{
	int err = overlay_moved(space, child);

	if (err < 0)
		give_up_child(space, child, err);
	child->given_up |= space->given_up;
	child->distrust |= space->distrust;
	err = ranges_copy(&space->registered, &child->registered);
	if (err == 0)
		err = ranges_copy(&space->occupied, &child->occupied);
	/* From here on the daemon is needed, also if the parent ends at once. */
	__atomic_store_n(&child->registered_bytes, ranges_bytes(&child->registered),
			 __ATOMIC_RELAXED);
	if (err == 0)
		err = object_fork(space, child);
	return err == 0 ? start_child(child) : err;
}

void fork_finish(struct space *space, struct heirs *heirs)
{
	for (uint32_t i = 0; i < heirs->n; i++) {
		struct space *child = heirs->v[i];

		if (finish_one(space, child) < 0)
			strand(space, child, child->uffd);
		else
			space_unref(child);
	}
	free(heirs->v);
	*heirs = HEIRS_NULL;
}
