/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events. Runs on the space's worker, between closing the gate and serving faults.
 *
 * They are not applied as they are read, because they do not arrive in the order of the
 * changes: a thread changes the address space first, and queues its event later. What can be
 * known is a moment at which *nothing* is outstanding: the kernel counts changes whose event
 * is unread, and every fill fails with EAGAIN while there are any (uffd_settled asks without
 * an effect). So events are collected until such a moment, and the set is complete; then it
 * is put into an order that is possible and applied as a whole:
 *
 *   - an UNMAP that equals the source of a REMAP in the set is the tail of that mremap;
 *   - a REMAP onto ground that is occupied comes after the event that frees it, whatever order
 *     they were read in;
 *   - otherwise as they were read.
 *
 * What stays ambiguous is settled by the markers in the page table: fault.c judges each
 * record by them. A child that was forked within the set gets what the parent had before and
 * what it has after, and its own page table decides between them.
 */
#define _GNU_SOURCE
#include "event.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "evict.h"
#include "fault.h"
#include "give_up.h"
#include "log.h"
#include "object.h"
#include "quiesce.h"
#include "uffd.h"

/* How long there may be no descriptors or threads for a child. */
#define ADOPT_BOUND_NS 1000000000u
#define ADOPT_PAUSE_NS 5000000
#define SETTLE_BOUND_NS 2000000u
#define SETTLE_PAUSE_NS 20000
/* How many events are collected at most before they are applied as they are. */
#define EVENTS_MAX 65536u

/* uffd_msg.event of an event that has been applied, or is the tail of another. */
#define EVENT_APPLIED 0
/* Of a REMAP whose source is unmapped by it; in a field that the kernel does not use. */
#define VACATES reserved1

void event_queue(struct space *space, const struct uffd_msg *msg)
{
	if (space->n_events == space->events_cap) {
		uint32_t cap = space->events_cap ? space->events_cap * 2 : 64;
		struct uffd_msg *events = realloc(space->events, cap * sizeof(*events));

		if (!events) {
			/* An event that cannot be remembered would become wrong bytes. */
			log_err("pid %d: no memory for an event", space->pid);
			abort();
		}
		space->events = events;
		space->events_cap = cap;
	}
	space->events[space->n_events++] = *msg;
	/* One that came in the instant before it was read. */
	if (msg->event == UFFD_EVENT_FORK)
		evict_settle_batches(space);
	if (msg->event == UFFD_EVENT_REMOVE)
		object_note_remove(space, msg->arg.remove.start, msg->arg.remove.end);
	stats_add(&space->stats.events, 1);
}

/* ---- applying ------------------------------------------------------------------------- */

struct span {
	uint64_t first, n; /* page indices */
};

static struct span span_of(const struct space *space, uint64_t start, uint64_t end)
{
	return (struct span){ space_pgidx(space, start), space_pgidx(space, end - start) };
}

static void must(struct space *space, int err, const char *what)
{
	if (err < 0 && !space->gone)
		give_up_map(space, err, what);
}

/* Rather too little than too much. */
static void forget_occupied(struct space *space, uint64_t start, uint64_t end)
{
	if (ranges_remove(&space->occupied, start, end) < 0)
		ranges_clear(&space->occupied);
}

static void apply_unmap(struct space *space, const struct uffd_msg *msg)
{
	struct span span = span_of(space, msg->arg.remove.start, msg->arg.remove.end);

	must(space, pagemap_drop(&space->map, span.first, span.n), "forget an unmapped range");
	forget_occupied(space, msg->arg.remove.start, msg->arg.remove.end);
	/* To believe too much is no harm. */
	(void)ranges_remove(&space->registered, msg->arg.remove.start, msg->arg.remove.end);
	space->shared_unmapped |= space->n_objects != 0;
}

static void apply_remove(struct space *space, const struct uffd_msg *msg)
{
	struct span span = span_of(space, msg->arg.remove.start, msg->arg.remove.end);

	if (msg->arg.remove.start == space->layout.beacon_addr)
		return; /* a child reset its beacon for its own children */
	must(space, pagemap_remove(&space->map, span.first, span.n), "follow madvise");
	quiesce_note_remove(space, msg->arg.remove.start, msg->arg.remove.end);
}

