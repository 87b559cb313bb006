/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When has every madvise whose REMOVE was read come to its end? On the space's worker. */
#ifndef UHMMD_QUIESCE_H
#define UHMMD_QUIESCE_H

#include "space.h"

/* A REMOVE was applied: what it covered must not leave until its madvise has ended. */
void quiesce_note_remove(struct space *space);

/* One on shared memory, of n pages: it may take long, and is told when it has ended. */
void quiesce_note_long(struct space *space, uint64_t n_pages);

/* Advance the proof if it is due; cheap when there is nothing to prove. */
void quiesce_step(struct space *space);

/* Have all ended? Then a page that is present and REMOVED has its new content. */
static inline bool quiesce_reached(const struct space *space)
{
	return space->quiesce.phase == QUIESCE_REACHED;
}

#endif
