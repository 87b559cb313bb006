/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * madvise on shared memory. MADV_REMOVE gives the object's pages up; MADV_DONTNEED only those
 * of one mapping, which changes nothing for us. Both bring the same event, before anything has
 * happened, and the thread goes on when the event is read. Which of the two it was is seen
 * while the thread still waits: its system call and arguments are in /proc. One whose event
 * came in the instant between that look and the reading is told by the object's mtime, which
 * MADV_REMOVE changes.
 *
 * Until the madvise is proven to have ended (quiesce.c), no page of that range is filled (the
 * kernel would drop what a store puts there meanwhile) and no page of the object leaves (it
 * would escape the removal). Then the records go.
 *
 * Runs on the worker of the space whose thread called madvise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "log.h"
#include "object.h"
#include "quiesce.h"
#include "uffd.h"

static bool see_madvise(void *arg, int task_fd, pid_t tid)
{
	struct space *space = arg;
	struct threads_call call;
	struct madvise_seen *seen;

	if (space->n_madvises == SPACE_MADVISES)
		return false;
	if (!threads_read_call(task_fd, tid, &call) || call.nr != SYS_madvise ||
	    !quiesce_gives_up(&call))
		return true;
	seen = &space->madvises[space->n_madvises++];
	seen->start = call.args[0];
	seen->end = (call.args[0] + call.args[1] + space->page_size - 1) & ~(space->page_size - 1);
	seen->remove = (int)call.args[2] == MADV_REMOVE;
	return true;
}

void object_before_read(struct space *space)
{
	space->n_madvises = 0;
	if (!space->n_objects)
		return;
	__atomic_store_n(&space->reading, true, __ATOMIC_SEQ_CST);
	if (uffd_settled(space->uffd) == UFFD_AGAIN &&
	    __atomic_load_n(&space->identified, __ATOMIC_ACQUIRE))
		(void)threads_each(space->task_fd, see_madvise, space);
}

void object_after_read(struct space *space)
{
	if (space->n_events == 0)
		__atomic_store_n(&space->reading, false, __ATOMIC_SEQ_CST);
}

/* ---- noting -------------------------------------------------------------------------- */

enum advice_kind { ADVICE_UNKNOWN, ADVICE_DONTNEED, ADVICE_REMOVE };

static enum advice_kind advice_of(const struct space *space, uint64_t start, uint64_t end)
{
	enum advice_kind kind = ADVICE_UNKNOWN;

	for (uint32_t i = 0; i < space->n_madvises; i++) {
		const struct madvise_seen *seen = &space->madvises[i];

		if (seen->start > start || seen->end < end)
			continue;
		if (seen->remove)
			return ADVICE_REMOVE;
		kind = ADVICE_DONTNEED;
	}
	return kind;
}

static int add_remove(struct object *object, const struct object_remove *remove)
{
	int err = 0;

	object_lock(object);
	if (object->n_removes == object->cap_removes) {
		uint32_t cap = object->cap_removes ? 2 * object->cap_removes : 8;
		struct object_remove *removes = realloc(object->removes, cap * sizeof(*removes));

		if (removes) {
			object->removes = removes;
			object->cap_removes = cap;
		} else {
			err = -ENOMEM;
		}
	}
	if (err == 0)
		object->removes[object->n_removes++] = *remove;
	object_unlock(object);
	return err;
}

static void note_in_mapping(struct space *space, const struct mapping *m, uint64_t start,
			    uint64_t end, bool surely)
{
	struct object *object = m->shared ? object_of_space(space, m->dev, m->ino) : NULL;
	struct object_remove remove = { .space = space, .surely = surely };

	if (!object)
		return;
	if (start < m->start)
		start = m->start;
	if (end > m->end)
		end = m->end;
	remove.first = (start - m->start + m->offset) >> space->page_shift;
	remove.n = (end - start) >> space->page_shift;
	remove.seq = ++space->remove_seq;
	if (add_remove(object, &remove) < 0) {
		/* What cannot be remembered would become old bytes. */
		log_err("pid %d: no memory for a madvise", space->pid);
		abort();
	}
	quiesce_note_long(space, remove.n);
}

