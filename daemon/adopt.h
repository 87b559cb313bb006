/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a daemon before this one has left in the state directory. On the control thread. */
#ifndef UHMMD_ADOPT_H
#define UHMMD_ADOPT_H

#include <stdbool.h>

#include "space.h"

/* Open every arena there is, before anybody is served. Its spaces are orphans until their agents
 * come back. Says on the log what it refuses; that stays where it is. */
void adopt_all(const struct daemon_env *env);
/* Forget orphans whose process has ended. */
void adopt_sweep(void);
/* Is there something that must not be removed at the end? Also what an orphan waits for. */
bool adopt_has_refused(void);

#endif
