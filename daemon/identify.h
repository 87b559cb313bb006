/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose memory is a forked child's? On the space's worker. */
#ifndef UHMMD_IDENTIFY_H
#define UHMMD_IDENTIFY_H

#include "space.h"

/* Find the process by a thread that faulted; `tid` is its number in its own pid namespace.
 * False: not found this time; ask again. Bounded: looks over /proc now and then only. */
bool identify_by_fault(struct space *space, uint32_t tid);

#endif
