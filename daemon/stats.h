/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters and a latency histogram. Written with relaxed atomics by the workers, read by
 * anybody; adding to them is all that the fault path does about statistics.
 */
#ifndef UHMMD_STATS_H
#define UHMMD_STATS_H

#include <stdint.h>

/* 16 steps an octave of nanoseconds: within 1/16 of the true value. */
#define HIST_STEPS 16u
#define HIST_BUCKETS (40u * HIST_STEPS)

struct histogram {
	uint64_t count[HIST_BUCKETS];
};

void histogram_add(struct histogram *hist, uint64_t ns);
/* The value below which `share` (0..1) of the samples lie; 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *hist, double share);

/* Pages, unless the name says otherwise. */
struct stats {
	uint64_t faults;	 /* on evicted pages */
	uint64_t first_touch;	 /* faults on pages that were never evicted, or given up */
	uint64_t evicted;	 /* whose bytes reached a tier */
	uint64_t returned;	 /* that came home, by a fault or otherwise */
	uint64_t second_chance;	 /* touched on the way out */
	uint64_t lost;		 /* poisoned */
	uint64_t events;	 /* fork, remap, remove, unmap */
	struct histogram fault_ns;
};

static inline void stats_add(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t stats_get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
