/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "fixture.h"
#include "leaf_refs.h"
#include "pagemap.h"
#include "pagemap_check.h"
#include "pagemap_tree.h"

#define LEAF PAGEMAP_LEAF_PAGES
/* Across a boundary of every level: the chunk before it and the chunk after it. */
#define EDGE (1ull << 44)

static struct family *family;
static struct pagemap maps[3];
static unsigned int n_maps;
static struct pagemap *const map = &maps[0];

static void setup(void)
{
	family = check_family(4000, 20000);
	ck_assert_int_eq(pagemap_init(map, family), 0);
	n_maps = 1;
}

static void teardown(void)
{
	while (n_maps > 0) {
		check_books(family, maps, n_maps);
		pagemap_deinit(&maps[--n_maps]);
	}
	check_books(family, maps, 0);
	family_unref(family);
}

static struct pagemap *fork_map(void)
{
	ck_assert_int_eq(pagemap_fork(map, &maps[n_maps]), 0);
	return &maps[n_maps++];
}

static void set(struct pagemap *where, uint64_t pgidx, struct page_rec rec)
{
	ck_assert_int_eq(pagemap_set(where, pgidx, rec), 0);
}

/* Put a page away; its slot. */
static uint64_t store(struct pagemap *where, uint64_t pgidx)
{
	struct page_rec rec = check_stored(family);

	set(where, pgidx, rec);
	return page_rec_slot(rec);
}

static enum page_state state(const struct pagemap *where, uint64_t pgidx)
{
	return page_rec_state(pagemap_get(where, pgidx));
}

static uint64_t slot(const struct pagemap *where, uint64_t pgidx)
{
	return page_rec_slot(pagemap_get(where, pgidx));
}

static const struct page_rec none = { .v = 0 };

START_TEST(an_empty_map_says_resident_everywhere)
{
	ck_assert_uint_eq(pagemap_get(map, 0).v, 0);
	ck_assert_uint_eq(pagemap_get(map, EDGE).v, 0);
	ck_assert_uint_eq(pagemap_get(map, TREE_PAGES - 1).v, 0);
	ck_assert_uint_eq(pagemap_get(map, TREE_PAGES).v, 0);
	ck_assert_uint_eq(pagemap_get(map, UINT64_MAX).v, 0);
}
END_TEST

START_TEST(a_record_is_found_where_it_was_put)
{
	uint64_t at[] = { 0, LEAF - 1, LEAF, EDGE - 1, EDGE, TREE_PAGES - 1 };
	uint64_t slots[6];

	for (int i = 0; i < 6; i++)
		slots[i] = store(map, at[i]);
	for (int i = 0; i < 6; i++)
		ck_assert_uint_eq(slot(map, at[i]), slots[i]);
	ck_assert_uint_eq(map->n_away, 6);
	ck_assert_uint_eq(map->n_leaves, 5);
}
END_TEST

START_TEST(an_index_beyond_the_tree_is_refused)
{
	ck_assert_int_eq(pagemap_set(map, TREE_PAGES, (struct page_rec){ PAGE_POISONED }), -EINVAL);
	ck_assert_int_eq(pagemap_set(map, UINT64_MAX, none), -EINVAL);
}
END_TEST

START_TEST(zero_where_nothing_is_needs_no_leaf)
{
	uint64_t n_free = family->arena.header->n_free;

	set(map, 12345, none);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
	ck_assert_uint_eq(map->n_leaves, 0);
}
END_TEST

START_TEST(a_replaced_record_gives_its_slot_back)
{
	uint64_t old = store(map, 5), new = store(map, 5);

	ck_assert_uint_eq(check_slot_count(family, old), 0);
	ck_assert_uint_eq(check_slot_count(family, new), 1);
	set(map, 5, none);
	ck_assert_uint_eq(check_slot_count(family, new), 0);
	ck_assert_uint_eq(map->n_away, 0);
}
END_TEST

