/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which thread does an event come from? It names none, and the order of events can only be told
 * if it is known which of them are of one thread: those are in order, and others may not be
 * (event.c). But a thread waits until its event has been read, in a place of the kernel that can
 * be seen, and its call with it. So before a reading all who wait are looked for; an event that
 * only one of their calls can have brought is that thread's.
 *
 * Looks are repeated until one finds nobody more. Events are read in the order in which they were
 * queued, behind faults. So those of whom were seen come first, and no more messages are read at a
 * time than that; until all of those events have come nobody is looked for again. Whoever was seen
 * waits until his event has been read, also while the wake of another's reading makes him run for
 * a moment.
 *
 * Not known: an event that nobody was seen to wait for, one that several of those who wait may
 * have brought, and one of somebody who is no thread of the process. That is no error: what is
 * not known to be of one thread is put in order without it.
 *
 * A look reads a file of each thread or two. Order matters only to programs that move memory, so
 * nobody else pays for it, nor who has one thread, or so many that a look would take longer than
 * what it is good for.
 *
 * Runs on the space's worker.
 */
#define _GNU_SOURCE
#include "event_who.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "event_log.h"
#include "space.h"
#include "uffd.h"

/* Where a thread waits until its event has been read. */
#define WAITS_IN "userfaultfd_event_wait"
/* So long after an mremap there may be another. */
#define MOVES_NS 10000000000u
#define LOOKS_MAX 4
#define LOOK_THREADS_MAX 128u

bool event_who_waits(int task_fd, pid_t tid, struct threads_call *ret_call)
{
	return threads_sleeps_in(task_fd, tid, WAITS_IN, ret_call);
}

/* ---- who waits ----------------------------------------------------------------------- */

static bool add_waiting(struct event_who *who, pid_t tid, const struct threads_call *call)
{
	if (who->n_waiting == WHO_WAITING_MAX)
		return false;
	who->waiting[who->n_waiting].tid = tid;
	who->waiting[who->n_waiting++].call = *call;
	return true;
}

static bool is_listed(const struct event_who *who, pid_t tid)
{
	for (uint32_t i = 0; i < who->n_waiting; i++)
		if (who->waiting[i].tid == tid)
			return true;
	return false;
}

static bool see_thread(void *arg, int task_fd, pid_t tid)
{
	struct event_who *who = arg;
	struct threads_call call;

	return is_listed(who, tid) || !event_who_waits(task_fd, tid, &call) ||
	       add_waiting(who, tid, &call);
}

static void look(struct event_who *who, int task_fd)
{
	uint32_t before = UINT32_MAX;

	for (int i = 0; i < LOOKS_MAX && who->n_waiting != before; i++) {
		before = i ? who->n_waiting : UINT32_MAX;
		/* Who is not all who wait may be anybody. */
		if (!threads_each(task_fd, see_thread, who)) {
			who->n_waiting = 0;
			return;
		}
	}
}

/* Where there is shared memory somebody has looked already: object_before_read. */
static void take_waiters(struct space *space)
{
	struct event_who *who = &space->who;

	who->n_waiting = 0;
	for (uint32_t i = 0; i < space->n_waiters; i++)
		(void)add_waiting(who, space->waiters[i].tid, &space->waiters[i].call);
}

/* Several threads, one of which moves memory, and an event that is unread. */
static bool is_worth_a_look(const struct space *space)
{
	uint32_t n_threads;

	if (!space->who.moved_ns || clock_now_ns() - space->who.moved_ns > MOVES_NS ||
	    !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE))
		return false;
	n_threads = threads_count(space->task_fd);
	return n_threads > 1u + space_has_agent(space) && n_threads <= LOOK_THREADS_MAX &&
	       uffd_settled(space->uffd) == UFFD_AGAIN;
}

