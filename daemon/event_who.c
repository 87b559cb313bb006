/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which thread does an event come from? It names none, and the order of events can only be told
 * if it is known which of them are of one thread: those are in order, and others may not be
 * (event.c). But a thread waits until its event has been read, in a place of the kernel that can
 * be seen, and its call with it. So before a reading all who wait are looked for; an event that
 * only one of their calls can have brought is that thread's.
 *
 * Whoever was seen waits until his event has been read, so he stays in the list until then, also
 * while the wake of another's reading makes him run for a moment.
 *
 * Events are read in the order in which they were queued, behind faults. So no more are read than
 * threads were seen, and one that has come since is of the next look.
 *
 * Not known: an event that nobody was seen to wait for, one that several of those who wait may have
 * brought, and one of somebody who is no thread of the process. That is no error: what is not
 * known to be of one thread is put in order without it.
 *
 * Runs on the space's worker. A program with one thread pays for none of this, and one that
 * changes nothing for an ioctl.
 */
#define _GNU_SOURCE
#include "event_who.h"

#include <sys/syscall.h>

#include "event_log.h"
#include "space.h"
#include "uffd.h"

/* Where a thread waits until its event has been read. */
#define WAITS_IN "userfaultfd_event_wait"

bool event_who_waits(int task_fd, pid_t tid, struct threads_call *ret_call)
{
	if (!threads_read_call(task_fd, tid, ret_call) ||
	    (ret_call->sp && (ret_call->nr < 0 || ret_call->nr == SYS_futex)))
		return false;
	/* It may have gone on to this call since: what is read from here on is of the same. */
	return threads_sleeps_in(task_fd, tid, WAITS_IN) &&
	       threads_read_call(task_fd, tid, ret_call);
}

/* ---- who waits ----------------------------------------------------------------------- */

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

	if (is_listed(who, tid) || !event_who_waits(task_fd, tid, &call))
		return true;
	who->waiting[who->n_waiting].tid = tid;
	who->waiting[who->n_waiting].call = call;
	return ++who->n_waiting < WHO_WAITING_MAX;
}

uint32_t event_who_look(struct space *space)
{
	struct event_who *who = &space->who;

	if (!__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    uffd_settled(space->uffd) != UFFD_AGAIN || threads_is_one(space->task_fd))
		return UINT32_MAX;
	if (who->n_waiting < WHO_WAITING_MAX)
		(void)threads_each(space->task_fd, see_thread, who);
	return who->n_waiting ? who->n_waiting : UINT32_MAX;
}

/* ---- whose event it is --------------------------------------------------------------- */

static bool within(uint64_t addr, uint64_t start, uint64_t len)
{
	return addr - start < len;
}

/* An mremap moves what is at its first argument, unmaps that, a part of it that it shrinks by, or
 * what was at its destination. */
static bool mremap_brings(const uint64_t args[6], const struct uffd_msg *msg)
{
	uint64_t start = event_source(msg).start;

	if (msg->event == UFFD_EVENT_REMAP)
		return within(start, args[0], args[1]);
	return msg->event == UFFD_EVENT_UNMAP &&
	       (within(start, args[0], args[1]) || within(start, args[4], args[2]));
}

static bool call_brings(const struct threads_call *call, const struct uffd_msg *msg)
{
	const uint64_t *args = call->args;
	uint64_t start = event_source(msg).start;

	switch (call->nr) {
	case SYS_mremap:
		return mremap_brings(args, msg);
	case SYS_munmap:
	case SYS_mmap:
		return msg->event == UFFD_EVENT_UNMAP && within(start, args[0], args[1]);
	case SYS_brk:
		return msg->event == UFFD_EVENT_UNMAP && start >= args[0];
	case SYS_madvise:
		return msg->event == UFFD_EVENT_REMOVE && within(start, args[0], args[1]);
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

	/* Of several that may have brought it nobody knows who waits still. */
	for (uint32_t i = 0; i < who->n_waiting; i++) {
		if (call_brings(&who->waiting[i].call, msg)) {
			tid = who->waiting[i].tid;
			n_found++;
		} else {
			who->waiting[kept++] = who->waiting[i];
		}
	}
	who->n_waiting = kept;
	msg->LOG_WHO = n_found == 1 ? index_of(who, tid) : 0;
}

void event_who_forget(struct event_who *who)
{
	who->n_waiting = who->n_tids = 0;
}
