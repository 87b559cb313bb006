/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page map: single pages, walks, and fork. Called on the thread of the map's
 * space. pagemap_range.c has what works on ranges; pagemap_tree.c has the tree and
 * says how leaves are shared and in which order words are stored.
 *
 * pagemap_get takes no lock. pagemap_set on a leaf of our own takes the family's lock
 * only to give a slot back, and allocates nothing.
 */
#include "pagemap.h"

#include <errno.h>

#include "leaf_refs.h"
#include "pagemap_tree.h"

int pagemap_init(struct pagemap *map, struct family *family)
{
	arena_off root;
	int r = arena_alloc(&family->arena, &root);

	if (r < 0)
		return r;
	*map = (struct pagemap){ .family = family, .root = root };
	return 0;
}

void pagemap_deinit(struct pagemap *map)
{
	if (map->family != NULL) {
		/* Nobody reads the counters any more: spare the look into every shared leaf. */
		map->n_away = map->n_poisoned = 0;
		/* Whole chunks need no memory to be dropped. */
		(void)pagemap_drop(map, 0, TREE_PAGES);
		arena_free(&map->family->arena, map->root);
	}
	*map = PAGEMAP_NULL;
}

/* What the deepest entry above a page says of it. */
static struct page_rec entry_rec(const struct pagemap *map, uint64_t entry, uint64_t pgidx)
{
	if (entry_off(entry) == 0)
		return entry_default(entry);
	return tree_leaf(map, entry)[pgidx % PAGEMAP_LEAF_PAGES];
}

struct page_rec pagemap_get(const struct pagemap *map, uint64_t pgidx)
{
	unsigned int level;

	if (pgidx >= TREE_PAGES)
		return (struct page_rec){ .v = 0 };
	return entry_rec(map, *tree_find(map, pgidx, &level), pgidx);
}

int pagemap_set(struct pagemap *map, uint64_t pgidx, struct page_rec rec)
{
	struct page_rec *slot;
	unsigned int level;
	uint64_t *entry;
	bool locked;

	if (pgidx >= TREE_PAGES)
		return -EINVAL;
	entry = tree_find(map, pgidx, &level);
	if (entry_rec(map, *entry, pgidx).v == rec.v)
		return 0;
	if (entry_off(*entry) == 0 || (*entry & PAGEMAP_CHUNK_SHARED) != 0) {
		int r = tree_make_leaf(map, pgidx, &entry);

		if (r < 0)
			return r;
	}
	slot = tree_leaf(map, *entry) + pgidx % PAGEMAP_LEAF_PAGES;
	locked = rec_gives_slot(*slot, rec);
	if (locked)
		tree_lock(map);
	tree_store(map, slot, rec);
	if (locked)
		tree_unlock(map);
	return 0;
}

int pagemap_reserve(struct pagemap *map, uint64_t first, uint64_t n)
{
	uint64_t end = tree_end(first, n), pgidx = first;
	uint64_t *entry;

	while (pgidx < end) {
		int r = tree_make_leaf(map, pgidx, &entry);

		if (r < 0)
			return r;
		pgidx = (pgidx / PAGEMAP_LEAF_PAGES + 1) * PAGEMAP_LEAF_PAGES;
	}
	return 0;
}

/* Share one leaf with the child. */
static int fork_leaf(struct pagemap *parent, uint64_t *from, uint64_t *to)
{
	int r = 0;

	if (entry_off(*from) != 0) {
		tree_lock(parent);
		r = leaf_refs_share(&parent->family->arena, entry_off(*from));
		if (r == 0)
			arena_publish(from, *from | PAGEMAP_CHUNK_SHARED);
		tree_unlock(parent);
	}
	if (r == 0)
		arena_publish(to, *from);
	return r;
}

/* Copy what is below `from`, an entry of this level, to `to`, which is 0. On an error
 * `to` holds what was copied until then. */
