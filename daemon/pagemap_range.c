/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page map over ranges: what munmap, madvise and mremap do to records. Called on
 * the thread of the map's space, with the family's lock not held.
 *
 * A crash in the middle of drop or remove leaves some pages done and some not; doing it
 * again finishes it. A crash in the middle of move leaves each record at its source, at
 * its destination, or at both: then both count in the slot's references, or in the
 * sharing of the leaf. pagemap_move_onto, which does not drop the destination, finishes it.
 */
#include <errno.h>

#include "leaf_refs.h"
#include "pagemap.h"
#include "pagemap_tree.h"

static const struct page_rec rec_none = { .v = PAGE_RESIDENT };
static const struct page_rec rec_removed = { .v = PAGE_REMOVED };

struct span {
	uint64_t first, end; /* page indices */
};

static bool span_covers(struct span span, uint64_t base, unsigned int level)
{
	return span.first <= base && base + tree_cover(level) <= span.end;
}

static bool unit_is_zero(const uint64_t *words)
{
	unsigned int i;

	for (i = 0; i < TREE_FANOUT; i++) {
		if (words[i] != 0)
			return false;
	}
	return true;
}

static bool rec_is_other(struct page_rec rec, struct page_rec fill, bool only_recorded)
{
	return rec.v != fill.v && !(only_recorded && rec.v == rec_none.v);
}

/* Nothing to change in [from, to) of a chunk, so nothing to copy. */
static bool chunk_is_filled(const struct pagemap *map, uint64_t entry, uint64_t from, uint64_t to,
			    struct page_rec rec, bool only_recorded)
{
	if (entry_off(entry) == 0)
		return !rec_is_other(entry_default(entry), rec, only_recorded);
	while (from < to && !rec_is_other(tree_leaf(map, entry)[from], rec, only_recorded))
		from++;
	return from == to;
}

/* Store `rec`, which has no slot, into the part of a chunk that the span covers: into every
 * page, or where there is a record. */
static int chunk_fill(struct pagemap *map, uint64_t *entry, uint64_t base, struct span span,
		      struct page_rec rec, bool only_recorded)
{
	uint64_t from = span.first > base ? span.first - base : 0;
	uint64_t to = span.end - base < PAGEMAP_LEAF_PAGES ? span.end - base : PAGEMAP_LEAF_PAGES;
	int r;

	if (chunk_is_filled(map, *entry, from, to, rec, only_recorded))
		return 0;
	r = tree_own_leaf(map, entry);
	if (r < 0)
		return r;
	tree_lock(map);
	for (; from < to; from++) {
		struct page_rec *at = tree_leaf(map, *entry) + from;

		if (rec_is_other(*at, rec, only_recorded))
			tree_store(map, at, rec);
	}
	tree_unlock(map);
	return 0;
}

static int drop_chunk(struct pagemap *map, uint64_t *entry, uint64_t base, struct span span)
{
	int r;

	if (span_covers(span, base, 0)) {
		tree_replace_leaf(map, entry, 0);
		return 0;
	}
	r = chunk_fill(map, entry, base, span, rec_none, false);
	if (r == 0 && unit_is_zero(tree_node(map, entry_off(*entry))))
		tree_replace_leaf(map, entry, 0);
	return r;
}

/* Drop what the span covers below an entry. Goes on after an error, to return it. */
static int drop_entry(struct pagemap *map, uint64_t *entry, unsigned int level, uint64_t base,
		      struct span span)
{
	int err = 0, r;
	uint64_t *node;
	unsigned int i;

	if (*entry == 0)
		return 0;
	if (level == 0)
		return drop_chunk(map, entry, base, span);
	if (entry_off(*entry) == 0 && span_covers(span, base, level)) {
		arena_publish(entry, 0);
		return 0;
	}
	r = tree_expand(map, entry);
	if (r < 0)
		return r;
	node = tree_node(map, entry_off(*entry));
	for (i = span.first > base ? tree_index(span.first, level - 1) : 0;
	     i < TREE_FANOUT && base + i * tree_cover(level - 1) < span.end; i++) {
		r = drop_entry(map, &node[i], level - 1, base + i * tree_cover(level - 1), span);
		if (r < 0)
			err = r;
	}
	if (level < PAGEMAP_LEVELS && unit_is_zero(node)) {
		arena_off off = entry_off(*entry);

		arena_publish(entry, 0);
		arena_free(&map->family->arena, off);
	}
	return err;
}

int pagemap_drop(struct pagemap *map, uint64_t first, uint64_t n)
{
	struct span span = { .first = first, .end = tree_end(first, n) };
	uint64_t root = map->root;

	if (span.first >= span.end)
		return 0;
	return drop_entry(map, &root, PAGEMAP_LEVELS, 0, span);
}

