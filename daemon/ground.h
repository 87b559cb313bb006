/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Registering private memory. On the space's worker. */
#ifndef UHMMD_GROUND_H
#define UHMMD_GROUND_H

#include "space.h"

/* Register [start, end), a whole mapping (or the beacon). True: all of it is registered, and its
 * pages may be taken. False: not now, or the kernel refuses; then it may be registered or not. */
bool ground_register(struct space *space, uint64_t start, uint64_t end);

/* Is it a mapping of private memory, the whole of it, at this moment? */
bool ground_is_mapping(const struct space *space, uint64_t start, uint64_t end);

#endif
