/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When the page map cannot follow the program: bytes are lost, but none is ever wrong. On the
 * space's worker. */
#ifndef UHMMD_GIVE_UP_H
#define UHMMD_GIVE_UP_H

#include "space.h"

/* The page map of the space cannot follow: from now on it has none of what is away. */
void give_up_map(struct space *space, int err, const char *what);

/* The same for a child whose map could not be made, or not all of it. */
void give_up_child(struct space *parent, struct space *child, int err);

/* So many pages of a child cannot be told from others that were at the same place. */
void give_up_doubtful(struct space *parent, uint64_t n);

/* A forked child for which there cannot even be a space: it is ended, or waits for ever. Takes
 * over its userfaultfd. `map`: what is known to be away there. */
void give_up_strand(struct space *parent, int uffd, const struct pagemap *map);

/* What was given up in [start, end), or lost with a daemon, raises SIGBUS from now on, so that the
 * range may be unregistered. False: not now, or (see distrust) never. */
bool give_up_poison(struct space *space, uint64_t start, uint64_t end);

#endif
