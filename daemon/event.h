/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the program does to its address space: fork, mremap, madvise, munmap. See event.c. */
#ifndef UHMMD_EVENT_H
#define UHMMD_EVENT_H

#include "space.h"

/* These were just read. What comes with a FORK is nobody else's yet, and lost if we die. */
void event_note_forks(struct space *space, struct uffd_msg *msgs, size_t n);
/* An event was read, into the log. */
void event_note(struct space *space, struct uffd_msg *msg);

/* Read until every change that has happened is known, then apply them all. If the program's
 * threads do not come to rest within a bound, the events stay queued (n_events > 0), nothing
 * is served, and the worker calls again. */
void event_settle(struct space *space);

/* Of a forked child: find out what is mapped and registered, as soon as that can be known. */
void event_look_around(struct space *space);

#endif
