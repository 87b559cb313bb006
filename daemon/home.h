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

/* Unregister what has nothing away; everything, with the beacon back, when all is home. */
void home_release(struct space *space);

#endif
