/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * madvise on shared memory. MADV_REMOVE gives the object's pages up; MADV_DONTNEED only those
 * of one mapping, which changes nothing for us. Both bring the same event, before anything has
 * happened, and the thread goes on when the event is read. Which of the two it was is known of
 * nearly all (object_advice.c). Of the others a page of the range that the object still had is
 * a witness: it has gone if it was MADV_REMOVE. Without one the object's mtime may tell that it
 * was not. If all fails, what is away of the range is lost: old bytes and zeros are both wrong.
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
#include <unistd.h>

#include "log.h"
#include "object.h"
#include "quiesce.h"
#include "util/array.h"

void object_after_read(struct space *space)
{
	if (space->n_events == 0)
		__atomic_store_n(&space->reading, false, __ATOMIC_SEQ_CST);
}

/* ---- noting -------------------------------------------------------------------------- */

/* How many pages are looked at to find one that nobody else is about to remove. */
#define WITNESS_TRIES 16

static bool is_noted(const struct object *object, uint64_t page)
{
	for (uint32_t i = 0; i < object->n_removes; i++)
		if (page - object->removes[i].first < object->removes[i].n)
			return true;
	return false;
}

/* A page that the object has, though the event has been read: if it is there still when the
 * madvise has ended, that was no MADV_REMOVE. Nobody can put it there again meanwhile. */
static void find_witness(const struct object *object, struct object_remove *remove)
{
	uint64_t page = remove->first, end = page + remove->n;

	remove->witness = OBJECT_NO_WITNESS;
	for (int i = 0; i < WITNESS_TRIES && page < end; i++, page++) {
		off_t data = lseek(object->fd, (off_t)(page << object->page_shift), SEEK_DATA);

		page = (uint64_t)data >> object->page_shift;
		if (data < 0 || page >= end)
			return;
		remove->witness = page;
		remove->contested = is_noted(object, page);
		if (!remove->contested)
			return;
	}
}

/* Who removes this page too takes the witness of others. */
static void contest_witnesses(struct object *object, const struct object_remove *remove)
{
	for (uint32_t i = 0; i < object->n_removes; i++)
		object->removes[i].contested |=
			object->removes[i].witness - remove->first < remove->n;
}

static int add_remove(struct object *object, struct object_remove *remove)
{
	struct object_remove *removes;

	object_lock(object);
	removes = array_room(object->removes, object->n_removes, &object->cap_removes,
			     sizeof(*removes));
	if (removes) {
		object->removes = removes;
		contest_witnesses(object, remove);
		if (!remove->surely)
			find_witness(object, remove);
		object->removes[object->n_removes++] = *remove;
	}
	object_unlock(object);
	return removes ? 0 : -ENOMEM;
}

static void note_in_mapping(struct space *space, const struct mapping *m, uint64_t start,
			    uint64_t end, bool surely)
{
	struct object *object = m->shared ? object_of_space(space, m->dev, m->ino) : NULL;
	struct object_remove remove = { .space = space, .witness = OBJECT_NO_WITNESS };

	if (!object)
		return;
	if (start < m->start)
		start = m->start;
	if (end > m->end)
		end = m->end;
	remove.first = (start - m->start + m->offset) >> space->page_shift;
	remove.n = (end - start) >> space->page_shift;
	remove.seq = ++space->remove_seq;
	remove.surely = surely;
	if (add_remove(object, &remove) < 0) {
		/* What cannot be remembered would become old bytes. */
		log_err("pid %d: no memory for a madvise", space->pid);
		abort();
	}
	quiesce_note_long(space, remove.n);
}

void object_note_remove(struct space *space, uint64_t start, uint64_t end)
{
	enum object_advice advice = object_advice_of(space, start, end);
	uint64_t at = start;

	while (at < end && space->n_objects && advice != OBJECT_ADVICE_DONTNEED) {
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
		note_in_mapping(space, &m, at, end, advice == OBJECT_ADVICE_REMOVE);
		at = m.end;
	}
}

bool object_is_noting(const struct object *object)
{
	for (uint32_t i = 0; i < object->n_mappers; i++)
		if (__atomic_load_n(&object->mappers[i]->noting, __ATOMIC_SEQ_CST))
			return true;
	return false;
}

bool object_remove_pending(const struct object *object, uint64_t page)
{
	return object_is_noting(object) || is_noted(object, page);
}

/* ---- the end ------------------------------------------------------------------------- */

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
	log_err("pid %d: %llu shared pages are lost: a madvise removed them or did not",
		space->pid, (unsigned long long)lost);
}

static void drop_range(struct space *space, struct object *object,
		       const struct object_remove *remove)
{
	if (pagemap_drop(&object->map, remove->first, remove->n) < 0)
		poison_range(space, object, remove);
}

/* A store may change the mtime as a removal does: only an unchanged one tells something. */
static void remove_ended(struct space *space, struct object *object,
			 const struct object_remove *remove)
{
	bool has_witness = remove->witness != OBJECT_NO_WITNESS;
	bool gone = has_witness && object_is_hole(object, remove->witness);

	if (!object->family)
		return;
	if (remove->surely || (gone && !remove->contested))
		drop_range(space, object, remove);
	else if ((!has_witness || gone) && object_was_changed(object))
		poison_range(space, object, remove);
}

static void removes_ended_in(struct space *space, struct object *object, uint64_t seq)
{
	uint32_t kept = 0;

	object_lock_still(object);
	for (uint32_t i = 0; i < object->n_removes; i++) {
		struct object_remove *remove = &object->removes[i];

		if (remove->space == space && remove->seq <= seq)
			remove_ended(space, object, remove);
		else
			object->removes[kept++] = *remove;
	}
	object->n_removes = kept;
	if (kept == 0 && object_all_applied(object))
		object_stamp(object);
	object_unlock_still(object);
}

void object_removes_ended(struct space *space, uint64_t seq)
{
	for (uint32_t i = 0; i < space->n_objects; i++)
		removes_ended_in(space, space->objects[i], seq);
}
