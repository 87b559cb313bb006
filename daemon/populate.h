/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An mremap that grows and moves locked memory: it needs help, see populate.c. */
#ifndef UHMMD_POPULATE_H
#define UHMMD_POPULATE_H

struct space;

/* Once a turn of the worker, after faults were served. */
void populate_step(struct space *space);

#endif