START_TEST(the_same_slot_keeps_its_one_reference)
{
	uint64_t kept = store(map, 5);

	set(map, 5, page_rec_move(pagemap_get(map, 5), PAGE_COMING));
	ck_assert_uint_eq(check_slot_count(family, kept), 1);
	ck_assert_uint_eq(map->n_away, 1);
	set(map, 5, pagemap_get(map, 5));
	ck_assert_uint_eq(check_slot_count(family, kept), 1);
}
END_TEST

START_TEST(poisoned_pages_are_counted)
{
	set(map, 5, (struct page_rec){ PAGE_POISONED });
	ck_assert_uint_eq(map->n_poisoned, 1);
	set(map, 5, (struct page_rec){ PAGE_POISONED });
	ck_assert_uint_eq(map->n_poisoned, 1);
	ck_assert_int_eq(pagemap_remove(map, 5, 1), 0);
	ck_assert_uint_eq(map->n_poisoned, 0);
}
END_TEST

START_TEST(fork_copies_inner_nodes_only)
{
	uint64_t n_free, taken;

	arena_reserve(&family->arena, 100);
	for (uint64_t i = 0; i < 50; i++)
		store(map, i * LEAF);
	n_free = family->arena.header->n_free;
	fork_map();
	taken = n_free - family->arena.header->n_free;
	/* 4 inner nodes for the child, 3 units for the first sharing counts */
	ck_assert_uint_eq(taken, 7);
	ck_assert_uint_eq(maps[1].n_away, 50);
	ck_assert_uint_eq(maps[1].n_leaves, 50);
}
END_TEST

START_TEST(after_fork_both_sides_see_the_same)
{
	uint64_t first = store(map, 7);
	struct pagemap *child = fork_map();

	ck_assert_uint_eq(slot(child, 7), first);
	ck_assert_uint_eq(check_slot_count(family, first), 1);
	ck_assert_uint_ne(pagemap_chunk_flags(map, 7) & PAGEMAP_CHUNK_SHARED, 0);
	ck_assert_uint_ne(pagemap_chunk_flags(child, 7) & PAGEMAP_CHUNK_SHARED, 0);
}
END_TEST

START_TEST(a_change_after_fork_is_not_seen_by_the_other)
{
	uint64_t a = store(map, 7), b = store(map, 8);
	struct pagemap *child = fork_map();

	set(map, 7, none);
	ck_assert_uint_eq(slot(child, 7), a);
	ck_assert_uint_eq(check_slot_count(family, a), 1);
	ck_assert_uint_eq(check_slot_count(family, b), 2);
	ck_assert_uint_eq(map->n_away, 1);
	ck_assert_uint_eq(child->n_away, 2);
}
END_TEST

START_TEST(the_last_sharer_takes_the_leaf_as_it_is)
{
	uint64_t a = store(map, 7), n_free;

	fork_map();
	pagemap_deinit(&maps[--n_maps]);
	ck_assert_uint_eq(check_slot_count(family, a), 1);
	n_free = family->arena.header->n_free;
	set(map, 8, (struct page_rec){ PAGE_REMOVED });
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 7) & PAGEMAP_CHUNK_SHARED, 0);
}
END_TEST

START_TEST(setting_what_is_there_copies_nothing)
{
	uint64_t n_free;

	store(map, 7);
	fork_map();
	n_free = family->arena.header->n_free;
	set(map, 7, pagemap_get(map, 7));
	ck_assert_int_eq(pagemap_drop(map, 100, 50), 0);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
}
END_TEST

START_TEST(the_parent_may_go_first)
{
	uint64_t a = store(map, 7);
	struct pagemap *child = fork_map();

	ck_assert_int_eq(pagemap_drop(map, 0, TREE_PAGES), 0);
	ck_assert_uint_eq(map->n_leaves, 0);
	ck_assert_uint_eq(map->n_away, 0);
	ck_assert_uint_eq(slot(child, 7), a);
	ck_assert_uint_eq(check_slot_count(family, a), 1);
}
END_TEST

