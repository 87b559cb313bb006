/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many page maps of a family share a leaf: one u32 for each unit of the arena,
 * in units of their own that are made when a leaf is first shared. A leaf that was
 * never shared has no count, and one owner.
 *
 * Threads: every call is made with the family's lock held.
 */
#ifndef UHMMD_LEAF_REFS_H
#define UHMMD_LEAF_REFS_H

#include "arena.h"

/* Sharers of a leaf; 0 when it is not shared. */
uint32_t leaf_refs_count(const struct arena *arena, arena_off leaf);
/* Make room for a leaf's count, so that sharing it cannot fail. -ENOSPC. */
int leaf_refs_reserve(struct arena *arena, arena_off leaf);
/* One sharer more; the first call makes two of one. -ENOSPC: nothing changed. */
int leaf_refs_share(struct arena *arena, arena_off leaf);
/* One sharer less; returns how many are left. At 0 the leaf is the caller's to free. */
uint32_t leaf_refs_unshare(struct arena *arena, arena_off leaf);
/* The only sharer left takes the leaf for itself. */
void leaf_refs_claim(struct arena *arena, arena_off leaf);
/* A successor has counted anew: sharers[unit] for each unit of the arena, 0 where the unit is no
 * shared leaf. Every leaf that is shared has room for its count. */
void leaf_refs_recount(struct arena *arena, const uint32_t *sharers);

#endif
