/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The look at an arena before it is used again, for recover.c only: what every unit is used for,
 * and how often every slot and every leaf. Reads the arena and writes nothing.
 */
#ifndef UHMMD_RECOVER_CHECK_H
#define UHMMD_RECOVER_CHECK_H

#include "recover.h"

/* What a unit of the arena is. 0: nothing leads to it. */
enum recover_use {
	USE_NONE = 0,
	USE_FREE, /* on the free list */
	USE_ONE,  /* whatever has one way to it */
	USE_LEAF,
};

/* How entries lead to a leaf. */
#define LEAF_SHARED (1u << 0)
#define LEAF_OWNED (1u << 1)

struct recover_store {
	struct store_unit *unit;
	arena_off off;
	uint32_t *refs;	 /* of each slot, by records of distinct leaves */
	uint64_t n_used; /* slots with one at least */
	bool closed;	 /* nobody fills it any more */
	struct store *store;
};

struct recovery {
	struct family *family;
	struct recovered *recovered;
	char *why;
	uint8_t *use;	   /* enum recover_use, by unit */
	uint8_t *ways;	   /* LEAF_*, by unit */
	uint32_t *sharers; /* entries that lead to a leaf, by unit */
	uint32_t max_store; /* the highest index of one */
	struct recover_store *stores[FAMILY_STORES_MAX + 1]; /* by index; NULL: none */
};

static inline const struct arena *arena_of(const struct recovery *recovery)
{
	return &recovery->family->arena;
}

static inline const arena_off *words_at(const struct recovery *recovery, arena_off off)
{
	return arena_ptr(arena_of(recovery), off);
}

static inline bool off_is_unit(const struct recovery *recovery, arena_off off)
{
	return off != 0 && off % ARENA_UNIT == 0 &&
	       off / ARENA_UNIT < arena_of(recovery)->header->n_units;
}

/* -EPROTO, and the reason. */
int recovery_refuse(struct recovery *recovery, arena_off off, const char *what);
/* This unit is used for one thing, and this is it. -EPROTO: there is none, or it is used. */
int recovery_claim(struct recovery *recovery, arena_off off);
void recovery_note_id(struct recovery *recovery, uint64_t id);
/* Find the spaces and the object, and count their records. */
int recovery_check_spaces(struct recovery *recovery);
int recovery_check_object(struct recovery *recovery);
/* Fill all of the above, and the spaces and the object of `recovered` but for their stores.
 * -EPROTO, -ENOMEM. */
int recovery_check(struct recovery *recovery);
void recovery_deinit(struct recovery *recovery);

#endif
