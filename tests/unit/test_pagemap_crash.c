/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A crash at any instruction: a process changes page maps in an arena, one instruction
 * at a time, and after each one the arena is audited as a successor would find it.
 * What may be is a unit or a slot that is lost. What may not be: a slot or a leaf with
 * fewer references than it has users, a unit that is in use and on the free list, or a
 * record that is gone from where it was without being where it should go. Then a copy of it is
 * recovered, and that must set it right.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash_recover.h"
#include "fixture.h"
#include "leaf_refs.h"
#include "pagemap.h"
#include "pagemap_check.h"
#include "pagemap_tree.h"
#include "step.h"

#define LEAF PAGEMAP_LEAF_PAGES
#define UNITS 96u
#define SLOTS 64u
#define MAPS 2

static struct family *family;
static struct pagemap maps[MAPS];

struct audit {
	uint32_t slots[SLOTS];
	uint32_t users[UNITS]; /* of a leaf */
	bool used[UNITS];      /* as something else than a leaf */
	bool unshared[UNITS];  /* an entry says that the leaf is its own */
	bool shared[UNITS];    /* an entry says that it is not */
};

static struct audit audit;

static uint64_t unit_of(arena_off off)
{
	fixture_must(off % ARENA_UNIT == 0 && off / ARENA_UNIT < UNITS, "offset %#llx",
		     (unsigned long long)off);
	return off / ARENA_UNIT;
}

static void audit_unit(arena_off off)
{
	fixture_must(!audit.used[unit_of(off)], "unit %#llx is used twice",
		     (unsigned long long)off);
	audit.used[unit_of(off)] = true;
}

static void audit_leaf(const struct pagemap *map, uint64_t entry)
{
	uint64_t unit = unit_of(entry_off(entry));

	if (entry & PAGEMAP_CHUNK_SHARED)
		audit.shared[unit] = true;
	else
		audit.unshared[unit] = true;
	if (audit.users[unit]++ > 0)
		return;
	for (unsigned int i = 0; i < LEAF; i++) {
		struct page_rec rec = tree_leaf(map, entry)[i];

		if (page_state_has_slot(page_rec_state(rec)))
			audit.slots[page_rec_slot(rec)]++;
	}
}

static void audit_entry(const struct pagemap *map, uint64_t entry, unsigned int level)
{
	if (entry_off(entry) == 0)
		return;
	if (level == 0) {
		audit_leaf(map, entry);
		return;
	}
	audit_unit(entry_off(entry));
	for (unsigned int i = 0; i < TREE_FANOUT; i++) {
		if (tree_node(map, entry)[i] != 0)
			audit_entry(map, tree_node(map, entry)[i], level - 1);
	}
}

static void audit_table(arena_off off, unsigned int levels)
{
	if (off == 0)
		return;
	audit_unit(off);
	for (unsigned int i = 0; levels > 0 && i < ARENA_UNIT / sizeof(off); i++)
		audit_table(((arena_off *)arena_ptr(&family->arena, off))[i], levels - 1);
}

static void audit_free_list(void)
{
	const struct arena_header *header = family->arena.header;
	arena_off off;
	uint64_t n = 0;

	for (off = header->free_head; off != 0; off = *(arena_off *)arena_ptr(&family->arena, off)) {
		uint64_t unit = unit_of(off);

		fixture_must(unit < header->n_units && n++ < UNITS, "free list");
		fixture_must(!audit.used[unit] && audit.users[unit] == 0,
			     "unit %llu is in use and free", (unsigned long long)unit);
	}
}

static void audit_arena(void)
{
	const struct store_unit *store = family_store(family, 1)->unit;

	memset(&audit, 0, sizeof(audit));
	audit_unit(0);
	audit_table(family->arena.header->leaf_refs, 2);
	audit_table(store->slots.dirs[0], 1);
	for (int i = 0; i < MAPS; i++)
		audit_entry(&maps[i], maps[i].root, PAGEMAP_LEVELS);
	audit_free_list();
	for (uint64_t slot = 0; slot < SLOTS; slot++)
		fixture_must(check_slot_count(family, slot) >= audit.slots[slot],
			     "slot %llu has %u references and %u records", (unsigned long long)slot,
			     check_slot_count(family, slot), audit.slots[slot]);
	for (uint64_t unit = 1; unit < UNITS; unit++) {
		uint32_t users = audit.users[unit];
		uint32_t count = leaf_refs_count(&family->arena, unit * ARENA_UNIT);

		fixture_must(users <= 1 || !audit.unshared[unit], "a shared leaf has an owner");
		fixture_must(!audit.shared[unit] || count >= users, "%u users, but %u counted",
			     users, count);
		fixture_must(users == 0 || !audit.used[unit], "a leaf is something else too");
	}
}

