/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks an arena that a daemon left. Called by recover.c, on one thread, while nobody else
 * knows the family.
 *
 * What may be after a crash: units and slots that are lost, counts that are too high, a record
 * or a leaf at both ends of a move, a list without what was about to enter it. What may not be,
 * and is refused: anything that would give one page the bytes of another.
 *
 * Every unit but a leaf has one way to it, so each is looked at once and no circle can be run
 * through. The depth of each walk is that of its tree.
 *
 * Never here: a store to the arena, or a load from an offset that has not been checked.
 */
#include "recover_check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaf_refs.h"

#define WORDS (ARENA_UNIT / sizeof(arena_off))
#define SLOTS_DIRS (sizeof(((struct slots_root *)NULL)->dirs) / sizeof(arena_off))

int recovery_refuse(struct recovery *recovery, arena_off off, const char *what)
{
	(void)snprintf(recovery->why, RECOVER_WHY_BYTES, "at %#llx: %s", (unsigned long long)off,
		       what);
	return -EPROTO;
}

int recovery_claim(struct recovery *recovery, arena_off off)
{
	if (!off_is_unit(recovery, off))
		return recovery_refuse(recovery, off, "no unit is there");
	if (recovery->use[off / ARENA_UNIT] != USE_NONE)
		return recovery_refuse(recovery, off, "a unit has two uses");
	recovery->use[off / ARENA_UNIT] = USE_ONE;
	return 0;
}

void recovery_note_id(struct recovery *recovery, uint64_t id)
{
	if (id > recovery->recovered->last_id)
		recovery->recovered->last_id = id;
}

/* arena_open has seen that the list ends. */
static void note_free(struct recovery *recovery)
{
	arena_off off = arena_of(recovery)->header->free_head;

	recovery->use[0] = USE_ONE;
	for (; off != 0; off = *words_at(recovery, off))
		recovery->use[off / ARENA_UNIT] = USE_FREE;
}

/* ---- sharing counts ------------------------------------------------------------------ */

static int check_refs_table(struct recovery *recovery, arena_off off, unsigned int levels)
{
	int err = recovery_claim(recovery, off);

	for (unsigned int i = 0; err == 0 && levels > 0 && i < WORDS; i++) {
		if (words_at(recovery, off)[i] != 0)
			err = check_refs_table(recovery, words_at(recovery, off)[i], levels - 1);
	}
	return err;
}

/* ---- stores -------------------------------------------------------------------------- */

/* Tables fill from the front, and slots.c stops at the first gap. */
static int check_slot_dir(struct recovery *recovery, arena_off off, uint64_t *n_units, bool *ended)
{
	const arena_off *dir;
	int err = recovery_claim(recovery, off);

	if (err < 0)
		return err;
	dir = words_at(recovery, off);
	for (unsigned int i = 0; err == 0 && i < WORDS; i++) {
		if (dir[i] == 0)
			*ended = true;
		else if (*ended)
			err = recovery_refuse(recovery, off, "a gap in a table of slots");
		else
			err = recovery_claim(recovery, dir[i]);
		*n_units += dir[i] != 0;
	}
	return err;
}

static int check_slots(struct recovery *recovery, struct recover_store *note)
{
	const struct slots_root *slots = &note->unit->slots;
	uint64_t n_units = 0;
	bool ended = false;

	for (unsigned int i = 0; i < SLOTS_DIRS; i++) {
		int err = 0;

		if (slots->dirs[i] == 0)
			ended = true;
		else if (ended)
			err = recovery_refuse(recovery, note->off, "a gap in a table of slots");
		else
			err = check_slot_dir(recovery, slots->dirs[i], &n_units, &ended);
		if (err < 0)
			return err;
	}
	if (slots->n_slots > n_units * SLOTS_PER_UNIT)
		return recovery_refuse(recovery, note->off, "more slots than counts");
	note->refs = calloc(slots->n_slots + 1, sizeof(*note->refs));
	return note->refs == NULL ? -ENOMEM : 0;
}

static bool store_is_named(const struct recovery *recovery, const struct store_unit *unit)
{
	char name[sizeof(unit->name)];

	(void)family_name_store(name, sizeof(name), recovery->family->id, unit->space_id,
				unit->index);
	return strncmp(name, unit->name, sizeof(name)) == 0 && unit->tier[0] != '\0' &&
	       memchr(unit->tier, '\0', sizeof(unit->tier)) != NULL;
}