START_TEST(too_many_references_change_nothing)
{
	uint64_t a = store(map, 7), b = store(map, 8);
	struct pagemap *child = fork_map();
	struct slots_root *root = &family_store(family, 1)->unit->slots;
	uint64_t n_free = family->arena.header->n_free;

	while (slots_ref(&family->arena, root, b) == 0)
		;
	ck_assert_int_eq(pagemap_set(child, 7, none), -EOVERFLOW);
	ck_assert_int_eq(pagemap_drop(child, 7, 1), -EOVERFLOW);
	ck_assert_int_eq(pagemap_remove(child, 7, 1), -EOVERFLOW);
	ck_assert_uint_eq(slot(child, 7), a);
	ck_assert_uint_eq(check_slot_count(family, a), 1);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
	while (slots_count(&family->arena, root, b) > 1)
		slots_unref(&family->arena, root, b);
}
END_TEST

START_TEST(drop_in_part_keeps_the_rest)
{
	uint64_t a = store(map, LEAF - 1), b = store(map, LEAF), c = store(map, LEAF + 1);

	ck_assert_int_eq(pagemap_drop(map, LEAF - 1, 2), 0);
	ck_assert_uint_eq(check_slot_count(family, a), 0);
	ck_assert_uint_eq(check_slot_count(family, b), 0);
	ck_assert_uint_eq(slot(map, LEAF + 1), c);
	ck_assert_uint_eq(map->n_leaves, 1);
}
END_TEST

START_TEST(what_was_dropped_leaves_no_unit_behind)
{
	uint64_t n_free;

	arena_reserve(&family->arena, 64);
	n_free = family->arena.header->n_free;
	for (uint64_t i = 0; i < 8; i++)
		store(map, EDGE - 4 * LEAF + i * LEAF + i);
	for (uint64_t i = 0; i < 8; i++)
		ck_assert_int_eq(pagemap_drop(map, EDGE - 4 * LEAF + i * LEAF + i, 1), 0);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
}
END_TEST

START_TEST(drop_of_wild_ranges_is_clipped)
{
	store(map, TREE_PAGES - 1);
	ck_assert_int_eq(pagemap_drop(map, TREE_PAGES + 5, 7), 0);
	ck_assert_int_eq(pagemap_drop(map, 3, 0), 0);
	ck_assert_uint_eq(map->n_away, 1);
	ck_assert_int_eq(pagemap_drop(map, 3, UINT64_MAX), 0);
	ck_assert_uint_eq(map->n_away, 0);
}
END_TEST

START_TEST(removed_chunks_have_no_leaf)
{
	uint64_t a = store(map, 3 * LEAF);

	for (uint64_t i = 1; i < 5; i++)
		store(map, i * LEAF + 11);
	ck_assert_int_eq(pagemap_remove(map, LEAF, 4 * LEAF), 0);
	ck_assert_uint_eq(check_slot_count(family, a), 0);
	ck_assert_uint_eq(map->n_leaves, 0);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 2 * LEAF), PAGEMAP_CHUNK_DEFAULT_REMOVED);
	ck_assert_int_eq(state(map, LEAF - 1), PAGE_RESIDENT);
	ck_assert_int_eq(state(map, LEAF), PAGE_REMOVED);
	ck_assert_int_eq(state(map, 5 * LEAF - 1), PAGE_REMOVED);
	ck_assert_int_eq(state(map, 5 * LEAF), PAGE_RESIDENT);
}
END_TEST

START_TEST(a_record_in_a_removed_chunk_keeps_its_neighbours_removed)
{
	store(map, 9);
	ck_assert_int_eq(pagemap_remove(map, 0, LEAF), 0);
	store(map, 9);
	ck_assert_int_eq(state(map, 8), PAGE_REMOVED);
	ck_assert_int_eq(state(map, 10), PAGE_REMOVED);
	set(map, 10, none);
	ck_assert_int_eq(state(map, 10), PAGE_RESIDENT);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 9), 0);
}
END_TEST

