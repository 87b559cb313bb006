/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process that uses process_vm_readv and process_vm_writev on the memory of actors. */
#ifndef UHMM_TORTURE_NEIGHBOUR_H
#define UHMM_TORTURE_NEIGHBOUR_H

#include "torture.h"

/* Fork it; it ends with the caller. -1. */
pid_t neighbour_start(void);
/* In an actor: have bytes of its memory copied from or to its bounce buffer; the count, or a
 * negative errno. */
int64_t neighbour_ask(struct actor *a, void *addr, size_t bytes, bool write);

#endif