uint32_t event_who_look(struct space *space)
{
	struct event_who *who = &space->who;
	struct pollfd pollfd = { .fd = space->uffd, .events = POLLIN };

	if (!is_worth_a_look(space))
		return UINT32_MAX;
	if (space->n_objects) {
		take_waiters(space);
	} else if (who->n_waiting == 0) {
		/* First this, then the look: an event that is there to be read is looked for. */
		if (poll(&pollfd, 1, 0) == 0)
			return 0;
		look(who, space->task_fd);
	}
	return who->n_waiting ? who->n_waiting : UINT32_MAX;
}

/* ---- whose event it is --------------------------------------------------------------- */

/* All the pages of a call's argument, or a part of them: what lies in several mappings comes in
 * several events. */
static bool is_part(const struct space *space, struct range range, uint64_t start, uint64_t len)
{
	uint64_t end = start + ((len + space->page_size - 1) & ~(space->page_size - 1));

	return start <= range.start && range.start < range.end && range.end <= end;
}

static bool is_all(const struct space *space, struct range range, uint64_t start, uint64_t len)
{
	return range.start == start && range.end - start >= len &&
	       is_part(space, range, start, len);
}

/* It moves what is at its first argument and unmaps that, what it shrinks it by, or what was at
 * its destination. */
static bool mremap_brings(const struct space *space, const uint64_t args[6],
			  const struct uffd_msg *msg)
{
	uint64_t from = args[0], old_len = args[1], new_len = args[2], to = args[4];
	uint64_t len = old_len < new_len ? old_len : new_len;
	struct range source = event_source(msg);
	bool fixed = args[3] & MREMAP_FIXED;

	if (msg->event == UFFD_EVENT_REMAP)
		return is_part(space, source, from, len) &&
		       (!fixed || msg->arg.remap.to - to == source.start - from);
	return msg->event == UFFD_EVENT_UNMAP &&
	       (is_part(space, source, from, len) ||
		is_all(space, source, from + new_len, old_len - len) ||
		(fixed && is_all(space, source, to, new_len)));
}

static bool call_brings(const struct space *space, const struct threads_call *call,
			const struct uffd_msg *msg)
{
	const uint64_t *args = call->args;
	struct range source = event_source(msg);

	switch (call->nr) {
	case SYS_mremap:
		return mremap_brings(space, args, msg);
	case SYS_munmap:
	case SYS_mmap:
		return msg->event == UFFD_EVENT_UNMAP && is_all(space, source, args[0], args[1]);
	case SYS_madvise:
		return msg->event == UFFD_EVENT_REMOVE && is_part(space, source, args[0], args[1]);
	case SYS_fork:
	case SYS_clone:
	case SYS_clone3:
		return msg->event == UFFD_EVENT_FORK;
	default:
		return false;
	}
}

/* 0: there is no room for one more. */
static uint8_t index_of(struct event_who *who, pid_t tid)
{
	for (uint32_t i = 0; i < who->n_tids; i++)
		if (who->tids[i] == tid)
			return (uint8_t)(i + 1);
	if (who->n_tids == WHO_TIDS_MAX)
		return 0;
	who->tids[who->n_tids++] = tid;
	return (uint8_t)who->n_tids;
}

void event_who_note(struct space *space, struct uffd_msg *msg)
{
	struct event_who *who = &space->who;
	uint32_t kept = 0, n_found = 0;
	pid_t tid = 0;

	if (msg->event == UFFD_EVENT_REMAP)
		who->moved_ns = clock_now_ns();
	/* Of several that may have brought it nobody knows who waits still. */
	for (uint32_t i = 0; i < who->n_waiting; i++) {
		if (call_brings(space, &who->waiting[i].call, msg)) {
			tid = who->waiting[i].tid;
			n_found++;
		} else {
			who->waiting[kept++] = who->waiting[i];
		}
	}
	/* Somebody was not seen: then nor may others have been. */
	who->n_waiting = n_found ? kept : 0;
	msg->LOG_WHO = n_found == 1 ? index_of(who, tid) : 0;
}

void event_who_forget(struct event_who *who)
{
	who->n_waiting = who->n_tids = 0;
}
