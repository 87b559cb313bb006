/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tree below a page map: owns the shape of nodes and leaves in the arena, and the
 * rule for sharing leaves. Called by pagemap.c and pagemap_range.c on the thread of the
 * map's space.
 *
 * Sharing: inner nodes are never shared. A leaf that several maps use carries SHARED in
 * each of their entries and a count in leaf_refs.c; nobody writes to it. Its records
 * hold one reference on each slot together, as any leaf's do. Whoever wants to change it
 * copies it, taking a reference more on each slot; the last one left takes it as it is.
 *
 * Order of stores: a unit is complete before it is linked, and unlinked before what it
 * holds is given back; references go up before a record is stored and down after it is
 * gone. A crash between any two stores loses units or slots at worst.
 *
 * Never here: a store to a leaf whose entry says SHARED.
 */
#include "pagemap_tree.h"

#include <string.h>

#include "leaf_refs.h"

static uint64_t rec_is_away(struct page_rec rec)
{
	return page_state_is_away(page_rec_state(rec)) ? 1 : 0;
}

static uint64_t rec_is_poisoned(struct page_rec rec)
{
	return page_rec_state(rec) == PAGE_POISONED ? 1 : 0;
}

void tree_account(struct pagemap *map, struct page_rec from, struct page_rec to)
{
	map->n_away += rec_is_away(to) - rec_is_away(from);
	map->n_poisoned += rec_is_poisoned(to) - rec_is_poisoned(from);
}

int tree_expand(struct pagemap *map, uint64_t *entry)
{
	arena_off off;
	uint64_t *node;
	unsigned int i;
	int r;

	if (entry_off(*entry) != 0)
		return 0;
	r = arena_alloc(&map->family->arena, &off);
	if (r < 0)
		return r;
	node = tree_node(map, off);
	for (i = 0; i < TREE_FANOUT && *entry != 0; i++)
		node[i] = *entry;
	arena_publish(entry, off);
	return 0;
}

int tree_make(struct pagemap *map, uint64_t pgidx, uint64_t **ret_entry)
{
	unsigned int level = PAGEMAP_LEVELS - 1;
	uint64_t *entry = tree_node(map, map->root) + tree_index(pgidx, level);

	while (level > 0) {
		int r = tree_expand(map, entry);

		if (r < 0)
			return r;
		level--;
		entry = tree_node(map, entry_off(*entry)) + tree_index(pgidx, level);
	}
	*ret_entry = entry;
	return 0;
}

static int leaf_make(struct pagemap *map, uint64_t *entry)
{
	struct page_rec fill = entry_default(*entry);
	struct page_rec *recs;
	arena_off off;
	unsigned int i;
	int r = arena_alloc(&map->family->arena, &off);

	if (r < 0)
		return r;
	recs = tree_leaf(map, off);
	for (i = 0; i < PAGEMAP_LEAF_PAGES; i++)
		recs[i] = fill;
	map->n_leaves++;
	arena_publish(entry, off | (*entry & PAGEMAP_CHUNK_CHECK));
	return 0;
}

static void leaf_unref_slots(struct pagemap *map, const struct page_rec *recs, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (page_state_has_slot(page_rec_state(recs[i])))
			family_slot_unref(map->family, page_rec_store(recs[i]),
					  page_rec_slot(recs[i]));
	}
}

static int leaf_ref_slots(struct pagemap *map, const struct page_rec *recs)
{
	unsigned int i;

	for (i = 0; i < PAGEMAP_LEAF_PAGES; i++) {
		int r = 0;

		if (page_state_has_slot(page_rec_state(recs[i])))
			r = family_slot_ref(map->family, page_rec_store(recs[i]),
					    page_rec_slot(recs[i]));
		if (r < 0) {
			leaf_unref_slots(map, recs, i);
			return r;
		}
	}
	return 0;
}

/* With the family's lock held. */
static int leaf_copy(struct pagemap *map, uint64_t *entry)
{
	arena_off old = entry_off(*entry), new;
	int r = arena_alloc(&map->family->arena, &new);

	if (r < 0)
		return r;
	memcpy(tree_leaf(map, new), tree_leaf(map, old), ARENA_UNIT);
	r = leaf_ref_slots(map, tree_leaf(map, new));
	if (r < 0) {
		arena_free(&map->family->arena, new);
		return r;
	}
	arena_publish(entry, new | (*entry & PAGEMAP_CHUNK_CHECK));
	(void)leaf_refs_unshare(&map->family->arena, old);
	return 0;
}

int tree_own_leaf(struct pagemap *map, uint64_t *entry)
{
	struct arena *arena = &map->family->arena;
	int r = 0;

	if (entry_off(*entry) == 0)
		return leaf_make(map, entry);
	if ((*entry & PAGEMAP_CHUNK_SHARED) == 0)
		return 0;
	tree_lock(map);
	if (leaf_refs_count(arena, entry_off(*entry)) == 1) {
		arena_publish(entry, *entry & ~(uint64_t)PAGEMAP_CHUNK_SHARED);
		leaf_refs_claim(arena, entry_off(*entry));
	} else {
		r = leaf_copy(map, entry);
	}
	tree_unlock(map);
	return r;
}

int tree_make_leaf(struct pagemap *map, uint64_t pgidx, uint64_t **ret_entry)
{
	int r = tree_make(map, pgidx, ret_entry);

	return r < 0 ? r : tree_own_leaf(map, *ret_entry);
}

void tree_replace_leaf(struct pagemap *map, uint64_t *entry, uint64_t next)
{
	struct arena *arena = &map->family->arena;
	uint64_t old = *entry;
	struct page_rec *recs = tree_leaf(map, old);
	struct page_rec none = { .v = 0 };
	unsigned int i;
	bool last;

	arena_publish(entry, next);
	if (entry_off(old) == 0)
		return;
	map->n_leaves--;
	/* A map that counts nothing has nothing to subtract: deinit goes this way. */
	for (i = 0; i < PAGEMAP_LEAF_PAGES && map->n_away + map->n_poisoned > 0; i++)
		tree_account(map, recs[i], none);
	tree_lock(map);
	last = (old & PAGEMAP_CHUNK_SHARED) == 0 || leaf_refs_unshare(arena, entry_off(old)) == 0;
	if (last)
		leaf_unref_slots(map, recs, PAGEMAP_LEAF_PAGES);
	tree_unlock(map);
	if (last)
		arena_free(arena, entry_off(old));
}

void tree_store(struct pagemap *map, struct page_rec *slot, struct page_rec rec)
{
	struct page_rec old = *slot;

	arena_publish(&slot->v, rec.v);
	tree_account(map, old, rec);
	if (rec_gives_slot(old, rec))
		family_slot_unref(map->family, page_rec_store(old), page_rec_slot(old));
}
