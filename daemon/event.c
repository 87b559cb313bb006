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
 *   - what is of one thread, as far as that is known (event_who.c), is in order;
 *   - a REMAP onto ground that is occupied comes after the event that frees it, whatever order
 *     they were read in;
 *   - otherwise as they were read.
 *
 * What stays ambiguous is settled by the markers in the page table: fault.c judges each
 * record by them, and so does an UNMAP that may have come to nothing. A child that was forked
 * within the set is fork.c's.
 *
 * What was read, in which order it is applied and how far that has come is in the log
 * (event_log.h), so that a daemon that comes after this one goes on where it was.
 */
#define _GNU_SOURCE
#include "event.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comeback.h"
#include "event_who.h"
#include "evict.h"
#include "fault.h"
#include "fork.h"
#include "give_up.h"
#include "log.h"
#include "object.h"
#include "quiesce.h"
#include "uffd.h"

#define SETTLE_BOUND_NS 2000000u
#define SETTLE_PAUSE_NS 20000
/* How many events are collected at most before they are applied as they are. */
#define EVENTS_MAX 65536u
/* So much of the page table is read at once: one chunk of the page map. */
#define LOOK_PAGES PAGEMAP_LEAF_PAGES

void event_note_forks(struct space *space, struct uffd_msg *msgs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (msgs[i].event == UFFD_EVENT_FORK)
			fork_note(space, &msgs[i]);
}

void event_note(struct space *space, struct uffd_msg *msg)
{
	event_who_note(space, msg);
	/* One that came in the instant before it was read. */
	if (msg->event == UFFD_EVENT_FORK)
		evict_settle_batches(space);
	if (msg->event == UFFD_EVENT_REMOVE)
		object_note_remove(space, msg->arg.remove.start, msg->arg.remove.end);
	stats_add(&space->stats.events, 1);
}