START_TEST(removing_huge_ranges_takes_no_units)
{
	uint64_t n_free, n = 1ull << 35;

	arena_reserve(&family->arena, 64);
	n_free = family->arena.header->n_free;
	store(map, 76);
	store(map, 78);
	store(map, n / 4 + 1);
	store(map, n / 2);
	store(map, 77 + n);
	ck_assert_int_eq(pagemap_remove(map, 77, n), 0);
	ck_assert_int_eq(state(map, 76), PAGE_STORED);
	ck_assert_int_eq(state(map, 78), PAGE_REMOVED);
	ck_assert_int_eq(state(map, n / 2), PAGE_REMOVED);
	ck_assert_int_eq(state(map, 77 + n), PAGE_STORED);
	ck_assert_uint_eq(map->n_leaves, 2);
	store(map, n / 2);
	ck_assert_int_eq(state(map, n / 2 + 1), PAGE_REMOVED);
	ck_assert_int_eq(state(map, n / 4), PAGE_REMOVED);
	ck_assert_int_eq(pagemap_drop(map, n / 4, 1), 0);
	ck_assert_int_eq(state(map, n / 4), PAGE_RESIDENT);
	ck_assert_int_eq(state(map, n / 4 + 1), PAGE_REMOVED);
	ck_assert_int_eq(pagemap_drop(map, 0, 2 * n), 0);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
}
END_TEST

START_TEST(removing_what_was_never_recorded_takes_no_units)
{
	uint64_t n_free = family->arena.header->n_free;

	/* A page in each chunk, a chunk in each larger region, and all that there is. */
	for (uint64_t i = 0; i < 20000; i++)
		ck_assert_int_eq(pagemap_remove(map, i * LEAF + 3, 1), 0);
	for (uint64_t i = 0; i < 500; i++)
		ck_assert_int_eq(pagemap_remove(map, i << 27, LEAF), 0);
	ck_assert_int_eq(pagemap_remove(map, 5, TREE_PAGES), 0);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
	ck_assert_uint_eq(map->n_leaves, 0);
}
END_TEST

START_TEST(removing_a_part_spares_what_has_no_record)
{
	store(map, 3);
	ck_assert_int_eq(pagemap_remove(map, 2, 3), 0);
	ck_assert_int_eq(state(map, 2), PAGE_RESIDENT);
	ck_assert_int_eq(state(map, 3), PAGE_REMOVED);
	ck_assert_int_eq(state(map, 4), PAGE_RESIDENT);
}
END_TEST

START_TEST(removing_twice_is_removing)
{
	store(map, 3);
	ck_assert_int_eq(pagemap_remove(map, 2, 3), 0);
	ck_assert_int_eq(pagemap_remove(map, 2, 3), 0);
	ck_assert_int_eq(pagemap_remove(map, 0, LEAF), 0);
	ck_assert_int_eq(pagemap_remove(map, 0, LEAF), 0);
	ck_assert_int_eq(pagemap_remove(map, 7, 1), 0);
	ck_assert_uint_eq(map->n_leaves, 0);
}
END_TEST

START_TEST(pruning_gives_back_what_says_nothing)
{
	uint64_t a = store(map, 3 * LEAF + 5);

	for (uint64_t i = 0; i < 6; i++)
		set(map, i * LEAF, (struct page_rec){ PAGE_REC_REFERENCED });
	set(map, LEAF + 1, (struct page_rec){ PAGE_POISONED });
	set(map, 2 * LEAF + 1, (struct page_rec){ PAGE_REMOVED });
	set(map, EDGE, none);
	fork_map();
	pagemap_prune(map);
	ck_assert_uint_eq(map->n_leaves, 3);
	ck_assert_uint_eq(slot(map, 3 * LEAF + 5), a);
	ck_assert_int_eq(state(map, LEAF + 1), PAGE_POISONED);
	ck_assert_int_eq(state(map, 2 * LEAF + 1), PAGE_REMOVED);
	ck_assert_uint_eq(maps[1].n_leaves, 6);
	pagemap_deinit(&maps[--n_maps]);
	ck_assert_int_eq(pagemap_drop(map, 0, 4 * LEAF), 0);
	pagemap_prune(map);
	ck_assert_uint_eq(map->n_leaves, 0);
	check_books(family, maps, n_maps);
}
END_TEST

START_TEST(fork_keeps_what_is_removed)
{
	store(map, 1ull << 29);
	ck_assert_int_eq(pagemap_remove(map, 0, 1ull << 30), 0);
	ck_assert_int_eq(state(fork_map(), 1ull << 29), PAGE_REMOVED);
}
END_TEST

