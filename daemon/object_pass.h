/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One pass of an eviction of shared memory: what its parts share (object_evict.c has the
 * journey). It belongs to the object thread; workers read it while that thread waits for them.
 */
#ifndef UHMMD_OBJECT_PASS_H
#define UHMMD_OBJECT_PASS_H

#include "object.h"

/* Pages of one pass: the proof costs tens of milliseconds, whatever their number. */
#define PASS_PAGES 8192u
/* How often, and how long apart, something is tried that an event came in between. */
#define PASS_TRIES 20
#define PASS_PAUSE_USEC 2000

struct pass {
	struct object *object;
	struct space **mappers; /* as of the protection, each with a reference */
	uint32_t n_mappers;
	uint64_t gen; /* of the object's mappers, as of then */
	uint32_t n_pages;
	uint64_t *page; /* of the object, ascending */
	uint64_t *slot;
	struct object_copy *copy;
	uint64_t left; /* pages that have left */
};

/* The record of page i, if it is still this pass's. With the lock held. */
static inline bool pass_is_leaving(const struct pass *pass, uint32_t i, struct page_rec *ret_rec)
{
	*ret_rec = pagemap_get(&pass->object->map, pass->page[i]);
	return page_rec_state(*ret_rec) == PAGE_LEAVING &&
	       page_rec_slot(*ret_rec) == pass->slot[i];
}

/* Index of the first page of the pass at or after this page of the object. */
static inline uint32_t pass_first_at(const struct pass *pass, uint64_t page)
{
	uint32_t lo = 0, hi = pass->n_pages;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (pass->page[mid] < page)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static inline bool pass_is_gone(const struct space *space)
{
	return space_get_state(space) == SPACE_DEAD;
}

static inline bool pass_maps_here(const struct pass *pass, const struct mapping *m)
{
	return m->shared && m->dev == pass->object->dev && m->ino == pass->object->ino;
}

void pass_forget_mappers(struct pass *pass);

/* Write-protect the pages in every mapping, and leave alone what must stay. 0; -EAGAIN: mappings
 * changed all the time; -ENOENT: nobody maps it. */
int pass_protect(struct pass *pass);
/* Must it be asked again what is locked? */
bool pass_locks_changed(const struct pass *pass);
/* No thread can have a page pinned for a device to write. 0; -EBUSY: one may have; -EAGAIN. */
int pass_prove(struct pass *pass);

#endif