static void apply_remap(struct space *space, const struct uffd_msg *msg)
{
	uint64_t from = msg->arg.remap.from, to = msg->arg.remap.to, len = msg->arg.remap.len;
	struct page_rec rec;

	must(space, pagemap_move(&space->map, space_pgidx(space, from), space_pgidx(space, to),
				 space_pgidx(space, len)),
	     "follow mremap");
	evict_batches_moved(space, space_pgidx(space, from), space_pgidx(space, to),
			    space_pgidx(space, len));
	if (msg->VACATES) {
		forget_occupied(space, from, from + len);
		(void)ranges_remove(&space->registered, from, from + len);
	}
	(void)ranges_add(&space->occupied, to, to + len, 0);
	/* What is not remembered stays registered for as long as we are there. */
	(void)ranges_add(&space->registered, to, to + len, 0);
	if (to >= space->raced.end || to + len <= space->raced.start)
		return;
	space->distrust |= space->given_up;
	/* The destination was unregistered between this mremap and the reading of its event,
	 * and lost its markers: the records follow the events until they are marked again. */
	for (uint64_t i = space_pgidx(space, to);
	     (i = pagemap_next(&space->map, i, space_pgidx(space, to + len), &rec)) <
	     space_pgidx(space, to + len);
	     i++) {
		rec.v |= PAGE_REC_UNMARKED;
		space->n_unmarked++;
		must(space, pagemap_set(&space->map, i, rec), "follow mremap");
	}
}

/* What the child had in our hands when it was forked. */
struct heritage {
	struct pagemap *map;
	int error; /* the map could not be made, or lacks something */
};

static bool is_shortage(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -EAGAIN || err == -ENOMEM;
}

/* A child waits at its first touch of what is away. So while there are no descriptors or
 * threads to be had, we wait a while. */
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
static int inherit(struct space *space, struct space *child, const struct heritage *heritage)
{
	int err = heritage->error, init = 0;

	if (heritage->map && pagemap_fork(heritage->map, &child->map) < 0)
		err = -ENOSPC;
	if (!child->map.family)
		init = pagemap_init(&child->map, child->family);
	child->given_up = space->given_up;
	child->distrust = space->distrust;
	if (init == 0 && err < 0)
		give_up_child(space, child, err);
	return init;
}

static void apply_fork(struct space *space, const struct uffd_msg *msg,
		       const struct heritage *heritage)
{
	int uffd = (int)msg->arg.fork.ufd;
	struct space *child;
	int err;

	if (!space->beacon_out) {
		/* Nothing was away: the child finds its beacon and enrols afresh. */
		close(uffd);
		return;
	}
	err = adopt_child(space, uffd, &child);
	if (err == 0) {
		err = inherit(space, child, heritage);
		if (err == 0)
			err = ranges_copy(&space->registered, &child->registered);
		if (err == 0)
			err = ranges_copy(&space->occupied, &child->occupied);
		/* From here on the daemon is needed, also if the parent ends at once. */
		__atomic_store_n(&child->registered_bytes, ranges_bytes(&child->registered),
				 __ATOMIC_RELAXED);
		if (err == 0)
			err = object_fork(space, child);
		if (err == 0)
			err = start_child(child);
		if (err < 0)
			child->uffd = -1; /* still ours */
		space_unref(child);
	}
	if (err < 0)
		give_up_strand(space, uffd, heritage->map);
}

/* ---- order ------------------------------------------------------------------------------ */

static bool is_tail(const struct uffd_msg *remap, const struct uffd_msg *unmap)
{
	return unmap->event == UFFD_EVENT_UNMAP && unmap->arg.remove.start == remap->arg.remap.from &&
	       unmap->arg.remove.end == remap->arg.remap.from + remap->arg.remap.len;
}