START_TEST(a_whole_chunk_moves_without_copying)
{
	uint64_t a = store(map, 3 * LEAF + 9), n_free;
	struct page_rec *leaf;

	set(map, EDGE, (struct page_rec){ PAGE_POISONED });
	ck_assert_int_eq(pagemap_move(map, LEAF, EDGE, 4 * LEAF), 0);
	n_free = family->arena.header->n_free;
	ck_assert_uint_eq(slot(map, EDGE + 2 * LEAF + 9), a);
	ck_assert_uint_eq(map->n_poisoned, 0);
	ck_assert_uint_eq(pagemap_get(map, 3 * LEAF + 9).v, 0);
	ck_assert_uint_eq(map->n_leaves, 1);
	ck_assert_uint_eq(check_slot_count(family, a), 1);
	ck_assert_uint_eq(pagemap_chunk_flags(map, EDGE + 2 * LEAF), PAGEMAP_CHUNK_CHECK);
	leaf = tree_leaf(map, *tree_find(map, EDGE + 2 * LEAF, &(unsigned int){ 0 }));
	ck_assert_uint_eq(page_rec_slot(leaf[9]), a);
	ck_assert_uint_ge(n_free, 1);
}
END_TEST

START_TEST(an_uneven_move_moves_each_record)
{
	uint64_t slots[1200];

	for (uint64_t i = 0; i < 1200; i++)
		slots[i] = store(map, 100 + i);
	ck_assert_int_eq(pagemap_move(map, 100, EDGE - 77, 1200), 0);
	for (uint64_t i = 0; i < 1200; i++) {
		ck_assert_uint_eq(slot(map, EDGE - 77 + i), slots[i]);
		ck_assert_uint_eq(check_slot_count(family, slots[i]), 1);
	}
	ck_assert_uint_eq(map->n_away, 1200);
	ck_assert_uint_eq(map->n_leaves, 4);
	ck_assert_uint_eq(pagemap_chunk_flags(map, EDGE - 1), PAGEMAP_CHUNK_CHECK);
}
END_TEST

START_TEST(a_move_within_a_chunk_works)
{
	uint64_t a = store(map, 3), b = store(map, 9);

	ck_assert_int_eq(pagemap_move(map, 0, 8, 8), 0);
	ck_assert_uint_eq(slot(map, 11), a);
	ck_assert_uint_eq(check_slot_count(family, b), 0);
	ck_assert_uint_eq(pagemap_get(map, 3).v, 0);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 0), PAGEMAP_CHUNK_CHECK);
}
END_TEST

START_TEST(a_move_checks_both_sides)
{
	store(map, 0);
	store(map, 200);
	store(map, 5 * LEAF + 100);
	ck_assert_int_eq(pagemap_move(map, 150, 5 * LEAF, 100), 0);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 0), PAGEMAP_CHUNK_CHECK);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 5 * LEAF), PAGEMAP_CHUNK_CHECK);
}
END_TEST

START_TEST(a_move_takes_removed_pages_along)
{
	for (uint64_t i = 0; i < 3; i++)
		store(map, i * LEAF + 9);
	ck_assert_int_eq(pagemap_remove(map, 0, 3 * LEAF), 0);
	ck_assert_int_eq(pagemap_move(map, LEAF - 5, EDGE, LEAF + 10), 0);
	ck_assert_int_eq(state(map, LEAF - 6), PAGE_REMOVED);
	ck_assert_int_eq(state(map, LEAF - 5), PAGE_RESIDENT);
	ck_assert_int_eq(state(map, 2 * LEAF + 4), PAGE_RESIDENT);
	ck_assert_int_eq(state(map, 2 * LEAF + 5), PAGE_REMOVED);
	ck_assert_int_eq(state(map, EDGE), PAGE_REMOVED);
	ck_assert_int_eq(state(map, EDGE + LEAF + 9), PAGE_REMOVED);
	ck_assert_int_eq(state(map, EDGE + LEAF + 10), PAGE_RESIDENT);
	ck_assert_int_eq(pagemap_move(map, 0, EDGE, LEAF), 0);
	ck_assert_int_eq(state(map, EDGE + 3), PAGE_REMOVED);
}
END_TEST

