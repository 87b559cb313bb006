/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pagemap_check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_tier.h"
#include "fixture.h"
#include "leaf_refs.h"
#include "pagemap_tree.h"

struct books {
	struct family *family;
	uint32_t *slots;      /* references by records of distinct leaves */
	uint32_t *users;      /* entries that lead to a unit as a leaf */
	unsigned char *shared; /* one of them says SHARED */
	uint64_t n_units;     /* in use, as far as seen */
	struct pagemap counted; /* of the map in hand */
};

struct family *check_family(uint64_t n_units, uint64_t n_slots)
{
	struct family *family;
	struct store *store;

	ck_assert_int_eq(family_new((uint64_t)getpid(), fixture_dir, n_units * ARENA_UNIT,
				    &family), 0);
	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 1, &store), 0);
	ck_assert_int_eq(slots_grow(&family->arena, &store->unit->slots, n_slots), 0);
	return family;
}

struct page_rec check_stored(struct family *family)
{
	struct slots_run run;
	uint32_t taken;

	pthread_mutex_lock(&family->lock);
	(void)slots_alloc(&family->arena, &family_store(family, 1)->unit->slots, 1, &run, 1,
			  &taken);
	pthread_mutex_unlock(&family->lock);
	fixture_must(taken == 1, "no slot is free");
	return page_rec_make(PAGE_STORED, 1, run.slot);
}

uint32_t check_slot_count(struct family *family, uint64_t slot)
{
	return slots_count(&family->arena, &family_store(family, 1)->unit->slots, slot);
}

void check_forget(struct family *family, struct page_rec rec)
{
	pthread_mutex_lock(&family->lock);
	family_slot_unref(family, page_rec_store(rec), page_rec_slot(rec));
	pthread_mutex_unlock(&family->lock);
}

static void count_leaf(struct books *books, const struct pagemap *map, uint64_t entry)
{
	uint64_t unit = entry_off(entry) / ARENA_UNIT;
	bool first = books->users[unit]++ == 0;

	books->counted.n_leaves++;
	books->shared[unit] |= (entry & PAGEMAP_CHUNK_SHARED) != 0;
	books->n_units += first ? 1 : 0;
	for (unsigned int i = 0; i < PAGEMAP_LEAF_PAGES; i++) {
		struct page_rec rec = tree_leaf(map, entry)[i];

		books->counted.n_away += page_state_is_away(page_rec_state(rec)) ? 1 : 0;
		books->counted.n_poisoned += page_rec_state(rec) == PAGE_POISONED ? 1 : 0;
		if (first && page_state_has_slot(page_rec_state(rec)))
			books->slots[page_rec_slot(rec)]++;
	}
}

/* An entry of this level and what is below it. */
static void count_entry(struct books *books, const struct pagemap *map, uint64_t entry,
			unsigned int level)
{
	if (entry_off(entry) == 0) {
		fixture_must(entry == 0 || (entry & PAGEMAP_CHUNK_DEFAULT_REMOVED) != 0,
			     "CHECK alone");
		return;
	}
	if (level == 0) {
		count_leaf(books, map, entry);
		return;
	}
	fixture_must((entry & TREE_FLAGS_MASK) == 0, "a node with flags");
	books->n_units++;
	for (unsigned int i = 0; i < TREE_FANOUT; i++)
		count_entry(books, map, tree_node(map, entry)[i], level - 1);
}

/* The units of a table of `levels` levels of offsets over units of counts. */
static uint64_t count_table(const struct arena *arena, arena_off off, unsigned int levels)
{
	uint64_t n = 1;

	if (off == 0)
		return 0;
	for (unsigned int i = 0; levels > 0 && i < ARENA_UNIT / sizeof(arena_off); i++)
		n += count_table(arena, ((arena_off *)arena_ptr(arena, off))[i], levels - 1);
	return n;
}

static void count_others(struct books *books)
{
	const struct arena *arena = &books->family->arena;

	books->n_units += 1 + count_table(arena, arena->header->leaf_refs, 2);
	for (unsigned int i = 1; i <= FAMILY_STORES_MAX; i++) {
		struct store *store = family_store(books->family, i);

		if (store == NULL)
			continue;
		books->n_units++;
		for (unsigned int k = 0; k < 8; k++)
			books->n_units += count_table(arena, store->unit->slots.dirs[k], 1);
	}
}

static void check_shares(struct books *books)
{
	for (uint64_t unit = 1; unit < books->family->arena.header->n_units; unit++) {
		uint32_t users = books->users[unit];

		if (books->shared[unit])
			fixture_must(leaf_refs_count(&books->family->arena, unit * ARENA_UNIT) ==
					     users, "%u users", users);
		else
			fixture_must(users <= 1, "%u users", users);
	}
}

static void check_slots(struct books *books)
{
	const struct slots_root *root = &family_store(books->family, 1)->unit->slots;
	uint64_t n_used = 0;

	for (uint64_t slot = 0; slot < root->n_slots; slot++) {
		fixture_must(check_slot_count(books->family, slot) == books->slots[slot],
			     "slot %llu: count %u, records %u", (unsigned long long)slot,
			     check_slot_count(books->family, slot), books->slots[slot]);
		n_used += books->slots[slot] > 0 ? 1 : 0;
	}
	ck_assert_uint_eq(root->n_used, n_used);
}

void check_books(struct family *family, const struct pagemap *maps, unsigned int n_maps)
{
	const struct arena_header *header = family->arena.header;
	struct books books = {
		.family = family,
		.slots = calloc(family_store(family, 1)->unit->slots.n_slots + 1, 4),
		.users = calloc(header->n_units, 4),
		.shared = calloc(header->n_units, 1),
	};

	for (unsigned int i = 0; i < n_maps; i++) {
		books.counted = PAGEMAP_NULL;
		count_entry(&books, &maps[i], maps[i].root, PAGEMAP_LEVELS);
		ck_assert_uint_eq(books.counted.n_away, maps[i].n_away);
		ck_assert_uint_eq(books.counted.n_poisoned, maps[i].n_poisoned);
		ck_assert_uint_eq(books.counted.n_leaves, maps[i].n_leaves);
	}
	count_others(&books);
	ck_assert_uint_eq(books.n_units + header->n_free, header->n_units);
	check_shares(&books);
	check_slots(&books);
	free(books.slots);
	free(books.users);
	free(books.shared);
}
