/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tree below a page map, for pagemap.c and pagemap_range.c only: entries, inner
 * nodes, leaves and their sharing.
 *
 * An entry is an offset in the arena with flags in its low bits. Level 0 entries lead
 * to leaves, level 1 entries to nodes of level 0 entries, and so on; the root is a node
 * of level 3 entries. An entry without an offset may say DEFAULT_REMOVED (and CHECK)
 * at any level: all of its pages are REMOVED. An entry with an offset has flags at
 * level 0 only.
 */
#ifndef UHMMD_PAGEMAP_TREE_H
#define UHMMD_PAGEMAP_TREE_H

#include "family.h"
#include "pagemap.h"

#define TREE_BITS 9
#define TREE_FANOUT (1u << TREE_BITS)
#define TREE_FLAGS_MASK ((uint64_t)ARENA_UNIT - 1)
/* Pages that a map can name. */
#define TREE_PAGES (1ull << (TREE_BITS * (PAGEMAP_LEVELS + 1)))

_Static_assert(TREE_FANOUT * sizeof(uint64_t) == ARENA_UNIT, "a node is one unit");
_Static_assert(PAGEMAP_LEAF_PAGES == TREE_FANOUT, "a leaf is one unit");

/* Pages below an entry of this level. */
static inline uint64_t tree_cover(unsigned int level)
{
	return 1ull << (TREE_BITS * (level + 1));
}

static inline unsigned int tree_index(uint64_t pgidx, unsigned int level)
{
	return (unsigned int)(pgidx >> (TREE_BITS * (level + 1))) & (TREE_FANOUT - 1);
}

static inline arena_off entry_off(uint64_t entry)
{
	return entry & ~TREE_FLAGS_MASK;
}

static inline uint64_t *tree_node(const struct pagemap *map, arena_off off)
{
	return arena_ptr(&map->family->arena, off);
}

static inline struct page_rec *tree_leaf(const struct pagemap *map, uint64_t entry)
{
	return arena_ptr(&map->family->arena, entry_off(entry));
}

/* What an entry without a leaf says of its pages. */
static inline struct page_rec entry_default(uint64_t entry)
{
	bool removed = (entry & PAGEMAP_CHUNK_DEFAULT_REMOVED) != 0;

	return (struct page_rec){ .v = removed ? PAGE_REMOVED : PAGE_RESIDENT };
}

/* Does a record that becomes `rec` give its slot back? */
static inline bool rec_gives_slot(struct page_rec old, struct page_rec rec)
{
	const uint64_t slot_bits = ~0ull << PAGE_REC_STORE_SHIFT;

	if (!page_state_has_slot(page_rec_state(old)))
		return false;
	return !page_state_has_slot(page_rec_state(rec)) || ((old.v ^ rec.v) & slot_bits) != 0;
}

/* The deepest entry above a page, and its level. pgidx < TREE_PAGES. */
static inline uint64_t *tree_find(const struct pagemap *map, uint64_t pgidx,
				  unsigned int *ret_level)
{
	unsigned int level = PAGEMAP_LEVELS - 1;
	uint64_t *entry = tree_node(map, map->root) + tree_index(pgidx, level);

	while (level > 0 && entry_off(*entry) != 0) {
		level--;
		entry = tree_node(map, entry_off(*entry)) + tree_index(pgidx, level);
	}
	*ret_level = level;
	return entry;
}

/* Clip [first, first + n) to what a map can name; returns its end. */
static inline uint64_t tree_end(uint64_t first, uint64_t n)
{
	return first < TREE_PAGES && n < TREE_PAGES - first ? first + n : TREE_PAGES;
}

/* Count a record that changes from `from` to `to`. */
void tree_account(struct pagemap *map, struct page_rec from, struct page_rec to);

/* Give an entry above level 0 its node, filled with what the entry says. */
int tree_expand(struct pagemap *map, uint64_t *entry);
/* The level 0 entry of a page, with the nodes above it made. */
int tree_make(struct pagemap *map, uint64_t pgidx, uint64_t **ret_entry);
/* Give a level 0 entry a leaf that is nobody else's: made or copied if need be. */
int tree_own_leaf(struct pagemap *map, uint64_t *entry);
/* Both of the above. */
int tree_make_leaf(struct pagemap *map, uint64_t pgidx, uint64_t **ret_entry);

/* Put `next` into a level 0 entry, then give back the leaf that it had. */
void tree_replace_leaf(struct pagemap *map, uint64_t *entry, uint64_t next);
/* Store a record into a leaf of ours and give back the slot that it replaces. With the
 * family's lock held, unless rec_gives_slot says that no slot is given back. */
void tree_store(struct pagemap *map, struct page_rec *slot, struct page_rec rec);

static inline void tree_lock(const struct pagemap *map)
{
	(void)pthread_mutex_lock(&map->family->lock);
}

static inline void tree_unlock(const struct pagemap *map)
{
	(void)pthread_mutex_unlock(&map->family->lock);
}

#endif