START_TEST(a_move_of_a_shared_chunk_leaves_the_other_side_alone)
{
	uint64_t a = store(map, 3);
	struct pagemap *child = fork_map();

	ck_assert_int_eq(pagemap_move(child, 0, 8 * LEAF, LEAF), 0);
	ck_assert_uint_eq(slot(map, 3), a);
	ck_assert_uint_eq(slot(child, 8 * LEAF + 3), a);
	ck_assert_uint_eq(check_slot_count(family, a), 1);
	ck_assert_int_eq(pagemap_move(child, 8 * LEAF, 1, 20), 0);
	ck_assert_uint_eq(slot(map, 3), a);
	ck_assert_uint_eq(slot(child, 4), a);
	ck_assert_uint_eq(check_slot_count(family, a), 2);
}
END_TEST

START_TEST(overlapping_and_wild_moves_are_refused)
{
	ck_assert_int_eq(pagemap_move(map, 0, 5, 6), -EINVAL);
	ck_assert_int_eq(pagemap_move(map, 5, 0, 6), -EINVAL);
	ck_assert_int_eq(pagemap_move(map, 0, TREE_PAGES - 5, 6), -EINVAL);
	ck_assert_int_eq(pagemap_move(map, UINT64_MAX, 0, 6), -EINVAL);
	ck_assert_int_eq(pagemap_move(map, 0, 6, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(pagemap_move(map, 4, 4, 0), 0);
}
END_TEST

START_TEST(check_is_set_only_where_something_is)
{
	store(map, 5);
	store(map, 2 * LEAF);
	ck_assert_int_eq(pagemap_remove(map, 2 * LEAF, LEAF), 0);
	pagemap_mark_check(map, 0, 4 * LEAF);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 0), PAGEMAP_CHUNK_CHECK);
	ck_assert_uint_eq(pagemap_chunk_flags(map, LEAF), 0);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 2 * LEAF),
			  PAGEMAP_CHUNK_CHECK | PAGEMAP_CHUNK_DEFAULT_REMOVED);
	pagemap_chunk_clear_check(map, 7);
	pagemap_chunk_clear_check(map, 2 * LEAF);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 0), 0);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 2 * LEAF), PAGEMAP_CHUNK_DEFAULT_REMOVED);
	ck_assert_uint_eq(pagemap_chunk_flags(map, UINT64_MAX), 0);
	pagemap_chunk_clear_check(map, UINT64_MAX);
}
END_TEST

START_TEST(check_is_kept_when_a_chunk_gets_its_leaf)
{
	store(map, 1);
	ck_assert_int_eq(pagemap_remove(map, 0, LEAF), 0);
	pagemap_mark_check(map, 0, 1);
	store(map, 1);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 0), PAGEMAP_CHUNK_CHECK);
	fork_map();
	store(map, 2);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 0), PAGEMAP_CHUNK_CHECK);
	ck_assert_uint_eq(pagemap_chunk_flags(&maps[1], 0),
			  PAGEMAP_CHUNK_CHECK | PAGEMAP_CHUNK_SHARED);
}
END_TEST

START_TEST(check_on_a_removed_region_ends_with_a_record)
{
	store(map, 0);
	ck_assert_int_eq(pagemap_remove(map, 0, 1ull << 18), 0);
	pagemap_mark_check(map, 3 * LEAF, 1);
	pagemap_chunk_clear_check(map, 3 * LEAF);
	ck_assert_uint_ne(pagemap_chunk_flags(map, 3 * LEAF) & PAGEMAP_CHUNK_CHECK, 0);
	store(map, 3 * LEAF);
	pagemap_chunk_clear_check(map, 3 * LEAF);
	ck_assert_uint_eq(pagemap_chunk_flags(map, 3 * LEAF), 0);
}
END_TEST

