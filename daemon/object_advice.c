/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which madvise was it? MADV_REMOVE and MADV_DONTNEED bring the same event, which names no
 * thread. But its thread waits until the event is read, in a place of the kernel that can be
 * seen, and its arguments with it. So:
 *
 *   who     Look twice at who waits. Only a reading ends a wait, so if both times it is the
 *           same threads, then exactly they waited when the second look began.
 *   read    Events are read in the order in which they were queued, so the next are theirs.
 *           Read as many as they are and no more; one that has come since is of the next round.
 *   whose   A REMOVE lies within what its thread gives up. That leaves one thread, or several
 *           that want the same, for nearly every event.
 *
 * A thread that has been woken is not seen to wait until a processor had it, and to read one
 * event wakes all who wait. So where a reading may have left an event, the next round begins when
 * all threads have been seen asleep since, or have run for long.
 *
 * Where nobody waits only faults are there. They are read one at a time, lest an event that comes
 * meanwhile be read along.
 *
 * Not known are the events of a thread that io_uring made, and what a thread that was killed
 * leaves behind. Then object_remove.c has to find out. A process that shares the memory and is no
 * thread, as a child of vfork, is not looked for: it may do nothing but execute something. While
 * one was a reason to know nothing, programs that start others lost pages in seconds.
 *
 * From the reading on the madvise goes on, and another process may hear that it has returned. So
 * no worker fills a page of the object until object_remove.c knows of it (space->noting).
 *
 * Runs on the space's worker, around each reading of its userfaultfd.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "event_who.h"
#include "object.h"
#include "quiesce.h"
#include "uffd.h"

/* event_waiter.advice: a call that brings no REMOVE; and one that is not known. */
#define ADVICE_NONE (-1)
#define ADVICE_ANY (-2)

/* One that was woken and has run for so long does not wait: it would sleep again at once. */
#define WOKEN_RUN_NS 3000000u
#define WOKEN_PAUSE_NS 100000
#define LOOKS_MAX 8

/* ---- who waits ----------------------------------------------------------------------- */

struct look {
	const struct space *space;
	struct event_waiter *v;
	uint32_t n;
	bool unknown; /* there are, or may be, others */
};

static struct event_waiter waiter_of(const struct look *look, pid_t tid,
				     const struct threads_call *call)
{
	struct event_waiter waiter = {
		.tid = tid, .call = *call, .advice = ADVICE_NONE, .end = UINT64_MAX
	};
	uint64_t page = look->space->page_size;

	if (call->sp == 0) {
		waiter.advice = ADVICE_ANY;
	} else if (quiesce_gives_up(call)) {
		waiter.advice = (int)call->args[call->nr == SYS_madvise ? 2 : 3];
		/* Where process_madvise gives up is in the program's memory. */
		if (call->nr == SYS_madvise) {
			waiter.start = call->args[0];
			waiter.end = (call->args[0] + call->args[1] + page - 1) & ~(page - 1);
		}
	}
	return waiter;
}

static bool see_waiter(void *arg, int task_fd, pid_t tid)
{
	struct look *look = arg;
	struct threads_call call;

	if (!event_who_waits(task_fd, tid, &call))
		return true;
	if (look->n == SPACE_WAITERS) {
		look->unknown = true;
		return false;
	}
	look->v[look->n++] = waiter_of(look, tid, &call);
	return true;
}

static bool is_same_look(const struct look *a, const struct look *b)
{
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (a->v[i].tid != b->v[i].tid)
			return false;
	return true;
}

enum found { FOUND_ALL, FOUND_NOT_YET, FOUND_UNKNOWN };

/* All who wait at one moment. */
static enum found find_waiters(struct space *space)
{
	struct event_waiter again[SPACE_WAITERS];
	bool looked = false;

	for (int i = 0; i < LOOKS_MAX; i++) {
		struct look first = { .space = space, .v = space->waiters };
		struct look second = { .space = space, .v = again };

		looked = threads_each(space->task_fd, see_waiter, &first) &&
			 threads_each(space->task_fd, see_waiter, &second);
		if (first.unknown || second.unknown)
			return FOUND_UNKNOWN;
		space->n_waiters = first.n;
		if (looked && is_same_look(&first, &second))
			return FOUND_ALL;
	}
	/* Nobody is there to be seen any more, or too many come and go. */
	return looked ? FOUND_NOT_YET : FOUND_UNKNOWN;
}

