/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The slots of one store: which are in use, and by how many records. The counts
 * live in the arena of the family (two bytes a slot), so a successor finds them.
 *
 * A slot with count 0 is free. slots_alloc hands out runs that are as long as can
 * be had, so that neighbours in memory stay neighbours in the store.
 *
 * Threads: every call is made with the family's lock held.
 */
#ifndef UHMMD_SLOTS_H
#define UHMMD_SLOTS_H

#include "arena.h"

/* What slots_ref goes up to. The counts have room for more: a crash may leave a record that was
 * being moved at both ends, and the successor counts both. */
#define SLOTS_REF_MAX 0xff00u
#define SLOTS_COUNT_MAX 0xffffu
/* Counts in a unit; count units in a directory unit. */
#define SLOTS_PER_UNIT (ARENA_UNIT / sizeof(uint16_t))
#define SLOTS_DIR_ENTRIES (ARENA_UNIT / sizeof(arena_off))

/* In the arena, part of a store's unit: see struct store_unit in family.h. */
struct slots_root {
	uint64_t n_slots;  /* that the store has room for */
	uint64_t n_used;   /* with a count above 0 */
	uint64_t next;	   /* where the next search starts */
	arena_off dirs[8]; /* directory units, each of SLOTS_DIR_ENTRIES count units;
			      8 x 512 x 2048 slots = 32 GiB of pages at 4 KiB a store */
};

struct slots_run {
	uint64_t slot;
	uint32_t n;
};

/* Bring the table to n_slots (grows only). -ENOSPC: the old size holds; n_slots beyond
 * what the directory can name is -ENOSPC too. Not on the fault path. */
int slots_grow(struct arena *arena, struct slots_root *root, uint64_t n_slots);

/*
 * Take up to `want` free slots, as at most `max_runs` runs, each slot with a count
 * of 1. Returns the number of runs (0 when the store is full) and the number of
 * slots taken, which may be less than wanted.
 */
uint32_t slots_alloc(struct arena *arena, struct slots_root *root, uint32_t want,
		     struct slots_run *runs, uint32_t max_runs, uint32_t *ret_taken);

uint32_t slots_count(const struct arena *arena, const struct slots_root *root, uint64_t slot);

/* One reference more; -EOVERFLOW at SLOTS_REF_MAX (the caller copies the page). */
int slots_ref(struct arena *arena, struct slots_root *root, uint64_t slot);

/* One reference less; returns 1 if that was the last one (the slot is free now). Aborts
 * on a slot that is free or beyond the end. */
int slots_unref(struct arena *arena, struct slots_root *root, uint64_t slot);

/* A successor has counted the references of each slot below n_slots anew, none above
 * SLOTS_COUNT_MAX: they are the counts from now on. */
void slots_recount(struct arena *arena, struct slots_root *root, const uint32_t *refs);

/* Give the table's units back; nobody may use the slots any more. */
void slots_deinit(struct arena *arena, struct slots_root *root);

#endif
