/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A crash at any instruction while spaces and stores come and go, while the arena grows, while a
 * batch is under way, and while an arena is being recovered: after each instruction a copy of the
 * arena is recovered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "crash_recover.h"
#include "fake_tier.h"
#include "fixture.h"
#include "group.h"
#include "leaf_refs.h"
#include "pagemap_check.h"
#include "pagemap_tree.h"
#include "recover.h"
#include "space.h"
#include "step.h"

#define LEAF PAGEMAP_LEAF_PAGES
#define SLOTS 64u

static struct config config = { .n_staging_chunks = 2, .max_arena_bytes = 256 * ARENA_UNIT };
static struct daemon_env env = { .config = &config, .tier = &fake_tier_handle };
static struct group *group;
static struct family *family;
static struct space *parent, *child;

static uint64_t take_slot(struct store *store)
{
	struct slots_run run;
	uint32_t taken;

	ck_assert_uint_eq(
		slots_alloc(&family->arena, &store->unit->slots, 1, &run, 1, &taken), 1);
	return run.slot;
}

static void set_stored(struct space *space, uint64_t pgidx)
{
	struct page_rec rec = page_rec_make(PAGE_STORED, space->store->unit->index,
					    take_slot(space->store));

	ck_assert_int_eq(pagemap_set(&space->map, pgidx, rec), 0);
}

static void add_store(struct space *space)
{
	ck_assert_int_eq(family_add_store(family, env.tier, space->id, &space->store), 0);
	ck_assert_int_eq(slots_grow(&family->arena, &space->store->unit->slots, SLOTS), 0);
}

static struct space *make_child(void)
{
	static uint8_t token[UHMM_TOKEN_BYTES];
	struct space *space;

	token[0]++; /* no two have the same */
	ck_assert_int_eq(space_new_child(parent, -1, token, &space), 0);
	ck_assert_int_eq(pagemap_fork(&parent->map, &space->map), 0);
	space_publish(space);
	return space;
}

/* Two spaces that share a leaf and a store's slots; the child has a store of its own, too. */
static void setup(void)
{
	static const uint8_t token[UHMM_TOKEN_BYTES];

	env.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	snprintf(config.state_dir, sizeof(config.state_dir), "%s", fixture_dir);
	group = group_get(token, 0, GROUP_SECRET, true);
	ck_assert_int_eq(space_new(&env, group, -1, &parent), 0);
	family = parent->family;
	add_store(parent);
	for (uint64_t i = 0; i < 3; i++) {
		set_stored(parent, i);
		set_stored(parent, LEAF + i);
	}
	child = make_child();
	add_store(child);
	set_stored(child, LEAF + 7);
	set_stored(child, 3 * LEAF);
}

static void teardown(void)
{
	space_unref(child);
	space_unref(parent);
	group_put(group);
}

static void change_new_child(void)
{
	(void)make_child();
}

static void change_end_child(void)
{
	space_unref(child);
}

static void change_end_parent(void)
{
	space_unref(parent);
}

static void change_new_store(void)
{
	struct store *store;

	(void)family_add_store(family, env.tier, parent->id, &store);
	(void)slots_grow(&family->arena, &store->unit->slots, 2 * SLOTS_PER_UNIT + 1);
}

static void change_grow_slots(void)
{
	(void)slots_grow(&family->arena, &parent->store->unit->slots, 3 * SLOTS_PER_UNIT);
	(void)take_slot(parent->store);
}

static void change_end_store(void)
{
	(void)pagemap_drop(&child->map, 0, TREE_PAGES);
	family_retire_store(family, child->store);
}

static void change_grow_arena(void)
{
	(void)arena_reserve(&family->arena, family->arena.header->n_free + 1);
}

static void change_prune(void)
{
	(void)pagemap_drop(&child->map, 3 * LEAF, 1);
	pagemap_prune(&child->map);
}

/* As evict.c does it: slots, records, the batch; then what became of each page. */
static void change_batch(void)
{
	struct space_unit *unit = parent->unit;
	struct batch_page *pages = arena_ptr(&family->arena, unit->batches[0].units[0]);

	for (uint64_t i = 0; i < 2; i++) {
		pages[i].pgidx = 5 * LEAF + i;
		pages[i].slot = take_slot(parent->store);
		(void)family_slot_ref(family, parent->store->unit->index, pages[i].slot);
		(void)pagemap_set(&parent->map, pages[i].pgidx,
				  page_rec_make(PAGE_LEAVING, parent->store->unit->index,
						pages[i].slot));
	}
	__atomic_store_n(&unit->batches[0].n_pages, 2, __ATOMIC_RELEASE);
	__atomic_store_n(&unit->batches[0].state, BATCH_MOVING, __ATOMIC_RELEASE);
}

static struct tier *find_tier(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return &fake_tier_handle;
}

/* All that there is to be set right: a fork that nobody knows of, slots and units that nobody
 * has, a store that was closed with its space gone, one that nobody needs. */
static void tear(void)
{
	struct pagemap lost;
	struct store *store;
	arena_off off;

	ck_assert_int_eq(pagemap_fork(&parent->map, &lost), 0);
	ck_assert_int_eq(pagemap_set(&lost, 5 * LEAF, (struct page_rec){ PAGE_POISONED }), 0);
	(void)take_slot(parent->store);
	ck_assert_int_eq(family_slot_ref(family, 1, 0), 0);
	ck_assert_int_eq(arena_alloc(&family->arena, &off), 0);
	ck_assert_int_eq(family_add_store(family, env.tier, 5, &store), 0);
	ck_assert_int_eq(slots_grow(&family->arena, &store->unit->slots, SLOTS), 0);
	(void)take_slot(store);
	arena_list_remove(&family->arena, &family->arena.header->spaces, child->unit_off);
}

static void change_recover_and_forget(void)
{
	struct recovered recovered;
	char why[RECOVER_WHY_BYTES];

	if (family_open(family->arena.path, config.max_arena_bytes, find_tier, NULL, &recovered,
			why) < 0)
		_exit(1);
	recovered_forget_space(&recovered, 0);
}

static void no_preparation(void)
{
}

static const struct change {
	const char *name;
	void (*prepare)(void);
	void (*make)(void);
} changes[] = {
	{ "a child comes", no_preparation, change_new_child },
	{ "a child goes", no_preparation, change_end_child },
	{ "a parent goes", no_preparation, change_end_parent },
	{ "a store comes", no_preparation, change_new_store },
	{ "a store grows", no_preparation, change_grow_slots },
	{ "a store goes", no_preparation, change_end_store },
	{ "the arena grows", no_preparation, change_grow_arena },
	{ "leaves are pruned", no_preparation, change_prune },
	{ "a batch begins", no_preparation, change_batch },
	{ "a recovery, and a space that is forgotten", tear, change_recover_and_forget },
};

static void look(unsigned long n)
{
	(void)n;
	crash_look();
}

START_TEST(a_crash_at_any_instruction_can_be_recovered)
{
	const struct change *change = &changes[_i];
	unsigned long n;

	change->prepare();
	crash_expect(family, change->name, change->make);
	n = step_through(change->name, change->make, look);
	printf("%s: %lu instructions, %lu times recovered\n", change->name, n, crash_done());
	fflush(stdout);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recover_crash");
	TCase *tcase = tcase_create("recover_crash");

	if (!step_is_possible()) {
		printf("skipped: this process cannot trace its children\n");
		return 77;
	}
	step_stay_on_this_cpu();
	tcase_set_timeout(tcase, 250);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, a_crash_at_any_instruction_can_be_recovered, 0,
			    (int)(sizeof(changes) / sizeof(changes[0])));
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