START_TEST(next_finds_away_and_poisoned_in_order)
{
	uint64_t at[] = { 3, LEAF, EDGE - 1, EDGE + 5 * LEAF, TREE_PAGES - 1 }, i;
	struct page_rec rec;
	int n = 0;

	for (int k = 0; k < 4; k++)
		store(map, at[k]);
	set(map, at[4], (struct page_rec){ PAGE_POISONED });
	set(map, 4, (struct page_rec){ PAGE_REC_REFERENCED });
	ck_assert_int_eq(pagemap_remove(map, 10, 5), 0);
	for (i = 0; (i = pagemap_next(map, i, UINT64_MAX, &rec)) < UINT64_MAX; i++) {
		ck_assert_uint_eq(i, at[n++]);
		ck_assert_uint_eq(rec.v, pagemap_get(map, i).v);
	}
	ck_assert_int_eq(n, 5);
	ck_assert_uint_eq(pagemap_next(map, 4, LEAF, &rec), LEAF);
	ck_assert_uint_eq(pagemap_next(map, 9, 4, &rec), 4);
}
END_TEST

START_TEST(next_slot_finds_what_is_leaving_too)
{
	struct page_rec rec = check_stored(family);
	struct page_rec leaving =
		page_rec_make(PAGE_LEAVING, page_rec_store(rec), page_rec_slot(rec));
	set(map, 5, leaving);
	set(map, 6, (struct page_rec){ PAGE_POISONED });
	store(map, LEAF + 1);
	ck_assert_uint_eq(pagemap_next(map, 0, LEAF, &rec), 6);
	ck_assert_uint_eq(pagemap_next_slot(map, 0, LEAF, &rec), 5);
	ck_assert_uint_eq(rec.v, leaving.v);
	ck_assert_uint_eq(pagemap_next_slot(map, 6, UINT64_MAX, &rec), LEAF + 1);
}
END_TEST

START_TEST(any_away_skips_the_poisoned)
{
	set(map, 3, (struct page_rec){ PAGE_POISONED });
	ck_assert(!pagemap_any_away(map, 0, TREE_PAGES));
	store(map, LEAF + 3);
	ck_assert(pagemap_any_away(map, 0, UINT64_MAX));
	ck_assert(!pagemap_any_away(map, 0, LEAF + 3));
	ck_assert(pagemap_any_away(map, LEAF + 3, 1));
	ck_assert(!pagemap_any_away(map, LEAF + 4, LEAF));
}
END_TEST

START_TEST(a_reserved_range_needs_no_unit)
{
	uint64_t n_free;

	store(map, LEAF);
	fork_map();
	ck_assert_int_eq(pagemap_reserve(map, 5, 3 * LEAF), 0);
	n_free = family->arena.header->n_free;
	for (uint64_t i = 5; i < 3 * LEAF + 5; i++)
		set(map, i, (struct page_rec){ PAGE_POISONED });
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
}
END_TEST

START_TEST(deinit_of_nothing_is_fine)
{
	struct pagemap empty = PAGEMAP_NULL;

	pagemap_deinit(&empty);
}
END_TEST

/* Everything that takes units, in one scenario; returns how many calls failed. */
static int scenario(struct pagemap *where)
{
	uint64_t kept = 0;
	int failed = 0, r;

	for (uint64_t i = 0; i < 8; i++) {
		struct page_rec rec = check_stored(family);

		r = pagemap_set(where, i * LEAF + 7, rec);
		failed += r < 0;
		if (r < 0)
			check_forget(family, rec);
	}
	failed += pagemap_remove(where, 6 * LEAF, LEAF + 9) < 0;
	check_books(family, maps, n_maps);
	r = pagemap_fork(where, &maps[n_maps]);
	failed += r < 0;
	n_maps += r == 0 ? 1 : 0;
	check_books(family, maps, n_maps);
	failed += pagemap_drop(where, 7, 1) < 0;
	failed += pagemap_reserve(where, LEAF, 1) < 0;
	failed += pagemap_remove(where, 2 * LEAF + 5, 3) < 0;
	check_books(family, maps, n_maps);
	kept = pagemap_get(where, 3 * LEAF + 7).v;
	r = pagemap_move(where, 2 * LEAF, EDGE - 3 * LEAF, 5 * LEAF);
	failed += r < 0;
	if (r < 0)
		ck_assert_uint_eq(pagemap_get(where, 3 * LEAF + 7).v, kept);
	check_books(family, maps, n_maps);
	failed += pagemap_move(where, EDGE - 3 * LEAF, 9 * LEAF + 5, 5 * LEAF) < 0;
	check_books(family, maps, n_maps);
	return failed;
}

