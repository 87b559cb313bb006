/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The worker of a space: the one thread that touches its pages. See worker.c. */
#ifndef UHMMD_WORKER_H
#define UHMMD_WORKER_H

#include "space.h"

void *worker_run(void *space);

#endif