static int check_store(struct recovery *recovery, arena_off off)
{
	struct store_unit *unit;
	struct recover_store *note;
	int err = recovery_claim(recovery, off);

	if (err < 0)
		return err;
	unit = arena_ptr(arena_of(recovery), off);
	if (unit->index == 0 || unit->index > FAMILY_STORES_MAX ||
	    recovery->stores[unit->index] != NULL)
		return recovery_refuse(recovery, off, "a store's index is none, or taken");
	if (!store_is_named(recovery, unit) || unit->closed > 1)
		return recovery_refuse(recovery, off, "a store is not named as ours are");
	note = calloc(1, sizeof(*note));
	if (note == NULL)
		return -ENOMEM;
	*note = (struct recover_store){ .unit = unit, .off = off, .closed = unit->closed };
	recovery->stores[unit->index] = note;
	if (unit->index > recovery->max_store)
		recovery->max_store = unit->index;
	recovery_note_id(recovery, unit->space_id);
	return check_slots(recovery, note);
}

static int check_stores(struct recovery *recovery)
{
	arena_off off = arena_of(recovery)->header->stores;

	for (; off != 0; off = *words_at(recovery, off)) {
		int err = check_store(recovery, off);

		if (err < 0)
			return err;
	}
	return 0;
}

/* ---- counts -------------------------------------------------------------------------- */

/* A crash leaves counts too high at worst. One that is too low has let somebody else have the
 * leaf, or the slot. */
static int check_leaf_counts(struct recovery *recovery)
{
	uint64_t n_units = arena_of(recovery)->header->n_units;

	for (uint64_t unit = 0; unit < n_units; unit++) {
		arena_off off = unit * ARENA_UNIT;

		if (recovery->use[unit] != USE_LEAF)
			continue;
		if (recovery->ways[unit] == LEAF_OWNED && recovery->sharers[unit] == 1) {
			recovery->sharers[unit] = 0;
			continue;
		}
		if ((recovery->ways[unit] & LEAF_OWNED) != 0)
			return recovery_refuse(recovery, off, "a leaf that is shared has an owner");
		if (leaf_refs_count(arena_of(recovery), off) < recovery->sharers[unit])
			return recovery_refuse(recovery, off, "a leaf has sharers without a count");
	}
	return 0;
}

static int check_slot_counts(struct recovery *recovery, const struct recover_store *note)
{
	const struct slots_root *slots = &note->unit->slots;

	for (uint64_t slot = 0; slot < slots->n_slots; slot++) {
		uint32_t refs = note->refs[slot];
		uint32_t count;

		if (refs == 0)
			continue;
		count = slots_count(arena_of(recovery), slots, slot);
		/* At the limit a record may be moved without a reference more. */
		if (refs > SLOTS_COUNT_MAX || (refs > count && count < SLOTS_REF_MAX))
			return recovery_refuse(recovery, note->off,
					       "a slot has records without a count");
	}
	return 0;
}

static int check_counts(struct recovery *recovery)
{
	int err = check_leaf_counts(recovery);

	for (uint32_t i = 1; err == 0 && i <= recovery->max_store; i++) {
		if (recovery->stores[i] != NULL)
			err = check_slot_counts(recovery, recovery->stores[i]);
	}
	return err;
}

int recovery_check(struct recovery *recovery)
{
	const struct arena_header *header = arena_of(recovery)->header;
	int err = 0;

	recovery->use = calloc(header->n_units, sizeof(*recovery->use));
	recovery->ways = calloc(header->n_units, sizeof(*recovery->ways));
	recovery->sharers = calloc(header->n_units, sizeof(*recovery->sharers));
	if (recovery->use == NULL || recovery->ways == NULL || recovery->sharers == NULL)
		return -ENOMEM;
	recovery_note_id(recovery, recovery->family->id);
	note_free(recovery);
	if (header->leaf_refs != 0)
		err = check_refs_table(recovery, header->leaf_refs, 2);
	if (err == 0)
		err = check_stores(recovery);
	if (err == 0)
		err = recovery_check_spaces(recovery);
	if (err == 0)
		err = recovery_check_object(recovery);
	return err == 0 ? check_counts(recovery) : err;
}

void recovery_deinit(struct recovery *recovery)
{
	for (uint32_t i = 1; i <= recovery->max_store; i++) {
		if (recovery->stores[i] != NULL)
			free(recovery->stores[i]->refs);
		free(recovery->stores[i]);
	}
	free(recovery->use);
	free(recovery->ways);
	free(recovery->sharers);
}
