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
#include "pagemap_tree.h"
#include "space.h"

#define WORDS (ARENA_UNIT / sizeof(arena_off))
#define SLOTS_DIRS (sizeof(((struct slots_root *)NULL)->dirs) / sizeof(arena_off))
#define REC_KNOWN_BITS (0xfull | PAGE_REC_REFERENCED | PAGE_REC_UNMARKED)

static const struct arena *arena_of(const struct recovery *recovery)
{
	return &recovery->family->arena;
}

static const arena_off *words_at(const struct recovery *recovery, arena_off off)
{
	return arena_ptr(arena_of(recovery), off);
}

int recovery_refuse(struct recovery *recovery, arena_off off, const char *what)
{
	(void)snprintf(recovery->why, RECOVER_WHY_BYTES, "at %#llx: %s", (unsigned long long)off,
		       what);
	return -EPROTO;
}

static bool off_is_unit(const struct recovery *recovery, arena_off off)
{
	return off != 0 && off % ARENA_UNIT == 0 &&
	       off / ARENA_UNIT < arena_of(recovery)->header->n_units;
}

/* This unit is used for one thing, and this is it. */
static int claim(struct recovery *recovery, arena_off off)
{
	if (!off_is_unit(recovery, off))
		return recovery_refuse(recovery, off, "no unit is there");
	if (recovery->use[off / ARENA_UNIT] != USE_NONE)
		return recovery_refuse(recovery, off, "a unit has two uses");
	recovery->use[off / ARENA_UNIT] = USE_ONE;
	return 0;
}

