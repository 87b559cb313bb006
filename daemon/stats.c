/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The latency histogram: log-linear buckets, so that p99 is right within 7 %. */
#include "stats.h"

static unsigned int histogram_bucket(uint64_t ns)
{
	unsigned int octave, step;

	if (ns < HIST_STEPS)
		return (unsigned int)ns;
	octave = 63u - (unsigned int)__builtin_clzll(ns);
	step = (unsigned int)(ns >> (octave - 4)) & (HIST_STEPS - 1);
	octave = (octave - 3) * HIST_STEPS + step;
	return octave < HIST_BUCKETS ? octave : HIST_BUCKETS - 1;
}

static uint64_t histogram_value(unsigned int bucket)
{
	unsigned int octave = bucket / HIST_STEPS, step = bucket % HIST_STEPS;

	if (octave == 0)
		return step;
	return (uint64_t)(HIST_STEPS + step) << (octave - 1);
}

void histogram_add(struct histogram *hist, uint64_t ns)
{
	stats_add(&hist->count[histogram_bucket(ns)], 1);
}

uint64_t histogram_quantile(const struct histogram *hist, double share)
{
	uint64_t total = 0, seen = 0, rank;

	for (unsigned int i = 0; i < HIST_BUCKETS; i++)
		total += stats_get(&hist->count[i]);
	if (total == 0)
		return 0;
	rank = (uint64_t)((double)(total - 1) * share);
	for (unsigned int i = 0; i < HIST_BUCKETS; i++) {
		seen += stats_get(&hist->count[i]);
		if (seen > rank)
			return histogram_value(i);
	}
	return 0;
}
