/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fake_tier.h"
#include "family.h"
#include "fixture.h"

static struct family *family;

/* Check runs each test in a process of its own, so the pid makes the id unique. */
static void make_family(uint64_t n_units)
{
	ck_assert_int_eq(family_new((uint64_t)getpid(), fixture_dir, n_units * ARENA_UNIT,
				    &family), 0);
}

static void setup(void)
{
	make_family(5000);
}

static void teardown(void)
{
	family = family_unref(family);
	ck_assert_int_eq(fake_tier.n_open, 0);
}

static struct store *add(uint64_t space_id)
{
	struct store *store;

	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, space_id, &store), 0);
	return store;
}

/* One slot in use. */
static uint64_t fill(struct store *store)
{
	struct slots_run run;
	uint32_t taken;

	ck_assert_int_eq(slots_grow(&family->arena, &store->unit->slots, 8), 0);
	ck_assert_uint_eq(
		slots_alloc(&family->arena, &store->unit->slots, 1, &run, 1, &taken), 1);
	return run.slot;
}

START_TEST(a_store_is_found_by_index_and_named_for_its_space)
{
	struct store *store = add(42);
	char expect[64];

	ck_assert_uint_eq(store->unit->index, 1);
	ck_assert_ptr_eq(family_store(family, 1), store);
	snprintf(expect, sizeof(expect), "f%d-s42-1", (int)getpid());
	ck_assert_str_eq(store->unit->name, expect);
	ck_assert_str_eq(fake_tier.last_name, expect);
	ck_assert_str_eq(store->unit->tier, "fake");
	ck_assert_ptr_null(family_store(family, 0));
	ck_assert_ptr_null(family_store(family, 2));
	ck_assert_ptr_null(family_store(family, UINT32_MAX));
}
END_TEST

START_TEST(names_are_unique)
{
	char name[64];

	add(42);
	strcpy(name, fake_tier.last_name);
	add(42);
	ck_assert_str_ne(name, fake_tier.last_name);
}
END_TEST

START_TEST(an_empty_store_closes_when_it_retires)
{
	family_retire_store(family, add(1));
	ck_assert_int_eq(fake_tier.n_open, 0);
	ck_assert_ptr_null(family_store(family, 1));
	ck_assert_uint_eq(family->arena.header->stores, 0);
}
END_TEST

START_TEST(a_retired_store_lives_until_its_last_slot_is_free)
{
	struct store *store = add(1);
	uint64_t slot = fill(store);

	ck_assert_int_eq(family_slot_ref(family, 1, slot), 0);
	family_retire_store(family, store);
	family_slot_unref(family, 1, slot);
	family_reap(family);
	ck_assert_int_eq(fake_tier.n_open, 1);
	ck_assert_uint_eq(fake_tier.n_released, 0);
	family_slot_unref(family, 1, slot);
	ck_assert_uint_eq(fake_tier.n_released, 1);
	ck_assert_int_eq(fake_tier.n_open, 1);
	family_reap(family);
	ck_assert_int_eq(fake_tier.n_open, 0);
	ck_assert_ptr_null(family_store(family, 1));
}
END_TEST

START_TEST(a_store_in_use_survives_being_empty)
{
	struct store *store = add(1);

	family_slot_unref(family, 1, fill(store));
	family_reap(family);
	ck_assert_int_eq(fake_tier.n_open, 1);
}
END_TEST

START_TEST(the_last_unref_closes_what_is_left)
{
	struct family *other = family_ref(family);
	char path[256];

	fill(add(1));
	strcpy(path, family->arena.path);
	family_unref(other);
	ck_assert_int_eq(fake_tier.n_open, 1);
	ck_assert_int_eq(access(path, F_OK), 0);
	family = family_unref(family);
	ck_assert_int_eq(fake_tier.n_open, 0);
	ck_assert_uint_eq(fake_tier.n_released, 1);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(any_store_of_the_list_can_leave_it)
{
	uint64_t n_free;

	arena_reserve(&family->arena, 8);
	n_free = family->arena.header->n_free;
	struct store *a = add(1), *b = add(2), *c = add(3);

	family_retire_store(family, b);
	family_retire_store(family, c);
	ck_assert_uint_eq(family->arena.header->stores, a->unit_off);
	ck_assert_uint_eq(a->unit->next, 0);
	family_retire_store(family, a);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
}
END_TEST

START_TEST(an_index_is_used_again)
{
	struct store *a = add(1);

	add(2);
	family_retire_store(family, a);
	ck_assert_uint_eq(add(3)->unit->index, 1);
}
END_TEST

START_TEST(a_full_table_is_no_room)
{
	struct store *store;

	for (unsigned int i = 0; i < FAMILY_STORES_MAX; i++)
		add(i);
	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 1, &store), -ENOSPC);
	ck_assert_int_eq(fake_tier.n_open, FAMILY_STORES_MAX);
}
END_TEST

START_TEST(a_full_arena_is_no_room)
{
	struct store *store;

	family_unref(family);
	make_family(2);
	add(1);
	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 1, &store), -ENOSPC);
}
END_TEST

START_TEST(a_backend_that_fails_leaves_nothing_behind)
{
	struct store *store;
	uint64_t n_free;

	arena_reserve(&family->arena, 8);
	n_free = family->arena.header->n_free;
	fake_tier.fail_open = EIO;
	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 1, &store), -EIO);
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
	ck_assert_uint_eq(family->arena.header->stores, 0);
	ck_assert_ptr_null(family_store(family, 1));
}
END_TEST

START_TEST(a_family_that_exists_is_not_taken_over)
{
	struct family *other;

	ck_assert_int_eq(family_new((uint64_t)getpid(), fixture_dir, 8 * ARENA_UNIT, &other),
			 -EEXIST);
}
END_TEST

START_TEST(a_record_of_no_store_aborts)
{
	fixture_expect_error("names store 9");
	(void)family_slot_ref(family, 9, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("family");
	TCase *tcase = tcase_create("family");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_store_is_found_by_index_and_named_for_its_space);
	tcase_add_test(tcase, names_are_unique);
	tcase_add_test(tcase, an_empty_store_closes_when_it_retires);
	tcase_add_test(tcase, a_retired_store_lives_until_its_last_slot_is_free);
	tcase_add_test(tcase, a_store_in_use_survives_being_empty);
	tcase_add_test(tcase, the_last_unref_closes_what_is_left);
	tcase_add_test(tcase, any_store_of_the_list_can_leave_it);
	tcase_add_test(tcase, an_index_is_used_again);
	tcase_add_test(tcase, a_full_table_is_no_room);
	tcase_add_test(tcase, a_full_arena_is_no_room);
	tcase_add_test(tcase, a_backend_that_fails_leaves_nothing_behind);
	tcase_add_test(tcase, a_family_that_exists_is_not_taken_over);
	tcase_add_test_raise_signal(tcase, a_record_of_no_store_aborts, SIGABRT);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
