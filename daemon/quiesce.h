/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When has a madvise whose REMOVE was read come to its end? On the space's worker. */
#ifndef UHMMD_QUIESCE_H
#define UHMMD_QUIESCE_H

#include <stdbool.h>
#include <stdint.h>

#include "ranges.h"
#include "threads.h"

struct space;

/* Ranges whose madvise may not have ended: at least these. */
struct removed {
	struct ranges ranges; /* aligned to 1 << shift, 0: bytes */
	unsigned int shift;
	bool all; /* there was no memory to remember which */
};

struct quiesce {
	struct removed young;	/* since the proof in progress was begun */
	struct removed old;	/* what it is about */
	bool proving;		/* the threads are known that must get past */
	uint64_t since_ns;	/* the last step */
	uint64_t remove_seq;	/* of the last one on shared memory that is being proven */
	uint64_t run_ns;	/* how long the longest may run */
	struct threads threads; /* not proven yet */
};

#define QUIESCE_NULL ((struct quiesce){ .threads = THREADS_NULL })

void quiesce_deinit(struct quiesce *quiesce);

/* A REMOVE was applied: what is present in [start, end) must not leave until its madvise has
 * ended. Never fails: it remembers too much rather than too little. */
void quiesce_note_remove(struct space *space, uint64_t start, uint64_t end);

/* Any thread may be in a madvise that nobody knows of. */
void quiesce_note_all(struct space *space);

/* One on shared memory, of n pages: it may take long, and is told when it has ended. */
void quiesce_note_long(struct space *space, uint64_t n_pages);

/* Is this a madvise that brings a REMOVE? */
bool quiesce_gives_up(const struct threads_call *call);

/* Advance the proof if it is due; cheap when there is nothing to prove. */
void quiesce_step(struct space *space);

/* Could the page at addr, if it is present, still have the content that was given up? */
bool quiesce_is_pending(const struct quiesce *quiesce, uint64_t addr);

/* Is there nothing to prove? */
bool quiesce_is_idle(const struct quiesce *quiesce);

#endif
