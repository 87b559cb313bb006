/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A space that a daemon before has left, on its worker: from what it left to being served. */
#ifndef UHMMD_COMEBACK_H
#define UHMMD_COMEBACK_H

#include "space.h"

/* Before anything else that the worker does. Waits for nobody but the kernel. */
void comeback_settle(struct space *space);
/* A child of which nobody knows yet what is registered, but that something is: the daemon may not
 * end before. */
void comeback_is_needed(struct space *child);
/* Which mappings are registered, as the kernel says. */
void comeback_find_registered(struct space *space);
/* The userfaultfd of a child that was kept under this token; -1: none. The caller owns it. */
int comeback_take_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES]);
/* All that was read before has been applied: nobody else will ask for a kept child. */
void comeback_end(struct space *space);

#endif