void object_note_remove(struct space *space, uint64_t start, uint64_t end)
{
	enum advice_kind kind = advice_of(space, start, end);
	uint64_t at = start;

	if (!space->n_objects || kind == ADVICE_DONTNEED)
		return;
	while (at < end) {
		struct mapping m;

		if (maps_query(space->maps_fd, at, &m) < 0) {
			/* Unmapped in this instant: where it lay when we last looked. */
			const struct mapping *old = maps_find(&space->maps, at);

			if (!old) {
				at += space->page_size;
				continue;
			}
			m = *old;
		}
		note_in_mapping(space, &m, at, end, kind == ADVICE_REMOVE);
		at = m.end;
	}
}

bool object_remove_pending(const struct object *object, uint64_t page)
{
	for (uint32_t i = 0; i < object->n_removes; i++)
		if (page - object->removes[i].first < object->removes[i].n)
			return true;
	return false;
}

/* ---- the end ------------------------------------------------------------------------- */

static bool has_changed(const struct object *object, const struct stat *st)
{
	return st->st_mtim.tv_sec != object->mtime.tv_sec ||
	       st->st_mtim.tv_nsec != object->mtime.tv_nsec;
}

/* Nobody can say whether these bytes were given up. */
static void poison_range(struct space *space, struct object *object,
			 const struct object_remove *remove)
{
	uint64_t end = remove->first + remove->n, lost = 0;
	struct page_rec rec;

	for (uint64_t i = remove->first; (i = pagemap_next(&object->map, i, end, &rec)) < end; i++) {
		if (!page_state_is_away(page_rec_state(rec)))
			continue;
		(void)pagemap_set(&object->map, i, page_rec_move(rec, PAGE_POISONED));
		lost++;
	}
	if (!lost)
		return;
	stats_add(&space->stats.lost, lost);
	stats_add(&space->group->stats.lost, lost);
	log_err("pid %d: %llu shared pages are lost: one of several madvise calls at once "
		"removed them or did not",
		space->pid, (unsigned long long)lost);
}

static void drop_range(struct space *space, struct object *object,
		       const struct object_remove *remove)
{
	if (pagemap_drop(&object->map, remove->first, remove->n) < 0)
		poison_range(space, object, remove);
}

static void remove_ended(struct space *space, struct object *object,
			 const struct object_remove *remove, const struct stat *st,
			 bool surely_too)
{
	if (!object->family)
		return;
	if (remove->surely)
		drop_range(space, object, remove);
	else if (object->mtime_unsure || (has_changed(object, st) && surely_too))
		poison_range(space, object, remove);
	else if (has_changed(object, st))
		drop_range(space, object, remove);
}

static void removes_ended_in(struct space *space, struct object *object, uint64_t seq)
{
	uint32_t kept = 0;
	bool surely_too = false;
	struct stat st;

	object_lock(object);
	if (object->n_removes && fstat(object->fd, &st) == 0) {
		for (uint32_t i = 0; i < object->n_removes; i++)
			surely_too |= object->removes[i].surely;
		for (uint32_t i = 0; i < object->n_removes; i++) {
			struct object_remove *remove = &object->removes[i];

			if (remove->space == space && remove->seq <= seq)
				remove_ended(space, object, remove, &st, surely_too);
			else
				object->removes[kept++] = *remove;
		}
		object->n_removes = kept;
		if (kept == 0) {
			object->mtime = st.st_mtim;
			object->mtime_unsure = false;
		}
	}
	object_unlock(object);
}

void object_removes_ended(struct space *space, uint64_t seq)
{
	for (uint32_t i = 0; i < space->n_objects; i++)
		removes_ended_in(space, space->objects[i], seq);
}