static bool leaf_is_idle(const struct page_rec *recs)
{
	for (unsigned int i = 0; i < PAGEMAP_LEAF_PAGES; i++)
		if (recs[i].v & ~PAGE_REC_REFERENCED)
			return false;
	return true;
}

static void prune_entry(struct pagemap *map, uint64_t *entry, unsigned int level)
{
	arena_off off = entry_off(*entry);
	uint64_t *node;

	if (off == 0)
		return;
	if (level == 0) {
		if (leaf_is_idle(tree_leaf(map, *entry)))
			tree_replace_leaf(map, entry, 0);
		return;
	}
	node = tree_node(map, off);
	for (unsigned int i = 0; i < TREE_FANOUT; i++)
		prune_entry(map, &node[i], level - 1);
	if (level < PAGEMAP_LEVELS && unit_is_zero(node)) {
		arena_publish(entry, 0);
		arena_free(&map->family->arena, off);
	}
}

void pagemap_prune(struct pagemap *map)
{
	uint64_t root = map->root;

	prune_entry(map, &root, PAGEMAP_LEVELS);
}

static int remove_entry(struct pagemap *map, uint64_t *entry, unsigned int level, uint64_t base,
			struct span span)
{
	int err = 0, r;
	uint64_t *node;
	unsigned int i;

	if (entry_off(*entry) == 0)
		return 0;
	if (level < PAGEMAP_LEVELS && span_covers(span, base, level)) {
		uint64_t old = *entry;

		arena_publish(entry, PAGEMAP_CHUNK_DEFAULT_REMOVED);
		return drop_entry(map, &old, level, base, span);
	}
	if (level == 0)
		return chunk_fill(map, entry, base, span, rec_removed, true);
	node = tree_node(map, entry_off(*entry));
	for (i = span.first > base ? tree_index(span.first, level - 1) : 0;
	     i < TREE_FANOUT && base + i * tree_cover(level - 1) < span.end; i++) {
		r = remove_entry(map, &node[i], level - 1, base + i * tree_cover(level - 1), span);
		if (r < 0)
			err = r;
	}
	return err;
}

int pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n)
{
	struct span span = { .first = first, .end = tree_end(first, n) };
	uint64_t root = map->root;

	if (span.first >= span.end)
		return 0;
	return remove_entry(map, &root, PAGEMAP_LEVELS, 0, span);
}

static void check_entry(struct pagemap *map, uint64_t *entry, unsigned int level, uint64_t base,
			struct span span)
{
	uint64_t *node;
	unsigned int i;

	if (*entry == 0)
		return;
	if (level == 0 || entry_off(*entry) == 0) {
		arena_publish(entry, *entry | PAGEMAP_CHUNK_CHECK);
		return;
	}
	node = tree_node(map, entry_off(*entry));
	for (i = span.first > base ? tree_index(span.first, level - 1) : 0;
	     i < TREE_FANOUT && base + i * tree_cover(level - 1) < span.end; i++)
		check_entry(map, &node[i], level - 1, base + i * tree_cover(level - 1), span);
}

void pagemap_mark_check(struct pagemap *map, uint64_t first, uint64_t n)
{
	struct span span = { .first = first, .end = tree_end(first, n) };
	uint64_t root = map->root;

	if (span.first < span.end)
		check_entry(map, &root, PAGEMAP_LEVELS, 0, span);
}

/* A part of a move that lies in one chunk at both ends. */
struct piece {
	uint64_t from, to, n; /* page indices, pages */
};

static struct piece piece_at(uint64_t from, uint64_t to, uint64_t n)
{
	uint64_t left_from = PAGEMAP_LEAF_PAGES - from % PAGEMAP_LEAF_PAGES;
	uint64_t left_to = PAGEMAP_LEAF_PAGES - to % PAGEMAP_LEAF_PAGES;
	uint64_t left = left_from < left_to ? left_from : left_to;

	return (struct piece){ .from = from, .to = to, .n = n < left ? n : left };
}

static bool piece_is_whole(struct piece piece)
{
	return piece.n == PAGEMAP_LEAF_PAGES;
}

/* Nothing to move: skip as much as the tree says at once. */
static uint64_t piece_empty_pages(const struct pagemap *map, struct piece piece)
{
	unsigned int level;
	uint64_t entry = *tree_find(map, piece.from, &level);
	uint64_t i;

	if (entry == 0)
		return tree_cover(level) - piece.from % tree_cover(level);
	if (entry_off(entry) == 0)
		return 0;
	for (i = 0; i < piece.n; i++) {
		if (tree_leaf(map, entry)[piece.from % PAGEMAP_LEAF_PAGES + i].v != 0)
			return 0;
	}
	return piece.n;
}