static bool sleeps(int task_fd, pid_t tid, const struct threads_call *call)
{
	(void)call;
	return threads_sleeps(task_fd, tid);
}

/* Does everybody who was woken by the last reading sleep again, or do something else? */
static enum found find_woken(struct space *space)
{
	if (!space->left_over)
		return FOUND_ALL;
	space->woken.run_ns = WOKEN_RUN_NS;
	for (int i = 0; i < LOOKS_MAX && !space->woken_noted; i++)
		space->woken_noted = threads_note(&space->woken, space->task_fd);
	if (!space->woken_noted)
		return FOUND_UNKNOWN;
	if (!threads_are_past(&space->woken, sleeps))
		return FOUND_NOT_YET;
	space->left_over = space->woken_noted = false;
	return FOUND_ALL;
}

/* ---- before the reading -------------------------------------------------------------- */

/* See object_lock_still. */
static void wait_for_still(struct space *space)
{
	for (uint32_t i = 0; i < space->n_objects; i++) {
		struct object *object = space->objects[i];

		if (!__atomic_load_n(&object->still, __ATOMIC_SEQ_CST))
			continue;
		object_lock(object);
		object_unlock(object);
	}
}

/* From here on no worker fills a page of the space's objects. */
static void begin_noting(struct space *space)
{
	__atomic_store_n(&space->noting, true, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < space->n_objects; i++) {
		object_lock(space->objects[i]);
		object_unlock(space->objects[i]);
	}
}

void object_end_noting(struct space *space)
{
	__atomic_store_n(&space->noting, false, __ATOMIC_SEQ_CST);
}

/* An event is outstanding. */
static uint32_t before_events(struct space *space)
{
	const struct timespec pause = { .tv_nsec = WOKEN_PAUSE_NS };
	enum found found = FOUND_UNKNOWN;

	if (__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE))
		found = find_woken(space);
	if (found == FOUND_ALL)
		found = find_waiters(space);
	if (found == FOUND_NOT_YET) {
		/* Nothing can be filled anyway. */
		(void)nanosleep(&pause, NULL);
		space->n_waiters = 0;
		return 0;
	}
	begin_noting(space);
	if (found == FOUND_ALL)
		return space->n_waiters ? space->n_waiters : 1;
	space->n_waiters = 0;
	return LOG_UNIT_MSGS;
}

uint32_t object_before_read(struct space *space)
{
	struct pollfd pollfd = { .fd = space->uffd, .events = POLLIN };

	space->n_waiters = space->n_removed = 0;
	if (!space->n_objects)
		return LOG_UNIT_MSGS;
	/* First this, then the look: an event that is there to be read is looked for. */
	if (poll(&pollfd, 1, 0) == 0) {
		space->left_over = space->woken_noted = false;
		return 0;
	}
	__atomic_store_n(&space->reading, true, __ATOMIC_SEQ_CST);
	wait_for_still(space);
	if (uffd_settled(space->uffd) == UFFD_AGAIN)
		return before_events(space);
	space->left_over = space->woken_noted = false;
	/* An event may slip in, and from its reading on the madvise goes on. */
	begin_noting(space);
	return 1;
}

/* ---- after it ------------------------------------------------------------------------ */

static uint32_t count_events(const struct uffd_msg *msgs, uint32_t n)
{
	uint32_t n_events = 0;

	for (uint32_t i = 0; i < n; i++)
		n_events += msgs[i].event != UFFD_EVENT_PAGEFAULT;
	return n_events;
}

uint32_t object_left_to_read(const struct space *space, const struct uffd_msg *msgs, uint32_t n)
{
	uint32_t n_events = count_events(msgs, n);

	return n_events < space->n_waiters ? space->n_waiters - n_events : 0;
}

static uint64_t whose(const struct space *space, const struct uffd_msg *msg)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < space->n_waiters; i++) {
		const struct event_waiter *waiter = &space->waiters[i];

		if (waiter->advice == ADVICE_ANY ||
		    (waiter->advice != ADVICE_NONE && waiter->start <= msg->arg.remove.start &&
		     msg->arg.remove.end <= waiter->end))
			bits |= 1ull << i;
	}
	return bits;
}