static void note_id(struct recovery *recovery, uint64_t id)
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
	int err = claim(recovery, off);

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
	int err = claim(recovery, off);

	if (err < 0)
		return err;
	dir = words_at(recovery, off);
	for (unsigned int i = 0; err == 0 && i < WORDS; i++) {
		if (dir[i] == 0)
			*ended = true;
		else if (*ended)
			err = recovery_refuse(recovery, off, "a gap in a table of slots");
		else
			err = claim(recovery, dir[i]);
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
	int err = claim(recovery, off);

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
	note_id(recovery, unit->space_id);
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

/* ---- page maps ----------------------------------------------------------------------- */

static bool rec_is_known(const struct recovery *recovery, struct page_rec rec)
{
	uint32_t store = page_rec_store(rec);

	if (page_rec_state(rec) >= PAGE_STATE_MAX)
		return false;
	if (!page_state_has_slot(page_rec_state(rec)))
		return (rec.v & ~REC_KNOWN_BITS) == 0;
	return (rec.v & 0xff & ~REC_KNOWN_BITS) == 0 && store >= 1 && store <= FAMILY_STORES_MAX &&
	       recovery->stores[store] != NULL &&
	       page_rec_slot(rec) < recovery->stores[store]->unit->slots.n_slots;
}

static void count_slot(struct recovery *recovery, struct page_rec rec)
{
	struct recover_store *note = recovery->stores[page_rec_store(rec)];
	uint32_t *refs = &note->refs[page_rec_slot(rec)];

	note->n_used += *refs == 0 ? 1 : 0;
	if (*refs <= SLOTS_COUNT_MAX)
		++*refs;
}

/* A leaf that was looked at before, by way of another entry, is counted in this map too. */
static int check_records(struct recovery *recovery, struct recovered_space *space, arena_off leaf,
			 bool first)
{
	const struct page_rec *recs = arena_ptr(arena_of(recovery), leaf);

	for (unsigned int i = 0; i < PAGEMAP_LEAF_PAGES; i++) {
		if (first && !rec_is_known(recovery, recs[i]))
			return recovery_refuse(recovery, leaf, "a page record that says nothing");
		if (first && page_state_has_slot(page_rec_state(recs[i])))
			count_slot(recovery, recs[i]);
		space->map.n_away += page_state_is_away(page_rec_state(recs[i])) ? 1 : 0;
		space->map.n_poisoned += page_rec_state(recs[i]) == PAGE_POISONED ? 1 : 0;
		space->n_unmarked += (recs[i].v & PAGE_REC_UNMARKED) != 0 ? 1 : 0;
	}
	return 0;
}

static int check_leaf(struct recovery *recovery, struct recovered_space *space, uint64_t entry)
{
	arena_off leaf = entry_off(entry);
	uint64_t unit = leaf / ARENA_UNIT;
	int err = 0;

	if ((entry & TREE_FLAGS_MASK & ~(uint64_t)(PAGEMAP_CHUNK_CHECK | PAGEMAP_CHUNK_SHARED)) != 0)
		return recovery_refuse(recovery, leaf, "a leaf with unknown flags");
	if (!off_is_unit(recovery, leaf) || recovery->use[unit] != USE_LEAF)
		err = claim(recovery, leaf);
	if (err == 0 && recovery->sharers[unit] == UINT32_MAX)
		err = recovery_refuse(recovery, leaf, "a leaf has too many sharers");
	if (err < 0)
		return err;
	recovery->use[unit] = USE_LEAF;
	recovery->ways[unit] |= (entry & PAGEMAP_CHUNK_SHARED) != 0 ? LEAF_SHARED : LEAF_OWNED;
	space->map.n_leaves++;
	return check_records(recovery, space, leaf, recovery->sharers[unit]++ == 0);
}

/* `entry` is one of this level, and lies in the unit at `node`. */
static int check_entry(struct recovery *recovery, struct recovered_space *space, arena_off node,
		       uint64_t entry, unsigned int level)
{
	const uint64_t empty = PAGEMAP_CHUNK_DEFAULT_REMOVED | PAGEMAP_CHUNK_CHECK;
	int err;

	if (entry_off(entry) == 0) {
		if ((entry & PAGEMAP_CHUNK_DEFAULT_REMOVED) != 0 && (entry & ~empty) == 0)
			return 0;
		return recovery_refuse(recovery, node, "an entry with flags and without a leaf");
	}
	if (level == 0)
		return check_leaf(recovery, space, entry);
	if ((entry & TREE_FLAGS_MASK) != 0)
		return recovery_refuse(recovery, node, "an entry with flags and a node");
	err = claim(recovery, entry);
	for (unsigned int i = 0; err == 0 && i < TREE_FANOUT; i++) {
		if (words_at(recovery, entry)[i] != 0)
			err = check_entry(recovery, space, entry, words_at(recovery, entry)[i],
					  level - 1);
	}
	return err;
}

static int check_map(struct recovery *recovery, struct recovered_space *space, arena_off root)
{
	space->map = (struct pagemap){ .family = recovery->family, .root = root };
	if (!off_is_unit(recovery, root))
		return recovery_refuse(recovery, root, "no page map is there");
	return check_entry(recovery, space, root, root, PAGEMAP_LEVELS);
}

/* ---- spaces -------------------------------------------------------------------------- */

/* pgidx of every page of a batch that is under way. */
static int check_batch_pages(struct recovery *recovery, const arena_off *units, uint32_t n_pages)
{
	for (uint32_t i = 0; i < n_pages; i++) {
		const struct batch_page *pages =
			arena_ptr(arena_of(recovery), units[i / BATCH_UNIT_PAGES]);

		if (pages[i % BATCH_UNIT_PAGES].pgidx >= TREE_PAGES)
			return recovery_refuse(recovery, units[i / BATCH_UNIT_PAGES],
					       "a batch has a page that cannot be");
	}
	return 0;
}

static int check_batches(struct recovery *recovery, const struct space_unit *unit, arena_off off)
{
	int err = 0;

	if (unit->n_batches > UHMM_RING_BOXES)
		return recovery_refuse(recovery, off, "a space with too many batches");
	for (uint32_t i = 0; err == 0 && i < unit->n_batches; i++) {
		uint32_t state = unit->batches[i].state, n_pages = unit->batches[i].n_pages;

		if (state > BATCH_FREEING || n_pages > BATCH_PAGES_MAX)
			return recovery_refuse(recovery, off, "a batch in an unknown state");
		for (uint32_t k = 0; err == 0 && k < BATCH_UNITS; k++)
			err = claim(recovery, unit->batches[i].units[k]);
		/* An idle one may be half filled. */
		if (err == 0 && state != BATCH_IDLE)
			err = check_batch_pages(recovery, unit->batches[i].units, n_pages);
	}
	return err;
}

/* What its messages say is for who takes the space over. */
static int check_log(struct recovery *recovery, const struct space_unit *unit)
{
	arena_off off = unit->log;
	int err;

	do {
		err = claim(recovery, off);
		if (err == 0)
			off = ((const struct log_unit *)words_at(recovery, off))->next;
	} while (err == 0 && off != 0);
	return err;
}

static int check_space(struct recovery *recovery, arena_off off)
{
	struct recovered *recovered = recovery->recovered;
	struct recovered_space *space;
	int err = claim(recovery, off);

	if (err < 0)
		return err;
	/* Grows at 1, 2, 4, 8 ... */
	if ((recovered->n_spaces & (recovered->n_spaces - 1)) == 0) {
		size_t n = recovered->n_spaces != 0 ? 2 * (size_t)recovered->n_spaces : 1;

		space = realloc(recovered->spaces, n * sizeof(*space));
		if (space == NULL)
			return -ENOMEM;
		recovered->spaces = space;
	}
	space = &recovered->spaces[recovered->n_spaces++];
	*space = (struct recovered_space){
		.unit = arena_ptr(arena_of(recovery), off),
		.unit_off = off,
	};
	note_id(recovery, space->unit->space_id);
	err = check_log(recovery, space->unit);
	if (err == 0)
		err = check_batches(recovery, space->unit, off);
	return err == 0 ? check_map(recovery, space, space->unit->root) : err;
}

static int compare_ids(const void *a, const void *b)
{
	const struct recovered_space *x = a, *y = b;
	uint64_t i = x->unit->space_id, k = y->unit->space_id;

	return i < k ? -1 : i > k;
}

static int compare_tokens(const void *a, const void *b)
{
	const struct recovered_space *x = a, *y = b;

	return memcmp(x->unit->token, y->unit->token, UHMM_TOKEN_BYTES);
}

/* No two have the same id, or the same token. They end in the order of their ids. */
static int check_identities(struct recovery *recovery)
{
	int (*const compares[])(const void *, const void *) = { compare_tokens, compare_ids };
	struct recovered *recovered = recovery->recovered;

	for (unsigned int c = 0; c < 2 && recovered->n_spaces > 1; c++) {
		qsort(recovered->spaces, recovered->n_spaces, sizeof(*recovered->spaces),
		      compares[c]);
		for (uint32_t i = 1; i < recovered->n_spaces; i++) {
			if (compares[c](&recovered->spaces[i - 1], &recovered->spaces[i]) == 0)
				return recovery_refuse(recovery, recovered->spaces[i].unit_off,
						       "two spaces that are one");
		}
	}
	return 0;
}

static int check_spaces(struct recovery *recovery)
{
	arena_off off = arena_of(recovery)->header->spaces;

	for (; off != 0; off = *words_at(recovery, off)) {
		int err = check_space(recovery, off);

		if (err < 0)
			return err;
	}
	return check_identities(recovery);
}

/* ---- a shared object ----------------------------------------------------------------- */

static int check_object(struct recovery *recovery)
{
	const struct arena_object *unit = &arena_of(recovery)->header->object;
	struct recovered_object *object = &recovery->recovered->object;
	struct recovered_space counted = { .unit = NULL };
	int err;

	if (unit->root == 0)
		return 0;
	if (recovery->recovered->n_spaces > 0)
		return recovery_refuse(recovery, 0, "an object's arena with spaces");
	if (unit->store == 0 || unit->store > FAMILY_STORES_MAX ||
	    recovery->stores[unit->store] == NULL || recovery->stores[unit->store]->closed ||
	    recovery->stores[unit->store]->unit->space_id != unit->number)
		return recovery_refuse(recovery, 0, "an object without its store");
	err = check_map(recovery, &counted, unit->root);
	if (err < 0)
		return err;
	recovery->recovered->has_object = true;
	*object = (struct recovered_object){
		.dev = unit->dev, .ino = unit->ino, .number = unit->number, .map = counted.map
	};
	note_id(recovery, unit->number);
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
	note_id(recovery, recovery->family->id);
	note_free(recovery);
	if (header->leaf_refs != 0)
		err = check_refs_table(recovery, header->leaf_refs, 2);
	if (err == 0)
		err = check_stores(recovery);
	if (err == 0)
		err = check_spaces(recovery);
	if (err == 0)
		err = check_object(recovery);
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
