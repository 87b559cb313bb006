/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How an agent makes way, and comes back.
 */
#ifndef UHMM_LIBCLIENT_PAUSE_H
#define UHMM_LIBCLIENT_PAUSE_H

#include <stdbool.h>

#include "journey.h"

/* End the agent, and keep what it held; or, where no other can follow it, have all come home that
 * is away. 0, or a negative errno: it is there still. */
int pause_begin(struct enrol *self);
/* The next one: the daemon's or, where there is no daemon, one that looks for it. */
void pause_end(struct enrol *self);

/*
 * Before a filter that may be the death of who makes a call: end the agent or, where there is
 * no daemon that has what it holds, have it hold that and make no call.
 */
void pause_before_filter(struct enrol *self);
/* There was no filter: an agent that is there still goes on. */
void pause_without_filter(struct enrol *self);

/* In a forked child: what the parent kept is not ours. */
void pause_forget(struct enrol *self);

#endif
