/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A managed process. */
#ifndef UHMM_TORTURE_WORLD_H
#define UHMM_TORTURE_WORLD_H

#include <stdint.h>

/* The main of a world: its actors are those in slots [first, first + n). Returns the exit
 * status. */
int world_main(uint32_t first, uint32_t n);

#endif