/* A moving mremap brings an UNMAP of its source, read after its REMAP. Both are outstanding from
 * the move on, so a set that is complete has both or none; without one the source stays mapped. */
static void join_tails(struct space *space)
{
	for (uint32_t i = 0; i < space->n_events; i++) {
		struct uffd_msg *remap = &space->events[i];

		if (remap->event != UFFD_EVENT_REMAP)
			continue;
		remap->VACATES = false;
		for (uint32_t k = i + 1; k < space->n_events && !remap->VACATES; k++) {
			if (!is_tail(remap, &space->events[k]))
				continue;
			space->events[k].event = EVENT_APPLIED;
			remap->VACATES = true;
		}
	}
}

/* Does an event of the set after the i-th free a part of [start, end)? */
static bool vacated_later(const struct space *space, uint32_t i, uint64_t start, uint64_t end)
{
	for (uint32_t k = i + 1; k < space->n_events; k++) {
		const struct uffd_msg *msg = &space->events[k];
		uint64_t from, to;

		if (msg->event == UFFD_EVENT_UNMAP) {
			from = msg->arg.remove.start;
			to = msg->arg.remove.end;
		} else if (msg->event == UFFD_EVENT_REMAP) {
			from = msg->arg.remap.from;
			to = from + msg->arg.remap.len;
		} else {
			continue;
		}
		if (from < end && start < to)
			return true;
	}
	return false;
}

/*
 * Two threads: one unmaps X (or moves it away), the other moves Y onto the free ground, and
 * queues its event first. Y cannot have moved onto ground that was occupied, so that REMAP comes
 * after the event that frees X. Where X was free already
 * the same events mean that Y went on from there, and they are in order. The page table cannot
 * be asked instead: what lies at X now may have come there last.
 */
static bool must_wait(const struct space *space, uint32_t i)
{
	const struct uffd_msg *msg = &space->events[i];
	uint64_t to = msg->arg.remap.to, end = to + msg->arg.remap.len;
	const struct range *occupied;

	if (msg->event != UFFD_EVENT_REMAP)
		return false;
	occupied = ranges_at_or_after(&space->occupied, to);
	return occupied && occupied->start < end && vacated_later(space, i, to, end);
}

static void apply_one(struct space *space, struct uffd_msg *msg)
{
	switch (msg->event) {
	case UFFD_EVENT_UNMAP:
		apply_unmap(space, msg);
		break;
	case UFFD_EVENT_REMOVE:
		apply_remove(space, msg);
		break;
	case UFFD_EVENT_REMAP:
		apply_remap(space, msg);
		break;
	default: /* an event that we never asked for */
		break;
	}
	msg->event = EVENT_APPLIED;
}

/* The next event to apply: the first that need not wait; else the first; n_events: none. */
static uint32_t next_change(const struct space *space)
{
	uint32_t first = space->n_events;

	for (uint32_t i = 0; i < space->n_events; i++) {
		uint8_t event = space->events[i].event;

		if (event == EVENT_APPLIED || event == UFFD_EVENT_FORK)
			continue;
		if (!must_wait(space, i))
			return i;
		if (first == space->n_events)
			first = i;
	}
	return first;
}

/* Everything but forks. */
static void apply_changes(struct space *space)
{
	uint32_t i;

	join_tails(space);
	while ((i = next_change(space)) < space->n_events)
		apply_one(space, &space->events[i]);
}

static void apply_forks(struct space *space, const struct heritage *heritage)
{
	for (uint32_t i = 0; i < space->n_events; i++)
		if (space->events[i].event == UFFD_EVENT_FORK)
			apply_fork(space, &space->events[i], heritage);
}

static uint32_t count_events(const struct space *space, uint8_t event)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < space->n_events; i++)
		n += space->events[i].event == event;
	return n;
}

/* What a REMAP of the set moved is in the child either at its old or at its new place; `before`
 * has the old ones, so add the new ones. */