static int fork_entry(struct pagemap *parent, uint64_t *from, uint64_t *to, unsigned int level)
{
	arena_off off;
	unsigned int i;
	int r;

	if (level == 0)
		return fork_leaf(parent, from, to);
	if (entry_off(*from) == 0) {
		arena_publish(to, *from);
		return 0;
	}
	r = arena_alloc(&parent->family->arena, &off);
	if (r < 0)
		return r;
	arena_publish(to, off);
	for (i = 0; r == 0 && i < TREE_FANOUT; i++) {
		uint64_t *entry = tree_node(parent, entry_off(*from)) + i;

		if (*entry != 0)
			r = fork_entry(parent, entry, tree_node(parent, off) + i, level - 1);
	}
	return r;
}

int pagemap_fork(struct pagemap *parent, struct pagemap *ret_child)
{
	struct pagemap child = *parent;
	uint64_t from = parent->root, to = 0;
	int r;

	r = fork_entry(parent, &from, &to, PAGEMAP_LEVELS);
	child.root = to;
	if (r < 0) {
		if (to != 0)
			pagemap_deinit(&child);
		return r;
	}
	*ret_child = child;
	return 0;
}

uint32_t pagemap_chunk_flags(const struct pagemap *map, uint64_t pgidx)
{
	unsigned int level;

	if (pgidx >= TREE_PAGES)
		return 0;
	return (uint32_t)(*tree_find(map, pgidx, &level) & TREE_FLAGS_MASK);
}

void pagemap_chunk_clear_check(struct pagemap *map, uint64_t pgidx)
{
	unsigned int level;
	uint64_t *entry;

	if (pgidx >= TREE_PAGES)
		return;
	entry = tree_find(map, pgidx, &level);
	/* Above level 0 it speaks for other chunks too; one look more hurts nobody. */
	if (level == 0)
		arena_publish(entry, *entry & ~(uint64_t)PAGEMAP_CHUNK_CHECK);
}

static bool rec_is_found(struct page_rec rec)
{
	enum page_state state = page_rec_state(rec);

	return page_state_is_away(state) || state == PAGE_POISONED;
}

static bool rec_has_slot(struct page_rec rec)
{
	return page_state_has_slot(page_rec_state(rec));
}

static uint64_t next_that(const struct pagemap *map, uint64_t from, uint64_t end,
			  bool (*is_wanted)(struct page_rec rec), struct page_rec *ret_rec)
{
	uint64_t pgidx = from, stop = end < TREE_PAGES ? end : TREE_PAGES;

	while (pgidx < stop) {
		unsigned int level;
		uint64_t entry = *tree_find(map, pgidx, &level);
		uint64_t next = (pgidx / tree_cover(level) + 1) * tree_cover(level);

		if (entry_off(entry) == 0) {
			pgidx = next;
			continue;
		}
		for (; pgidx < next && pgidx < stop; pgidx++) {
			struct page_rec rec = tree_leaf(map, entry)[pgidx % PAGEMAP_LEAF_PAGES];

			if (is_wanted(rec)) {
				*ret_rec = rec;
				return pgidx;
			}
		}
	}
	return end;
}

uint64_t pagemap_next(const struct pagemap *map, uint64_t from, uint64_t end,
		      struct page_rec *ret_rec)
{
	return next_that(map, from, end, rec_is_found, ret_rec);
}

uint64_t pagemap_next_slot(const struct pagemap *map, uint64_t from, uint64_t end,
			   struct page_rec *ret_rec)
{
	return next_that(map, from, end, rec_has_slot, ret_rec);
}

bool pagemap_any_away(const struct pagemap *map, uint64_t first, uint64_t n)
{
	uint64_t end = tree_end(first, n), pgidx;
	struct page_rec rec;

	for (pgidx = first; (pgidx = pagemap_next(map, pgidx, end, &rec)) < end; pgidx++) {
		if (page_state_is_away(page_rec_state(rec)))
			return true;
	}
	return false;
}
