/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keeper of targets: see keeper.c. */
#ifndef UHMMD_KEEPER_H
#define UHMMD_KEEPER_H

#include "space.h"

/* Start the thread. */
int keeper_start(const struct daemon_env *env);
/* Close the stores whose end has come, of every family. Not with the registry's lock. */
void keeper_reap(void);

#endif
