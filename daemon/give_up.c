/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When the page map cannot follow the program: no room in the arena for what an mremap or a
 * fork needs. It does not get far: eviction stops long before (evict.c).
 *
 * Records that are in the wrong place are worse than none. So all are forgotten, and the page
 * table stays the judge: a hole with a marker and without a record raises SIGBUS when it is
 * touched (fault.c), one without is zero, as always. The space is served on, registered as it
 * is, and nothing leaves it any more. What has no marker for the moment (UNMARKED) cannot be
 * told from a page that was never touched: if there was any, every hole is distrusted.
 *
 * Runs on the space's worker. Here bytes are lost, so here is logged; never here: an answer of
 * zeros where bytes were.
 */
#include "give_up.h"

#include <string.h>

#include "control.h"
#include "fault.h"
#include "log.h"
#include "object.h"
#include "uffd.h"

#define LOOK_PAGES 512u

static void count_lost(struct space *space, uint64_t n)
{
	stats_add(&space->stats.lost, n);
	stats_add(&space->group->stats.lost, n);
}

void give_up_map(struct space *space, int err, const char *what)
{
	uint64_t lost = space->map.n_away;

	log_err("pid %d: cannot %s: %s; %llu pages are lost", space->pid, what, strerror(-err),
		(unsigned long long)lost);
	count_lost(space, lost);
	space_give_up(space);
	space_distrust(space, space->n_unmarked || space->raced.end);
	space->n_unmarked = 0;
	/* All that there is: this cannot fail. */
	(void)pagemap_drop(&space->map, 0, UINT64_MAX);
}

void give_up_child(struct space *parent, struct space *child, int err)
{
	log_err("pid %d: its forked child cannot have all of its %llu pages that are out: %s",
		parent->pid, (unsigned long long)parent->map.n_away, strerror(-err));
	space_give_up(child);
	space_distrust(child, parent->n_unmarked || parent->raced.end);
	count_lost(parent, parent->map.n_away - child->map.n_away);
}

void give_up_doubtful(struct space *parent, uint64_t n)
{
	log_err("pid %d: whose %llu pages its forked child has cannot be told: they are lost there",
		parent->pid, (unsigned long long)n);
	count_lost(parent, n);
}

/* The library in the child reads its beacon first, and ends a child whose memory is not whole.
 * For any other what is known to be out is poisoned, and the rest waits: the userfaultfd stays
 * open, so that no hole reads zero. */
void give_up_strand(struct space *parent, int uffd, const struct pagemap *map)
{
	uint64_t lost = 0, done;
	struct page_rec rec;

	memset(parent->bounce, 0, parent->page_size);
	(void)uffd_copy(uffd, parent->layout.beacon_addr, parent->bounce, parent->page_size, &done);
	for (uint64_t i = 0; map && (i = pagemap_next(map, i, UINT64_MAX, &rec)) < UINT64_MAX; i++) {
		(void)uffd_unmark(uffd, space_addr(parent, i), parent->page_size);
		(void)uffd_poison(uffd, space_addr(parent, i), parent->page_size);
		lost++;
	}
	object_poison_child(parent, uffd);
	count_lost(parent, lost);
	log_err("pid %d: its forked child cannot be served; %llu pages are lost there", parent->pid,
		(unsigned long long)lost);
	control_keep_stranded(uffd);
}

bool give_up_poison(struct space *space, uint64_t start, uint64_t end)
{
	uint64_t entries[LOOK_PAGES], pgidx = space_pgidx(space, start);

	if (space->distrust)
		return false;
	while (pgidx < space_pgidx(space, end)) {
		uint64_t left = space_pgidx(space, end) - pgidx;
		int got = fault_read_pagemap(space, pgidx, left < LOOK_PAGES ? (uint32_t)left
									     : LOOK_PAGES, entries);

		/* With a change unread its record may be on the way. */
		if (got <= 0 || uffd_settled(space->uffd) != UFFD_OK)
			return false;
		for (int i = 0; i < got; i++, pgidx++)
			if (fault_is_marked_hole(entries[i]) &&
			    pagemap_get(&space->map, pgidx).v == 0 &&
			    fault_poison(space, pgidx, "its record is missing") != FILL_DONE)
				return false;
	}
	return true;
}
