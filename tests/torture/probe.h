/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A managed process that touches what is away, so that the runner knows when it is served. */
#ifndef UHMM_TORTURE_PROBE_H
#define UHMM_TORTURE_PROBE_H

#include <stdint.h>

/* uhmm-torture --probe FD: never returns while all is well. */
int probe_main(void);

/* For the runner: from when on (CLOCK_MONOTONIC, ns) a touch counts, and when the first that
 * counts was served; 0: not yet. */
void probe_expect(uint64_t after_ns);
uint64_t probe_served_ns(void);

#endif