static int overlay_moved(struct space *space, struct pagemap *before, const struct span *moved,
			 uint32_t n_moved)
{
	struct page_rec rec;
	int err;

	for (uint32_t m = 0; m < n_moved; m++) {
		uint64_t end = moved[m].first + moved[m].n;

		for (uint64_t i = moved[m].first;
		     (i = pagemap_next(&space->map, i, end, &rec)) < end; i++) {
			if (pagemap_get(before, i).v != 0 || !page_state_has_slot(page_rec_state(rec)))
				continue;
			pthread_mutex_lock(&space->family->lock);
			err = family_slot_ref(space->family, page_rec_store(rec),
					      page_rec_slot(rec));
			pthread_mutex_unlock(&space->family->lock);
			if (err == 0)
				err = pagemap_set(before, i, rec);
			if (err < 0)
				return err;
		}
	}
	return 0;
}

/* A set that holds forks beside other changes. */
static void apply_with_forks(struct space *space)
{
	struct pagemap before = PAGEMAP_NULL;
	struct heritage heritage = { .map = &before };
	struct span *moved = calloc(space->n_events, sizeof(*moved));
	uint32_t n_moved = 0;

	heritage.error = moved ? pagemap_fork(&space->map, &before) : -ENOMEM;
	if (heritage.error < 0)
		heritage.map = NULL;
	for (uint32_t i = 0; i < space->n_events && heritage.map; i++) {
		const struct uffd_msg *msg = &space->events[i];

		if (msg->event == UFFD_EVENT_REMAP)
			moved[n_moved++] = span_of(space, msg->arg.remap.to,
						   msg->arg.remap.to + msg->arg.remap.len);
	}
	apply_changes(space);
	if (heritage.map)
		heritage.error = overlay_moved(space, &before, moved, n_moved);
	apply_forks(space, &heritage);
	pagemap_deinit(&before);
	free(moved);
}

/* Whatever an event touched must be registered again before a page of it may leave. */
static void forget_certainty(struct space *space)
{
	for (uint32_t i = 0; i < space->n_events; i++) {
		const struct uffd_msg *msg = &space->events[i];
		uint64_t len = msg->arg.remap.len;
		int err = 0;

		if (msg->event == UFFD_EVENT_UNMAP)
			err = ranges_remove(&space->certain, msg->arg.remove.start,
					    msg->arg.remove.end);
		if (msg->event == UFFD_EVENT_REMAP) {
			err = ranges_remove(&space->certain, msg->arg.remap.from,
					    msg->arg.remap.from + len);
			if (err == 0)
				err = ranges_remove(&space->certain, msg->arg.remap.to,
						    msg->arg.remap.to + len);
		}
		/* To believe too little costs a system call, too much costs bytes. */
		if (err < 0)
			ranges_clear(&space->certain);
	}
}

static void event_apply_all(struct space *space)
{
	uint32_t forks = count_events(space, UFFD_EVENT_FORK);

	forget_certainty(space);
	/* A child gets no staging: what lies there must be in its slot before the child shares
	 * the records. */
	if (forks)
		evict_settle_batches(space);
	if (forks && forks != space->n_events) {
		apply_with_forks(space);
	} else {
		apply_changes(space);
		apply_forks(space, &(struct heritage){ .map = &space->map });
	}
	space->n_events = 0;
	space->raced = (struct range){ 0 };
}

/* ---- settling --------------------------------------------------------------------------- */

void event_settle(struct space *space)
{
	uint64_t until_ns = clock_now_ns() + SETTLE_BOUND_NS;
	struct pollfd pollfd = { .fd = space->uffd, .events = POLLIN };
	const struct timespec pause = { .tv_nsec = SETTLE_PAUSE_NS };

	while (space->n_events < EVENTS_MAX) {
		enum uffd_result result;

		if (fault_read_batch(space))
			continue;
		/* The thread whose event was read last must run before it counts as read. */
		result = uffd_settled(space->uffd);
		if (result == UFFD_GONE)
			space->gone = true;
		if (result != UFFD_AGAIN)
			break;
		if (clock_now_ns() > until_ns)
			return;
		(void)ppoll(&pollfd, 1, &pause, NULL);
	}
	event_apply_all(space);
}
