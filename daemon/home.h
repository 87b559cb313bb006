/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bringing pages home on request, and letting go of registrations. On the space's worker.
 */
#ifndef UHMMD_HOME_H
#define UHMMD_HOME_H

#include "space.h"

/* A request for this worker: start it, or answer at once. */
void home_take_mail(struct space *space, struct mail *mail);

/* A slice of the request in progress; true if there is more to do right away. */
bool home_step(struct space *space);

/* The evictor found nothing more to take out. */
void home_evict_exhausted(struct space *space);

/* Unregister a mapping that has nothing away. -EAGAIN: an event is unread, and something may have
 * been moved into the mapping in this instant: then it is registered again, before anybody
 * reads the event, and space->raced says so. -EINVAL: the kernel refused it. */
int home_unregister(struct space *space, uint64_t start, uint64_t end);

/* Unregister what has nothing away; everything, with the beacon back, when all is home. */
void home_release(struct space *space);

#endif
