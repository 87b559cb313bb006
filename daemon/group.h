/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A group: spaces that share a host target. `uhmm run` makes one for its command's
 * process tree, the first program of a managed unit one for that start of the unit; a space
 * whose program names no group gets one of its own uid's default.
 *
 * est_pages is what the group is believed to hold in host RAM right now: the kernel's
 * figure at the last sample, corrected by what the workers did since. It paces first
 * touches; reports use the kernel's samples only.
 *
 * Threads: the list and refs are guarded by the registry's lock (space.h); the numbers
 * are atomic.
 */
#ifndef UHMMD_GROUP_H
#define UHMMD_GROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stats.h"
#include "uhmm/wire.h"
#include "util/list.h"

/* What it means to name a group. */
enum group_kind {
	GROUP_SECRET = 0, /* a runner chose the token at random: who knows it belongs to it */
	GROUP_OF_UID,	  /* others may know the token: each user has a group of that name */
};

struct group {
	struct list link;
	unsigned int n_refs; /* spaces and the runner */
	uint8_t token[UHMM_TOKEN_BYTES];
	enum group_kind kind;
	uid_t uid;
	uint64_t target_pages; /* 0: none */
	int64_t est_pages;
	uint64_t sampled_pages; /* at the last sample */
	uint64_t peak_pages;	/* of the samples */
	int64_t tier_pages;	/* on tiers now */
	uint64_t tier_peak_pages;
	bool pacing; /* first touches come through the daemon */
	struct stats stats;
};

void group_add_tier_pages(struct group *group, int64_t n);

static inline void group_add_est(struct group *group, int64_t n)
{
	__atomic_fetch_add(&group->est_pages, n, __ATOMIC_RELAXED);
}

/* How far the group is above its target, in pages; at most 0 when it is not. */
static inline int64_t group_over(const struct group *group)
{
	uint64_t target = stats_get(&group->target_pages);

	return target ? __atomic_load_n(&group->est_pages, __ATOMIC_RELAXED) - (int64_t)target
		      : INT64_MIN;
}

#endif
