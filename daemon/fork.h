/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children: from a FORK event to a space with a worker of its own. On the parent's worker.
 */
#ifndef UHMMD_FORK_H
#define UHMMD_FORK_H

#include "space.h"

/* The children of one set of events, see fork.c. */
struct heirs {
	struct space **v; /* each with a reference */
	uint32_t n, cap;
	uint32_t n_unborn;   /* whose turn has not come yet */
	struct ranges before; /* what was registered before it */
	int error;	     /* it lacks something */
};

/* A FORK event was read: before anything else the parent's agent gets the userfaultfd to keep. */
void fork_note(struct space *space, struct uffd_msg *msg);
/* Before the set is applied. */
void fork_begin(struct space *space, struct heirs *ret_heirs);
/* The turn of a FORK event: the child gets its page map. */
void fork_one(struct space *space, struct heirs *heirs, struct uffd_msg *msg);
/* A change of the set is about to be applied, or was just. */
void fork_before_change(struct space *space, struct heirs *heirs, struct uffd_msg *msg);
void fork_after_change(struct space *space, struct heirs *heirs, struct uffd_msg *msg);
/* All of it is applied: the children are served from now on. */
void fork_finish(struct space *space, struct heirs *heirs);
/* Nobody is to be born any more who needs what was taken away. */
void fork_forget_past(struct space *space);

/* In the child, before anything of it is served: which records are not for it. */
void fork_sort_unmarked(struct space *space);

#endif