static struct uffd_msg *msg_at(const struct space *space, uint32_t i)
{
	return event_log_at(&space->log, i);
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

/* Is this page, which was, registered still? To ask would map a page of shared memory. */
static bool is_registered_still(const struct space *space, uint64_t addr)
{
	struct mapping m;

	if (!__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    (space->has_others && (maps_query(space->maps_fd, addr, &m) < 0 || m.shared)))
		return false;
	return uffd_is_registered(space->uffd, addr, space->page_size) != UFFD_NO_VMA;
}

/*
 * An mmap(MAP_FIXED) that fails for want of memory has raised its UNMAP already, and puts the
 * mappings back as they were. What it leaves cannot be told from an munmap by the event; but a
 * marker is there only for as long as its mapping is, and none can have come in this set but by
 * an mremap. So whoever has kept its marker has kept its memory.
 */
static bool may_be_mapped_still(const struct space *space, struct range range)
{
	struct page_rec rec;
	uint64_t first = space_pgidx(space, range.start), end = space_pgidx(space, range.end);

	for (uint32_t i = 0; i < space->log.n; i++)
		if (ranges_meet(event_target(msg_at(space, i)), range))
			return false;
	/* An munmap leaves nothing registered: then there is nothing to look for. */
	return is_registered_still(
		space, space_addr(space, pagemap_next(&space->map, first, end, &rec)));
}

/* Of [first, first + n), drop what has no marker on its hole. */
static int drop_by_entries(struct space *space, uint64_t first, uint32_t n, const uint64_t *entries)
{
	int err = 0;

	for (uint32_t i = 0, run; i < n && err == 0; i += run ? run : 1) {
		for (run = 0; i + run < n && !fault_is_marked_hole(entries[i + run]);)
			run++;
		if (run)
			err = pagemap_drop(&space->map, first + i, run);
	}
	return err;
}

/*
 * What is not worth a look at the page table is dropped; all of the rest, too, once the program
 * changes its mappings again, for then nobody knows whose a marker is. Chunk by chunk, so that a
 * leaf that is shared with a child, and in which nothing is kept, goes without being copied.
 */
static int drop_unmarked(struct space *space, struct span span)
{
	uint64_t entries[LOOK_PAGES], at = span.first, end = span.first + span.n;
	int err = 0;

	while (at < end && err == 0) {
		struct page_rec rec;
		uint64_t next = pagemap_next(&space->map, at, end, &rec);
		uint64_t chunk = next - next % LOOK_PAGES;
		uint64_t stop = chunk + LOOK_PAGES < end ? chunk + LOOK_PAGES : end;
		int got;

		if (next == end)
			return pagemap_drop(&space->map, at, end - at);
		if (chunk > at) {
			err = pagemap_drop(&space->map, at, chunk - at);
			at = chunk;
		}
		if (err < 0)
			break;
		got = fault_read_pagemap(space, at, (uint32_t)(stop - at), entries);
		if (got <= 0 || uffd_settled(space->uffd) != UFFD_OK)
			return pagemap_drop(&space->map, at, end - at);
		err = drop_by_entries(space, at, (uint32_t)got, entries);
		at += (uint32_t)got;
	}
	return err;
}

static void forget_unmapped(struct space *space, struct range range)
{
	struct span span = span_of(space, range.start, range.end);
	int err;

	if (pagemap_any_away(&space->map, span.first, span.n) && may_be_mapped_still(space, range))
		err = drop_unmarked(space, span);
	else
		err = pagemap_drop(&space->map, span.first, span.n);
	must(space, err, "forget an unmapped range");
}

/*
 * What is registered and not known to be would never be let go, and its first touches would wait
 * for ever once we are gone. So where an mmap failed it stays known. An munmap leaves nothing
 * registered, so that one page speaks for all that was registered together; where it says too
 * much (a mapping has grown over the ground since) that is no harm.
 */
static void forget_registered(struct space *space, struct range range)
{
	uint64_t at = range.start;
	const struct range *r;

	while (at < range.end && (r = ranges_at_or_after(&space->registered, at)) &&
	       r->start < range.end) {
		uint64_t start = r->start > range.start ? r->start : range.start;
		uint64_t end = r->end < range.end ? r->end : range.end;

		at = end;
		if (!is_registered_still(space, start))
			(void)ranges_remove(&space->registered, start, end);
	}
}

static void apply_unmap(struct space *space, const struct uffd_msg *msg)
{
	struct range range = event_source(msg);

	forget_unmapped(space, range);
	ranges_forget(&space->occupied, range.start, range.end);
	forget_registered(space, range);
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

/* The records of an mremap go along. A crash falls before, after, or between the two steps. */
static int move_records(struct space *space, struct uffd_msg *msg)
{
	uint64_t from = space_pgidx(space, msg->arg.remap.from);
	uint64_t to = space_pgidx(space, msg->arg.remap.to);
	uint64_t n = space_pgidx(space, msg->arg.remap.len);
	int err = 0;

	if (!(msg->LOG_FLAGS & LOG_DROPPED))
		err = pagemap_drop(&space->map, to, n);
	if (err < 0)
		return err;
	event_log_flag(msg, LOG_DROPPED);
	err = pagemap_move_onto(&space->map, from, to, n);
	if (err < 0)
		(void)pagemap_drop(&space->map, to, n);
	return err;
}

static void apply_remap(struct space *space, struct uffd_msg *msg)
{
	uint64_t from = msg->arg.remap.from, to = msg->arg.remap.to, len = msg->arg.remap.len;
	struct page_rec rec;

	must(space, move_records(space, msg), "follow mremap");
	evict_batches_moved(space, space_pgidx(space, from), space_pgidx(space, to),
			    space_pgidx(space, len));
	if (msg->LOG_FLAGS & LOG_VACATES) {
		ranges_forget(&space->occupied, from, from + len);
		(void)ranges_remove(&space->registered, from, from + len);
	}
	(void)ranges_add(&space->occupied, to, to + len, 0);
	/* What is not remembered stays registered for as long as we are there. */
	(void)ranges_add(&space->registered, to, to + len, 0);
	if (to >= space->raced.end || to + len <= space->raced.start)
		return;
	space_distrust(space, space->given_up);
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
}

/* ---- order ------------------------------------------------------------------------------ */

static bool are_of_one_thread(const struct uffd_msg *a, const struct uffd_msg *b)
{
	return a->LOG_WHO && a->LOG_WHO == b->LOG_WHO;
}

static bool are_of_two_threads(const struct uffd_msg *a, const struct uffd_msg *b)
{
	return a->LOG_WHO && b->LOG_WHO && a->LOG_WHO != b->LOG_WHO;
}

static bool is_tail(const struct uffd_msg *remap, const struct uffd_msg *unmap)
{
	return unmap->event == UFFD_EVENT_UNMAP && !event_log_is_done(unmap) &&
	       unmap->arg.remove.start == remap->arg.remap.from &&
	       unmap->arg.remove.end == remap->arg.remap.from + remap->arg.remap.len;
}

/* The tail of the i-th event: the first that may be its thread's own, or else the first that it
 * can be. log.n: none. */
static uint32_t find_tail(const struct space *space, uint32_t i)
{
	const struct uffd_msg *remap = msg_at(space, i);
	uint32_t found = space->log.n;

	for (uint32_t k = i + 1; k < space->log.n; k++) {
		if (!is_tail(remap, msg_at(space, k)))
			continue;
		if (!are_of_two_threads(remap, msg_at(space, k)))
			return k;
		if (found == space->log.n)
			found = k;
	}
	return found;
}

/* A moving mremap brings an UNMAP of its source, read after its REMAP. Both are outstanding from
 * the move on, so a set that is complete has both or none; without one the source stays mapped. */
static void join_tails(struct space *space)
{
	for (uint32_t i = 0; i < space->log.n; i++) {
		uint32_t tail = space->log.n;

		if (msg_at(space, i)->event == UFFD_EVENT_REMAP)
			tail = find_tail(space, i);
		if (tail == space->log.n)
			continue;
		event_log_flag(msg_at(space, i), LOG_VACATES);
		event_log_flag(msg_at(space, tail), LOG_DONE);
	}
}

/* Does it wait for its turn still? */
static bool is_waiting(const struct uffd_msg *msg)
{
	return !event_log_is_done(msg) && msg->LOG_TURN == 0;
}

/* Does an event after the i-th whose turn has not come yet free a part of the ground? What the
 * same thread did next does not. */
static bool vacated_later(const struct space *space, uint32_t i, struct range ground)
{
	for (uint32_t k = i + 1; k < space->log.n; k++) {
		const struct uffd_msg *msg = msg_at(space, k);

		if (is_waiting(msg) && msg->event != UFFD_EVENT_REMOVE &&
		    !are_of_one_thread(msg, msg_at(space, i)) &&
		    ranges_meet(event_source(msg), ground))
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
static bool must_wait(const struct space *space, const struct ranges *occupied, uint32_t i)
{
	struct range ground = event_target(msg_at(space, i));
	const struct range *range;

	if (msg_at(space, i)->event != UFFD_EVENT_REMAP)
		return false;
	range = ranges_at_or_after(occupied, ground.start);
	return range && ranges_meet(*range, ground) && vacated_later(space, i, ground);
}

/*
 * What the k-th event takes from its place: is it what an earlier one, which waits, is yet to bring
 * there? Then what lies there now, if anything, is not the k-th's to take. None before `first`
 * waits.
 */
static bool takes_what_is_to_come(const struct space *space, const struct ranges *occupied,
				  uint32_t first, uint32_t k)
{
	const struct uffd_msg *msg = msg_at(space, k);
	struct range from = event_source(msg);

	for (uint32_t j = first; j < k; j++)
		if (is_waiting(msg_at(space, j)) &&
		    ranges_meet(event_target(msg_at(space, j)), from) &&
		    (are_of_one_thread(msg_at(space, j), msg) ||
		     !ranges_cover(occupied, from.start, from.end)))
			return true;
	return false;
}

/* Has the i-th event to stay behind the k-th, which was read before it and has to wait? What the
 * same thread did next has, and what touches the same memory; but not what frees the ground that
 * is waited for. */
static bool stays_behind(const struct space *space, const struct ranges *occupied, uint32_t first,
			 uint32_t k, uint32_t i)
{
	const struct uffd_msg *waiting = msg_at(space, k), *msg = msg_at(space, i);
	struct range from = event_source(waiting), to = event_target(waiting);

	if (are_of_one_thread(waiting, msg))
		return true;
	if (waiting->event == UFFD_EVENT_REMOVE)
		return false; /* it frees no ground, and what comes after it goes as well without */
	if (ranges_meet(event_target(msg), from) || ranges_meet(event_target(msg), to) ||
	    (msg->event == UFFD_EVENT_REMOVE && ranges_meet(event_source(msg), to)))
		return true;
	return ranges_meet(event_source(msg), from) &&
	       !takes_what_is_to_come(space, occupied, first, k);
}

/* By another one, or at least by one that is not of the first's thread? None before `first`
 * waits. */
static bool is_held_up(const struct space *space, const struct ranges *occupied, uint32_t first,
		       uint32_t i, bool by_first)
{
	for (uint32_t k = first; k < i; k++)
		if (is_waiting(msg_at(space, k)) &&
		    (by_first || !are_of_one_thread(msg_at(space, k), msg_at(space, first))) &&
		    stays_behind(space, occupied, first, k, i))
			return true;
	return false;
}

/* The first that may go ahead of the first that must wait. Not `by_first`: only one of another
 * thread that frees the ground. log.n: none. */
static uint32_t next_ahead(const struct space *space, const struct ranges *occupied, uint32_t first,
			   bool by_first)
{
	struct range ground = event_target(msg_at(space, first));

	for (uint32_t i = first + 1; i < space->log.n; i++)
		if (is_waiting(msg_at(space, i)) && !must_wait(space, occupied, i) &&
		    (by_first || (are_of_two_threads(msg_at(space, first), msg_at(space, i)) &&
				  ranges_meet(event_source(msg_at(space, i)), ground))) &&
		    !is_held_up(space, occupied, first, i, by_first))
			return i;
	return space->log.n;
}

/* The next event to apply: the first that need not wait; else one that frees the ground for the
 * first and is held up by nobody but its thread; else the first. log.n: none. *first is the first
 * that waits for its turn, looked for from there on. */
static uint32_t next_event(const struct space *space, const struct ranges *occupied,
			   uint32_t *first)
{
	uint32_t next;

	while (*first < space->log.n && !is_waiting(msg_at(space, *first)))
		++*first;
	if (*first == space->log.n || !must_wait(space, occupied, *first))
		return *first;
	next = next_ahead(space, occupied, *first, true);
	if (next == space->log.n)
		next = next_ahead(space, occupied, *first, false);
	return next < space->log.n ? next : *first;
}

/* What is occupied after a change. Where memory for it is short, rather too little. */
static void follow_occupied(struct ranges *occupied, const struct uffd_msg *msg)
{
	struct range from = event_source(msg), to = event_target(msg);
	bool vacates = msg->event == UFFD_EVENT_UNMAP || msg->LOG_FLAGS & LOG_VACATES;

	if (vacates)
		ranges_forget(occupied, from.start, from.end);
	(void)ranges_add(occupied, to.start, to.end, 0);
}

/* Give each event of the set its turn. A successor keeps to it: it could not find out again. */
static void order_events(struct space *space)
{
	struct ranges occupied;
	uint32_t turn = 0, first = 0, i;

	if (space->unit->log_is_ordered)
		return;
	/* A daemon before may have ended amid this. */
	for (uint32_t k = 0; k < space->log.n; k++)
		msg_at(space, k)->LOG_TURN = 0;
	if (ranges_copy(&space->occupied, &occupied) < 0)
		occupied = RANGES_NULL;
	join_tails(space);
	while ((i = next_event(space, &occupied, &first)) < space->log.n) {
		msg_at(space, i)->LOG_TURN = ++turn;
		follow_occupied(&occupied, msg_at(space, i));
	}
	ranges_deinit(&occupied);
	__atomic_store_n(&space->unit->log_is_ordered, 1, __ATOMIC_RELEASE);
}

/* The event whose turn it is, looked for from where the one before was; log.n: there is none. */
static uint32_t find_turn(const struct space *space, uint32_t turn, uint32_t from)
{
	for (uint32_t k = 0; k < space->log.n; k++) {
		uint32_t i = (from + k) % space->log.n;

		if (msg_at(space, i)->LOG_TURN == turn)
			return i;
	}
	return space->log.n;
}

static void apply_in_turn(struct space *space, struct heirs *heirs)
{
	uint32_t at = 0;

	for (uint32_t turn = 1; (at = find_turn(space, turn, at)) < space->log.n; turn++) {
		struct uffd_msg *msg = msg_at(space, at);

		if (event_log_is_done(msg))
			continue;
		if (msg->event == UFFD_EVENT_FORK) {
			fork_one(space, heirs, msg);
		} else {
			fork_before_change(space, heirs, msg);
			apply_one(space, msg);
			fork_after_change(space, heirs, msg);
		}
		event_log_flag(msg, LOG_DONE);
	}
}

/* Whatever an event touched must be registered again before a page of it may leave. */
static void forget_certainty(struct space *space)
{
	for (uint32_t i = 0; i < space->log.n; i++) {
		const struct uffd_msg *msg = msg_at(space, i);
		struct range from = event_source(msg), to = event_target(msg);

		/* To believe too little costs a system call, too much costs bytes. What is given up
		 * stays registered. */
		if (msg->event != UFFD_EVENT_REMOVE)
			ranges_forget(&space->certain, from.start, from.end);
		ranges_forget(&space->certain, to.start, to.end);
	}
}

static void event_apply_all(struct space *space)
{
	struct heirs heirs;

	forget_certainty(space);
	order_events(space);
	fork_begin(space, &heirs);
	apply_in_turn(space, &heirs);
	fork_finish(space, &heirs);
	space->n_events = 0;
	space_set_raced(space, 0, 0);
	__atomic_store_n(&space->unit->log_is_ordered, 0, __ATOMIC_RELEASE);
	event_log_clear(&space->log);
	event_who_forget(&space->who);
	if (space->comeback)
		comeback_end(space);
}

/* ---- what is occupied ------------------------------------------------------------------- */

/*
 * What the parent had is not what a forked child has: the parent went on within the same set, and
 * what is MADV_DONTFORK is not there. Until a child is looked at nothing is taken for occupied;
 * that is no harm while it has one thread, whose events come in order. No event is unread before
 * the look nor after it: so what is seen is as of the events that were applied.
 */
void event_look_around(struct space *space)
{
	if (!space->occupied_unknown || space->n_events || space->n_faults ||
	    !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    uffd_settled(space->uffd) != UFFD_OK)
		return;
	if (space_read_smaps(space) < 0 || uffd_settled(space->uffd) != UFFD_OK)
		return;
	for (size_t i = 0; i < space->maps.n; i++)
		if (space->maps.v[i].registered)
			(void)ranges_add(&space->occupied, space->maps.v[i].start,
					 space->maps.v[i].end, 0);
	space->occupied_unknown = false;
}

/* ---- settling --------------------------------------------------------------------------- */

void event_settle(struct space *space)
{
	uint64_t until_ns = clock_now_ns() + SETTLE_BOUND_NS;
	struct pollfd pollfd = { .fd = space->uffd, .events = POLLIN };
	const struct timespec pause = { .tv_nsec = SETTLE_PAUSE_NS };

	/* A daemon before gave all of this set its turns: what is read now is of the next one. */
	if (space->unit->log_is_ordered) {
		event_apply_all(space);
		return;
	}
	while (space->log.n < EVENTS_MAX && event_log_has_room(&space->log)) {
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