START_TEST(every_growth_may_fail)
{
	int failed = 1;
	uint64_t room;

	pagemap_deinit(map);
	n_maps = 0;
	for (room = 0; failed > 0; room++) {
		ck_assert_uint_lt(room, 200);
		family_unref(family);
		family = check_family(4 + room, 40);
		check_books(family, maps, 0);
		if (pagemap_init(map, family) < 0)
			continue;
		n_maps = 1;
		failed = scenario(map);
		while (n_maps > 0)
			pagemap_deinit(&maps[--n_maps]);
		check_books(family, maps, 0);
	}
	ck_assert_uint_ge(room, 30);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pagemap");
	TCase *tcase = tcase_create("pagemap");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, an_empty_map_says_resident_everywhere);
	tcase_add_test(tcase, a_record_is_found_where_it_was_put);
	tcase_add_test(tcase, an_index_beyond_the_tree_is_refused);
	tcase_add_test(tcase, zero_where_nothing_is_needs_no_leaf);
	tcase_add_test(tcase, a_replaced_record_gives_its_slot_back);
	tcase_add_test(tcase, the_same_slot_keeps_its_one_reference);
	tcase_add_test(tcase, poisoned_pages_are_counted);
	tcase_add_test(tcase, fork_copies_inner_nodes_only);
	tcase_add_test(tcase, after_fork_both_sides_see_the_same);
	tcase_add_test(tcase, a_change_after_fork_is_not_seen_by_the_other);
	tcase_add_test(tcase, the_last_sharer_takes_the_leaf_as_it_is);
	tcase_add_test(tcase, setting_what_is_there_copies_nothing);
	tcase_add_test(tcase, the_parent_may_go_first);
	tcase_add_test(tcase, too_many_references_change_nothing);
	tcase_add_test(tcase, drop_in_part_keeps_the_rest);
	tcase_add_test(tcase, what_was_dropped_leaves_no_unit_behind);
	tcase_add_test(tcase, drop_of_wild_ranges_is_clipped);
	tcase_add_test(tcase, removed_chunks_have_no_leaf);
	tcase_add_test(tcase, a_record_in_a_removed_chunk_keeps_its_neighbours_removed);
	tcase_add_test(tcase, removing_huge_ranges_takes_no_units);
	tcase_add_test(tcase, removing_what_was_never_recorded_takes_no_units);
	tcase_add_test(tcase, removing_a_part_spares_what_has_no_record);
	tcase_add_test(tcase, removing_twice_is_removing);
	tcase_add_test(tcase, pruning_gives_back_what_says_nothing);
	tcase_add_test(tcase, fork_keeps_what_is_removed);
	tcase_add_test(tcase, a_whole_chunk_moves_without_copying);
	tcase_add_test(tcase, an_uneven_move_moves_each_record);
	tcase_add_test(tcase, a_move_within_a_chunk_works);
	tcase_add_test(tcase, a_move_checks_both_sides);
	tcase_add_test(tcase, a_move_takes_removed_pages_along);
	tcase_add_test(tcase, a_move_of_a_shared_chunk_leaves_the_other_side_alone);
	tcase_add_test(tcase, overlapping_and_wild_moves_are_refused);
	tcase_add_test(tcase, check_is_set_only_where_something_is);
	tcase_add_test(tcase, check_is_kept_when_a_chunk_gets_its_leaf);
	tcase_add_test(tcase, check_on_a_removed_region_ends_with_a_record);
	tcase_add_test(tcase, next_finds_away_and_poisoned_in_order);
	tcase_add_test(tcase, next_slot_finds_what_is_leaving_too);
	tcase_add_test(tcase, any_away_skips_the_poisoned);
	tcase_add_test(tcase, a_reserved_range_needs_no_unit);
	tcase_add_test(tcase, deinit_of_nothing_is_fine);
	tcase_add_test(tcase, every_growth_may_fail);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
