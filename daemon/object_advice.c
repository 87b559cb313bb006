/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which madvise was it? MADV_REMOVE and MADV_DONTNEED bring the same event, which names no
 * thread. But its thread waits until the event is read, in a place of the kernel that can be
 * seen, and its arguments with it; and to read is what wakes it. So: note who waits there, read,
 * and see who waits no more. When as many were woken as events came, each event is of one of
 * these threads, and its range tells of which. One that began to wait in between makes more
 * events than woken threads: then nothing is known, and object_remove.c has to find out.
 *
 * From the reading on the madvise goes on, and another process may hear that it has returned. So
 * no worker fills a page of the object until object_remove.c knows of it (space->noting).
 *
 * Runs on the space's worker, around each read of its userfaultfd.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "object.h"
#include "quiesce.h"
#include "uffd.h"

/* Where a thread waits until its event has been read. */
#define WAITS_IN "userfaultfd_event_wait"

static bool is_call(const struct madvise_seen *seen, const struct threads_call *call)
{
	return call->nr == SYS_madvise && call->args[0] == seen->addr &&
	       call->args[1] == seen->bytes && (int)call->args[2] == seen->advice;
}

/* Nobody else reads events: who is seen waiting waits until we do, so that what is looked at
 * after that is of the same call. */
static bool see_waiting(void *arg, int task_fd, pid_t tid)
{
	struct space *space = arg;
	struct madvise_seen seen = { .tid = tid };
	struct threads_call call;

	if (!threads_read_call(task_fd, tid, &call) || !quiesce_gives_up(&call) ||
	    !threads_sleeps_in(task_fd, tid, WAITS_IN) ||
	    !threads_read_call(task_fd, tid, &call) || call.nr != SYS_madvise ||
	    threads_read_turns(task_fd, tid, &seen.turns) < 0)
		return true;
	if (space->n_madvises == SPACE_MADVISES)
		return false;
	seen.addr = call.args[0];
	seen.bytes = call.args[1];
	seen.advice = (int)call.args[2];
	space->madvises[space->n_madvises++] = seen;
	return true;
}

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

bool object_before_read(struct space *space)
{
	struct pollfd pollfd = { .fd = space->uffd, .events = POLLIN };

	space->n_madvises = 0;
	space->madvises_matched = false;
	if (!space->n_objects)
		return true;
	/* First this, then the look: an event that is there to be read is looked for. */
	if (poll(&pollfd, 1, 0) == 0)
		return false;
	__atomic_store_n(&space->reading, true, __ATOMIC_SEQ_CST);
	wait_for_still(space);
	if (uffd_settled(space->uffd) != UFFD_AGAIN)
		return true;
	begin_noting(space);
	if (__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE))
		(void)threads_each(space->task_fd, see_waiting, space);
	return true;
}

/* Does it wait no more, or again? */
static bool was_woken(const struct space *space, const struct madvise_seen *seen)
{
	struct threads_call call;
	uint64_t turns;

	return !threads_read_call(space->task_fd, seen->tid, &call) || !is_call(seen, &call) ||
	       threads_read_turns(space->task_fd, seen->tid, &turns) < 0 || turns != seen->turns;
}

void object_match(struct space *space, const struct uffd_msg *msgs, uint32_t n)
{
	uint32_t n_events = 0, n_woken = 0;

	for (uint32_t i = 0; i < n; i++)
		n_events += msgs[i].event == UFFD_EVENT_REMOVE;
	if (n_events == 0)
		return;
	for (uint32_t i = 0; i < space->n_madvises; i++) {
		struct madvise_seen *seen = &space->madvises[i];

		seen->woken = was_woken(space, seen);
		n_woken += seen->woken;
	}
	space->madvises_matched = n_woken == n_events;
}

enum object_advice object_advice_of(const struct space *space, const struct mapping *m,
				    uint64_t start, uint64_t end)
{
	enum object_advice advice = OBJECT_ADVICE_UNKNOWN;

	if (!space->madvises_matched)
		return advice;
	for (uint32_t i = 0; i < space->n_madvises; i++) {
		const struct madvise_seen *seen = &space->madvises[i];
		uint64_t last = (seen->addr + seen->bytes + space->page_size - 1) &
				~(space->page_size - 1);

		/* An event is about the part of a call that lies in one mapping. */
		if (!seen->woken || (seen->addr > m->start ? seen->addr : m->start) != start ||
		    (last < m->end ? last : m->end) != end)
			continue;
		if (seen->advice == MADV_REMOVE)
			return OBJECT_ADVICE_REMOVE;
		advice = OBJECT_ADVICE_DONTNEED;
	}
	return advice;
}
