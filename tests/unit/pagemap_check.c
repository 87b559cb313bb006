/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pagemap_check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_tier.h"
#include "fixture.h"
#include "leaf_refs.h"
#include "pagemap_tree.h"
#include "space.h"

#define STORES_MAX 16u

struct books {
	struct family *family;
	uint32_t *slots[STORES_MAX]; /* by store: references by records of distinct leaves */
	uint32_t *users;      /* entries that lead to a unit as a leaf */
	unsigned char *shared; /* one of them says SHARED */
	unsigned char *used;  /* units in use, as far as seen */
	uint64_t n_units;     /* how many these are */
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

struct space_unit *check_publish(struct family *family, uint64_t id, const struct pagemap *map)
{
	struct arena *arena = &family->arena;
	struct space_unit *unit;
	arena_off off;

	ck_assert_int_eq(arena_alloc(arena, &off), 0);
	unit = arena_ptr(arena, off);
	*unit = (struct space_unit){ .space_id = id, .root = map->root, .n_batches = 1 };
	memcpy(unit->token, &id, sizeof(id));
	ck_assert_int_eq(arena_alloc(arena, &unit->log), 0);
	for (unsigned int k = 0; k < BATCH_UNITS; k++)
		ck_assert_int_eq(arena_alloc(arena, &unit->batches[0].units[k]), 0);
	arena_list_add(arena, &arena->header->spaces, off);
	return unit;
}

static void count_unit(struct books *books, arena_off off)
{
	uint64_t unit = off / ARENA_UNIT;

	fixture_must(off % ARENA_UNIT == 0 && unit < books->family->arena.header->n_units,
		     "offset %#llx", (unsigned long long)off);
	fixture_must(!books->used[unit], "unit %llu is used twice", (unsigned long long)unit);
	books->used[unit] = 1;
	books->n_units++;
}

static void count_leaf(struct books *books, const struct pagemap *map, uint64_t entry)
{
	uint64_t unit = entry_off(entry) / ARENA_UNIT;
	bool first = books->users[unit]++ == 0;

	books->counted.n_leaves++;
	books->shared[unit] |= (entry & PAGEMAP_CHUNK_SHARED) != 0;
	if (first)
		count_unit(books, entry_off(entry));
	for (unsigned int i = 0; i < PAGEMAP_LEAF_PAGES; i++) {
		struct page_rec rec = tree_leaf(map, entry)[i];

		books->counted.n_away += page_state_is_away(page_rec_state(rec)) ? 1 : 0;
		books->counted.n_poisoned += page_rec_state(rec) == PAGE_POISONED ? 1 : 0;
		if (first && page_state_has_slot(page_rec_state(rec)))
			books->slots[page_rec_store(rec)][page_rec_slot(rec)]++;
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
	count_unit(books, entry);
	for (unsigned int i = 0; i < TREE_FANOUT; i++)
		count_entry(books, map, tree_node(map, entry)[i], level - 1);
}

/* The units of a table of `levels` levels of offsets over units of counts. */
static void count_table(struct books *books, arena_off off, unsigned int levels)
{
	const arena_off *words = arena_ptr(&books->family->arena, off);

	if (off == 0)
		return;
	count_unit(books, off);
	for (unsigned int i = 0; levels > 0 && i < ARENA_UNIT / sizeof(arena_off); i++)
		count_table(books, words[i], levels - 1);
}

static void count_list(struct books *books, arena_off off)
{
	for (; off != 0; off = *(arena_off *)arena_ptr(&books->family->arena, off))
		count_unit(books, off);
}

static void count_spaces(struct books *books)
{
	const struct arena *arena = &books->family->arena;
	const struct space_unit *unit;

	for (arena_off off = arena->header->spaces; off != 0; off = unit->next) {
		unit = arena_ptr(arena, off);
		count_unit(books, off);
		count_list(books, unit->log);
		for (unsigned int i = 0; i < unit->n_batches; i++)
			for (unsigned int k = 0; k < BATCH_UNITS; k++)
				count_unit(books, unit->batches[i].units[k]);
	}
}

static void count_others(struct books *books)
{
	const struct arena *arena = &books->family->arena;
	unsigned int n_stores = 0;

	count_unit(books, 0);
	count_table(books, arena->header->leaf_refs, 2);
	count_spaces(books);
	for (unsigned int i = 1; i <= FAMILY_STORES_MAX; i++) {
		struct store *store = family_store(books->family, i);

		if (store == NULL)
			continue;
		n_stores++;
		count_unit(books, store->unit_off);
		for (unsigned int k = 0; k < 8; k++)
			count_table(books, store->unit->slots.dirs[k], 1);
	}
	for (arena_off off = arena->header->stores; off != 0; n_stores--)
		off = ((struct store_unit *)arena_ptr(arena, off))->next;
	ck_assert_uint_eq(n_stores, 0);
}

/* Every unit that is not in use is on the list, once. */
static void check_free_list(const struct books *books)
{
	const struct arena *arena = &books->family->arena;
	uint64_t n = 0;

	for (arena_off off = arena->header->free_head; off != 0;
	     off = *(arena_off *)arena_ptr(arena, off)) {
		fixture_must(!books->used[off / ARENA_UNIT], "unit %#llx is free and in use",
			     (unsigned long long)off);
		fixture_must(n++ < arena->header->n_units, "a circle");
	}
	ck_assert_uint_eq(n, arena->header->n_free);
	ck_assert_uint_eq(books->n_units + n, arena->header->n_units);
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

static void check_slots(struct books *books, unsigned int index)
{
	const struct slots_root *root = &family_store(books->family, index)->unit->slots;
	const uint32_t *refs = books->slots[index];
	uint64_t n_used = 0;

	for (uint64_t slot = 0; slot < root->n_slots; slot++) {
		uint32_t count = slots_count(&books->family->arena, root, slot);

		fixture_must(count == refs[slot], "store %u, slot %llu: count %u, records %u",
			     index, (unsigned long long)slot, count, refs[slot]);
		n_used += refs[slot] > 0 ? 1 : 0;
	}
	ck_assert_uint_eq(root->n_used, n_used);
}

static bool has_store(const struct family *family, unsigned int index)
{
	return family_store(family, index) != NULL;
}

void check_books(struct family *family, const struct pagemap *maps, unsigned int n_maps)
{
	const struct arena_header *header = family->arena.header;
	struct books books = {
		.family = family,
		.users = calloc(header->n_units, 4),
		.shared = calloc(header->n_units, 1),
		.used = calloc(header->n_units, 1),
	};

	for (unsigned int i = 0; i < STORES_MAX; i++)
		if (has_store(family, i))
			books.slots[i] =
				calloc(family_store(family, i)->unit->slots.n_slots + 1, 4);
	for (unsigned int i = 0; i < n_maps; i++) {
		books.counted = PAGEMAP_NULL;
		count_entry(&books, &maps[i], maps[i].root, PAGEMAP_LEVELS);
		ck_assert_uint_eq(books.counted.n_away, maps[i].n_away);
		ck_assert_uint_eq(books.counted.n_poisoned, maps[i].n_poisoned);
		ck_assert_uint_eq(books.counted.n_leaves, maps[i].n_leaves);
	}
	count_others(&books);
	check_free_list(&books);
	check_shares(&books);
	for (unsigned int i = 0; i < STORES_MAX; i++) {
		if (has_store(family, i))
			check_slots(&books, i);
		free(books.slots[i]);
	}
	free(books.users);
	free(books.shared);
	free(books.used);
}
