/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children: from a FORK event to a space with a worker of its own. On the parent's worker.
 */
#ifndef UHMMD_FORK_H
#define UHMMD_FORK_H

#include "space.h"

/* The children of one set of events. */
struct heirs {
	struct space **v; /* each with a reference */
	uint32_t n, cap;
};

#define HEIRS_NULL ((struct heirs){ .v = NULL })

/* Each child of the set gets what the parent has, before the set's other changes are applied. */
void fork_begin(struct space *space, struct heirs *heirs);
/* They are applied: each child also gets what they moved, and is served from now on. */
void fork_finish(struct space *space, struct heirs *heirs);

#endif
