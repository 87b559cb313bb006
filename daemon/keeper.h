/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keeper of targets: see keeper.c. */
#ifndef UHMMD_KEEPER_H
#define UHMMD_KEEPER_H

#include "space.h"

/* Start the thread. */
int keeper_start(const struct daemon_env *env);

#endif
