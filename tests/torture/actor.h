/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An actor's life. */
#ifndef UHMM_TORTURE_ACTOR_H
#define UHMM_TORTURE_ACTOR_H

#include "torture.h"

/* A slot for a new actor; NULL: there is none left in this round. Any process. */
struct actor *actor_new(uint32_t id, uint32_t depth, uint32_t n_ops_max);
/* One operation after another, then a last look at all it has. On the actor's own thread. */
void actor_run(struct actor *a);

#endif