/* Everything that may fail; no record changes. */
static int piece_prepare(struct pagemap *map, struct piece piece)
{
	uint64_t *from, *to;
	int r;

	if (!piece_is_whole(piece)) {
		r = tree_make_leaf(map, piece.from, &from);
		return r < 0 ? r : tree_make_leaf(map, piece.to, &to);
	}
	r = tree_make(map, piece.from, &from);
	if (r == 0)
		r = tree_make(map, piece.to, &to);
	if (r == 0 && entry_off(*from) != 0) {
		tree_lock(map);
		r = leaf_refs_reserve(&map->family->arena, entry_off(*from));
		tree_unlock(map);
	}
	return r;
}

/* The destination becomes a sharer of the leaf before the source stops being one. */
static void move_chunk(struct pagemap *map, uint64_t *from, uint64_t *to)
{
	struct arena *arena = &map->family->arena;
	arena_off leaf = entry_off(*from);

	if (leaf != 0 && entry_off(*to) == leaf) {
		/* A crash fell between: it is at both. */
		tree_replace_leaf(map, from, 0);
		return;
	}
	if (leaf == 0) {
		arena_publish(to, *from | PAGEMAP_CHUNK_CHECK);
		arena_publish(from, 0);
		return;
	}
	tree_lock(map);
	(void)leaf_refs_share(arena, leaf); /* piece_prepare made room */
	arena_publish(from, *from | PAGEMAP_CHUNK_SHARED | PAGEMAP_CHUNK_CHECK);
	arena_publish(to, *from);
	arena_publish(from, 0);
	if (leaf_refs_unshare(arena, leaf) == 1) {
		arena_publish(to, leaf | PAGEMAP_CHUNK_CHECK);
		leaf_refs_claim(arena, leaf);
	}
	tree_unlock(map);
}

static void move_record(struct pagemap *map, struct page_rec *from, struct page_rec *to)
{
	struct page_rec rec = *from;
	bool has_slot = page_state_has_slot(page_rec_state(rec));
	int r = -1;

	if (to->v == rec.v) {
		/* A crash fell between: it is at both. */
		tree_store(map, from, rec_none);
		return;
	}
	/* Twice for a moment, so twice referenced; a slot with too many references already
	 * goes without, and shows after a crash in this very moment as one too few. */
	if (has_slot)
		r = family_slot_ref(map->family, page_rec_store(rec), page_rec_slot(rec));
	arena_publish(&to->v, rec.v);
	arena_publish(&from->v, 0);
	if (r == 0)
		family_slot_unref(map->family, page_rec_store(rec), page_rec_slot(rec));
}

static void piece_move(struct pagemap *map, struct piece piece)
{
	unsigned int level;
	uint64_t *from = tree_find(map, piece.from, &level);
	uint64_t *to = tree_find(map, piece.to, &level);
	uint64_t i;

	if (piece_is_whole(piece)) {
		move_chunk(map, from, to);
		return;
	}
	tree_lock(map);
	for (i = 0; i < piece.n; i++) {
		struct page_rec *rec = tree_leaf(map, *from) + piece.from % PAGEMAP_LEAF_PAGES + i;

		if (rec->v != 0)
			move_record(map, rec,
				    tree_leaf(map, *to) + piece.to % PAGEMAP_LEAF_PAGES + i);
	}
	tree_unlock(map);
}

/* Prepare or move all pieces that are not empty. */
static int move_pieces(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n, bool prepare)
{
	while (n > 0) {
		struct piece piece = piece_at(from, to, n);
		uint64_t step = piece_empty_pages(map, piece);
		int r = 0;

		if (step == 0 && prepare)
			r = piece_prepare(map, piece);
		else if (step == 0)
			piece_move(map, piece);
		if (r < 0)
			return r;
		step = step == 0 ? piece.n : step < n ? step : n;
		from += step;
		to += step;
		n -= step;
	}
	return 0;
}

static bool move_is_sane(uint64_t from, uint64_t to, uint64_t n)
{
	uint64_t gap = from < to ? to - from : from - to;

	return n <= TREE_PAGES && from <= TREE_PAGES - n && to <= TREE_PAGES - n && gap >= n;
}

int pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n)
{
	int r;

	if (!move_is_sane(from, to, n))
		return -EINVAL;
	pagemap_mark_check(map, from, n);
	r = move_pieces(map, from, to, n, true);
	pagemap_mark_check(map, to, n);
	if (r == 0)
		(void)move_pieces(map, from, to, n, false);
	/* Leaves that hold nothing, ours alone or absent: this cannot fail. */
	if (r == 0)
		(void)pagemap_drop(map, from, n);
	return r;
}

int pagemap_move(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n)
{
	int r = move_is_sane(from, to, n) ? pagemap_drop(map, to, n) : -EINVAL;

	if (r < 0)
		return r;
	r = pagemap_move_onto(map, from, to, n);
	if (r < 0)
		(void)pagemap_drop(map, to, n);
	return r;
}