/* Events that only as many threads can have brought are theirs, and no other is. */
static bool rule_out_threads(struct space *space, const struct event_removed *of)
{
	bool changed = false;
	uint32_t n_same = 0;

	for (uint32_t i = 0; i < space->n_removed; i++)
		n_same += space->removed[i].whose == of->whose;
	if (n_same != (uint32_t)__builtin_popcountll(of->whose))
		return false;
	for (uint32_t i = 0; i < space->n_removed; i++) {
		struct event_removed *other = &space->removed[i];

		if (other->whose != of->whose && other->whose & of->whose) {
			other->whose &= ~of->whose;
			changed = true;
		}
	}
	return changed;
}

/* A thread that can have brought one event only has. */
static bool rule_out_events(struct space *space, uint64_t bit)
{
	struct event_removed *only = NULL;

	for (uint32_t i = 0; i < space->n_removed; i++) {
		if (!(space->removed[i].whose & bit))
			continue;
		if (only)
			return false;
		only = &space->removed[i];
	}
	if (!only || only->whose == bit)
		return false;
	only->whose = bit;
	return true;
}

static void rule_out(struct space *space)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (uint32_t i = 0; i < space->n_removed; i++)
			changed |= rule_out_threads(space, &space->removed[i]);
		for (uint32_t i = 0; i < space->n_waiters; i++)
			changed |= rule_out_events(space, 1ull << i);
	}
}

void object_match(struct space *space, const struct uffd_msg *msgs, uint32_t n)
{
	uint32_t n_events = count_events(msgs, n), n_givers = 0;

	space->n_removed = 0;
	if (n_events == 0)
		return;
	space->left_over = true;
	space->woken_noted = false;
	/* Somebody was killed, or a fork could not be told, or there is somebody else. */
	if (n_events != space->n_waiters)
		return;
	for (uint32_t i = 0; i < space->n_waiters; i++)
		n_givers += space->waiters[i].advice != ADVICE_NONE;
	for (uint32_t i = 0; i < n; i++)
		if (msgs[i].event == UFFD_EVENT_REMOVE)
			space->removed[space->n_removed++] = (struct event_removed){
				.start = msgs[i].arg.remove.start,
				.end = msgs[i].arg.remove.end,
				.whose = whose(space, &msgs[i]),
			};
	if (space->n_removed != n_givers)
		space->n_removed = 0;
	else
		rule_out(space);
}

/* What the threads of this event want. Several of this very range have all been read: one that
 * removes it does. */
static enum object_advice advice_of(const struct space *space, const struct event_removed *removed)
{
	uint64_t removers = 0, others = 0;

	for (uint32_t i = 0; i < space->n_waiters; i++) {
		uint64_t bit = removed->whose & 1ull << i;

		if (space->waiters[i].advice == ADVICE_ANY && bit)
			return OBJECT_ADVICE_UNKNOWN;
		if (space->waiters[i].advice == MADV_REMOVE)
			removers |= bit;
		else
			others |= bit;
	}
	if (!removers)
		return others ? OBJECT_ADVICE_DONTNEED : OBJECT_ADVICE_UNKNOWN;
	for (uint32_t i = 0; i < space->n_removed && others; i++)
		if (space->removed[i].whose & removers &&
		    (space->removed[i].start != removed->start ||
		     space->removed[i].end != removed->end))
			return OBJECT_ADVICE_UNKNOWN;
	return OBJECT_ADVICE_REMOVE;
}

enum object_advice object_advice_of(const struct space *space, uint64_t start, uint64_t end)
{
	enum object_advice advice = OBJECT_ADVICE_UNKNOWN;
	bool first = true;

	for (uint32_t i = 0; i < space->n_removed; i++) {
		const struct event_removed *removed = &space->removed[i];
		enum object_advice of;

		if (removed->start != start || removed->end != end)
			continue;
		of = advice_of(space, removed);
		if (of == OBJECT_ADVICE_REMOVE)
			return of;
		advice = first || of == advice ? of : OBJECT_ADVICE_UNKNOWN;
		first = false;
	}
	return advice;
}