static uint64_t at_either(const struct pagemap *map, uint64_t a, uint64_t b)
{
	uint64_t there = pagemap_get(map, a).v;

	return there != 0 ? there : pagemap_get(map, b).v;
}

/* --- what is crashed ----------------------------------------------------------------- */

static void setup(void)
{
	/* The first leaf of a map, one that both maps share, and a chunk that was removed. */
	family = check_family(UNITS, SLOTS);
	ck_assert_int_eq(pagemap_init(&maps[0], family), 0);
	for (uint64_t i = 0; i < 3; i++) {
		ck_assert_int_eq(pagemap_set(&maps[0], 5 + i, check_stored(family)), 0);
		ck_assert_int_eq(pagemap_set(&maps[0], LEAF + 5 + i, check_stored(family)), 0);
	}
	ck_assert_int_eq(pagemap_fork(&maps[0], &maps[1]), 0);
	ck_assert_int_eq(pagemap_set(&maps[0], 7, check_stored(family)), 0);
	ck_assert_int_eq(pagemap_set(&maps[0], 7 * LEAF, check_stored(family)), 0);
	ck_assert_int_eq(pagemap_remove(&maps[0], 7 * LEAF, LEAF), 0);
	for (uint64_t i = 0; i < MAPS; i++)
		check_publish(family, i + 1, &maps[i]);
	check_books(family, maps, MAPS);
}

static void teardown(void)
{
	for (int i = 0; i < MAPS; i++)
		pagemap_deinit(&maps[i]);
	family_unref(family);
}

static void change_replace(void)
{
	(void)pagemap_set(&maps[0], 6, check_stored(family));
}

static void change_copy_leaf(void)
{
	(void)pagemap_set(&maps[1], LEAF + 6, (struct page_rec){ PAGE_REMOVED });
}

static void change_claim_leaf(void)
{
	(void)pagemap_drop(&maps[0], LEAF, LEAF);
	(void)pagemap_set(&maps[1], LEAF + 6, check_stored(family));
}

static void change_drop(void)
{
	(void)pagemap_drop(&maps[0], 6, LEAF + 100);
	(void)pagemap_drop(&maps[0], 0, 2 * LEAF);
}

static void change_remove(void)
{
	(void)pagemap_remove(&maps[0], 6, 2 * LEAF);
}

static void change_removed(void)
{
	(void)pagemap_set(&maps[0], 7 * LEAF + 9, (struct page_rec){ PAGE_POISONED });
}

static void change_move_whole(void)
{
	(void)pagemap_move(&maps[0], 0, 4 * LEAF, 2 * LEAF);
}

static void change_move_uneven(void)
{
	(void)pagemap_move(&maps[0], 0, 4 * LEAF + 9, 2 * LEAF);
}

static void change_fork(void)
{
	struct pagemap child;

	(void)pagemap_fork(&maps[0], &child);
	pagemap_deinit(&child);
}

static const struct change {
	const char *name;
	void (*make)(void);
	uint64_t from, to; /* a record that must be at one of the two all the time; 0, 0: none */
} changes[] = {
	{ "replace a record", change_replace, 5, 5 },
	{ "copy a leaf", change_copy_leaf, 5, 5 },
	{ "claim a leaf", change_claim_leaf, 5, 5 },
	{ "drop", change_drop, 0, 0 },
	{ "remove", change_remove, 0, 0 },
	{ "change what was removed", change_removed, 5, 5 },
	{ "move whole chunks", change_move_whole, 5, 4 * LEAF + 5 },
	{ "move a shared chunk", change_move_whole, LEAF + 5, 5 * LEAF + 5 },
	{ "move unevenly", change_move_uneven, 5, 4 * LEAF + 14 },
	{ "fork", change_fork, 5, 5 },
};

static const struct change *change;
static uint64_t kept;

static void look(unsigned long n)
{
	audit_arena();
	fixture_must(change->to == 0 ||
			     at_either(&maps[0], change->from, change->to) == kept,
		     "%s: a record is lost after %lu instructions", change->name, n);
	crash_look();
}

START_TEST(a_crash_at_any_instruction_shares_nothing_and_loses_no_record)
{
	unsigned long n;

	change = &changes[_i];
	kept = at_either(&maps[0], change->from, change->to);
	crash_expect(family, change->name, change->make);
	n = step_through(change->name, change->make, look);
	printf("%s: %lu instructions, %lu times recovered\n", change->name, n, crash_done());
	fflush(stdout);
	check_books(family, maps, MAPS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pagemap_crash");
	TCase *tcase = tcase_create("pagemap_crash");

	if (!step_is_possible()) {
		printf("skipped: this process cannot trace its children\n");
		return 77;
	}
	step_stay_on_this_cpu();
	tcase_set_timeout(tcase, 100);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, a_crash_at_any_instruction_shares_nothing_and_loses_no_record, 0,
			    (int)(sizeof(changes) / sizeof(changes[0])));
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
