/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks the page maps that a daemon left, and what they belong to: spaces, or a shared object.
 * Called by recover_check.c when the stores are known; the same holds here as there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pagemap_tree.h"
#include "recover_check.h"
#include "space.h"

#define REC_KNOWN_BITS (0xfull | PAGE_REC_REFERENCED | PAGE_REC_UNMARKED)

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
		err = recovery_claim(recovery, leaf);
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
	err = recovery_claim(recovery, entry);
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

static int check_past(struct recovery *recovery, struct recovered_space *space)
{
	struct recovered_space counted = { .unit = NULL };
	int err;

	if (space->unit->past == 0)
		return 0;
	err = check_map(recovery, &counted, space->unit->past);
	space->past = counted.map;
	return err;
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
			err = recovery_claim(recovery, unit->batches[i].units[k]);
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
		err = recovery_claim(recovery, off);
		if (err == 0)
			off = ((const struct log_unit *)words_at(recovery, off))->next;
	} while (err == 0 && off != 0);
	return err;
}

static int check_space(struct recovery *recovery, arena_off off)
{
	struct recovered *recovered = recovery->recovered;
	struct recovered_space *space;
	int err = recovery_claim(recovery, off);

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
	recovery_note_id(recovery, space->unit->space_id);
	err = check_log(recovery, space->unit);
	if (err == 0)
		err = check_batches(recovery, space->unit, off);
	if (err == 0)
		err = check_map(recovery, space, space->unit->root);
	return err == 0 ? check_past(recovery, space) : err;
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

int recovery_check_spaces(struct recovery *recovery)
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

int recovery_check_object(struct recovery *recovery)
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
	recovery_note_id(recovery, unit->number);
	return 0;
}
