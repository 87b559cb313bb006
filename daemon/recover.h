/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens the arena of a family that a daemon left behind when it ended, at whatever instruction.
 *
 * The arena is checked whole before anything in it is written: a file that no crash can have
 * left (a wrong offset, a unit with two uses, a record of no slot) is refused and left alone.
 * What can be counted is counted anew: sharers of leaves, references of slots, free units. The
 * slots that batches held are given back to nobody: a record in LEAVING or STAGED has a reference
 * of its own. Such records stay as they are, for whoever takes the space over.
 *
 * If this too ends half-way, the arena can be opened again.
 *
 * Threads: one, while nobody else knows the family. Takes a time that grows with the arena.
 */
#ifndef UHMMD_RECOVER_H
#define UHMMD_RECOVER_H

#include "family.h"
#include "pagemap.h"

struct space_unit;

/* A space that was there. Its page map is ready for a worker. */
struct recovered_space {
	struct space_unit *unit; /* in the arena; NULL: forgotten */
	arena_off unit_off;
	struct pagemap map;
	struct pagemap past; /* PAGEMAP_NULL: there was none */
	uint64_t n_unmarked; /* records that carry UNMARKED */
	struct store *store; /* that it fills, with memory in slots that are free; NULL: none */
};

/* A shared object that was there. */
struct recovered_object {
	uint64_t dev, ino;
	uint32_t number;
	struct pagemap map;
	struct store *store;
};

struct recovered {
	struct family *family; /* one reference, the caller's */
	struct recovered_space *spaces;
	uint32_t n_spaces;
	bool has_object;
	struct recovered_object object;
	uint64_t last_id; /* the highest number that a space, an object or a family has in it */
};

/* The tier of this name, or NULL. */
typedef struct tier *(*family_find_tier_fn)(void *arg, const char *name);

#define RECOVER_WHY_BYTES 128

/*
 * 0; or a negative errno, and in `why` what is wrong: -EPROTO when this is no arena of ours, or
 * one that no crash can have left; -EPERM when others than this user can reach it; else what
 * opening it or a store of it said. On an error nothing is written and all files stay.
 *
 * On success every space that is found counts on the caller: it takes a reference on the family
 * for each that it adopts, calls recovered_forget_space for the others, then puts the family's
 * first reference. Slots in use are counted in their tiers.
 */
int family_open(const char *path, size_t map_bytes, family_find_tier_fn find_tier, void *arg,
		struct recovered *ret_recovered, char why[static RECOVER_WHY_BYTES]);
/* Nobody comes back for this one: give back all that it has. */
void recovered_forget_space(struct recovered *recovered, uint32_t i);
/* Frees the array, and nothing that is in it; not the family. */
void recovered_deinit(struct recovered *recovered);

#endif
