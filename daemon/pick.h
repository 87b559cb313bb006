/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pages leave next, and which must never. On the space's worker. */
#ifndef UHMMD_PICK_H
#define UHMMD_PICK_H

#include "space.h"

struct pick_request {
	uint64_t from, end; /* addresses; the pick goes from `from` up to `end` */
	uint32_t max;	    /* pages */
	bool any;	    /* take referenced pages too */
};

/*
 * Find pages that can leave, in ascending order, into batch pages [0, n); each lies in a range
 * that is registered then. Returns n. *ret_at: where the search stopped.
 */
uint32_t pick_pages(struct space *space, struct batch *batch, const struct pick_request *request,
		    uint64_t *ret_at);

/* The clock: like pick_pages from the hand on, at most once around. */
uint32_t pick_by_clock(struct space *space, struct batch *batch, uint32_t max);

/* Look again for the pages that must stay. */
int pick_collect_pinned(struct space *space);

/* Read the program's mappings again if they are older than max_age_ns. */
int pick_refresh_maps(struct space *space, uint64_t max_age_ns);

#endif
