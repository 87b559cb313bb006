/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "fixture.h"
#include "slots.h"

#define RUNS 16u

static struct arena arena;
static struct slots_root *root;
static struct slots_run runs[RUNS];

static void setup(void)
{
	arena_off off;

	fixture_arena(&arena, 1100);
	ck_assert_int_eq(arena_alloc(&arena, &off), 0);
	root = arena_ptr(&arena, off);
}

static void teardown(void)
{
	arena_deinit(&arena, true);
}

static void grow(uint64_t n)
{
	ck_assert_int_eq(slots_grow(&arena, root, n), 0);
}

static uint32_t take(uint32_t want, uint32_t max_runs, uint32_t expect_taken)
{
	uint32_t taken, n = slots_alloc(&arena, root, want, runs, max_runs, &taken);

	ck_assert_uint_eq(taken, expect_taken);
	return n;
}

START_TEST(a_run_is_whole_when_there_is_room)
{
	grow(10000);
	ck_assert_uint_eq(take(512, RUNS, 512), 1);
	ck_assert_uint_eq(take(512, RUNS, 512), 1);
	ck_assert_uint_eq(runs[0].slot, 512);
	ck_assert_uint_eq(root->n_used, 1024);
	ck_assert_uint_eq(slots_count(&arena, root, 1023), 1);
	ck_assert_uint_eq(slots_count(&arena, root, 1024), 0);
	ck_assert_uint_eq(slots_count(&arena, root, 99999), 0);
}
END_TEST

START_TEST(a_run_crosses_count_units)
{
	grow(3 * SLOTS_PER_UNIT);
	ck_assert_uint_eq(take(2 * SLOTS_PER_UNIT + 5, RUNS, 2 * SLOTS_PER_UNIT + 5), 1);
	ck_assert_uint_eq(slots_count(&arena, root, 2 * SLOTS_PER_UNIT + 4), 1);
}
END_TEST

START_TEST(holes_are_filled_when_no_run_is_whole)
{
	uint32_t n;

	grow(100);
	ck_assert_uint_eq(take(100, RUNS, 100), 1);
	for (uint64_t slot = 10; slot < 90; slot += 10)
		ck_assert_int_eq(slots_unref(&arena, root, slot), 1);
	ck_assert_int_eq(slots_unref(&arena, root, 11), 1);
	n = take(20, RUNS, 9);
	ck_assert_uint_eq(n, 8);
	ck_assert_uint_eq(runs[0].slot, 10);
	ck_assert_uint_eq(runs[0].n, 2);
	ck_assert_uint_eq(root->n_used, 100);
	ck_assert_uint_eq(take(1, RUNS, 0), 0);
}
END_TEST

START_TEST(no_more_runs_than_asked_for)
{
	grow(100);
	take(100, RUNS, 100);
	for (uint64_t slot = 0; slot < 100; slot += 2)
		slots_unref(&arena, root, slot);
	ck_assert_uint_eq(take(20, 3, 3), 3);
	ck_assert_uint_eq(take(20, 0, 0), 0);
	ck_assert_uint_eq(take(0, 3, 0), 0);
}
END_TEST

START_TEST(the_search_goes_on_where_it_ended_and_wraps)
{
	grow(100);
	take(60, RUNS, 60);
	for (uint64_t slot = 0; slot < 60; slot++)
		slots_unref(&arena, root, slot);
	ck_assert_uint_eq(take(40, RUNS, 40), 1);
	ck_assert_uint_eq(runs[0].slot, 60);
	ck_assert_uint_eq(take(40, RUNS, 40), 1);
	ck_assert_uint_eq(runs[0].slot, 0);
}
END_TEST

START_TEST(growing_keeps_what_is_there)
{
	grow(10);
	take(10, RUNS, 10);
	slots_ref(&arena, root, 9);
	grow(5);
	grow(SLOTS_PER_UNIT * SLOTS_DIR_ENTRIES + 1);
	ck_assert_uint_eq(slots_count(&arena, root, 9), 2);
	ck_assert_uint_eq(slots_count(&arena, root, 10), 0);
	ck_assert_uint_eq(root->n_slots, SLOTS_PER_UNIT * SLOTS_DIR_ENTRIES + 1);
	ck_assert_uint_eq(slots_count(&arena, root, SLOTS_PER_UNIT * SLOTS_DIR_ENTRIES), 0);
}
END_TEST

START_TEST(a_slot_is_free_after_its_last_reference)
{
	grow(4);
	take(1, 1, 1);
	ck_assert_int_eq(slots_ref(&arena, root, 0), 0);
	ck_assert_int_eq(slots_unref(&arena, root, 0), 0);
	ck_assert_int_eq(slots_unref(&arena, root, 0), 1);
	ck_assert_uint_eq(slots_count(&arena, root, 0), 0);
	ck_assert_uint_eq(root->n_used, 0);
}
END_TEST

START_TEST(references_do_not_wrap)
{
	grow(1);
	take(1, 1, 1);
	for (unsigned int i = 1; i < SLOTS_REF_MAX; i++)
		ck_assert_int_eq(slots_ref(&arena, root, 0), 0);
	ck_assert_int_eq(slots_ref(&arena, root, 0), -EOVERFLOW);
	ck_assert_uint_eq(slots_count(&arena, root, 0), SLOTS_REF_MAX);
}
END_TEST

START_TEST(what_does_not_fit_the_directory_is_no_room)
{
	ck_assert_int_eq(slots_grow(&arena, root, 8ull * SLOTS_DIR_ENTRIES * SLOTS_PER_UNIT + 1),
			 -ENOSPC);
	ck_assert_int_eq(slots_grow(&arena, root, UINT64_MAX), -ENOSPC);
	ck_assert_uint_eq(root->n_slots, 0);
}
END_TEST

START_TEST(growth_that_fails_at_any_unit_keeps_the_old_size)
{
	uint64_t room, want = 5 * SLOTS_PER_UNIT;
	int r = -1;

	for (room = 0; r < 0; room++) {
		struct arena small;
		arena_off off;

		ck_assert_int_eq(arena_create(&small, fixture_path("small"), 1,
					      (2 + room) * ARENA_UNIT), 0);
		ck_assert_int_eq(arena_alloc(&small, &off), 0);
		root = arena_ptr(&small, off);
		r = slots_grow(&small, root, want);
		if (r < 0) {
			ck_assert_int_eq(r, -ENOSPC);
			ck_assert_uint_eq(root->n_slots, 0);
		}
		slots_deinit(&small, root);
		ck_assert_uint_eq(small.header->n_free, room);
		arena_deinit(&small, true);
	}
	ck_assert_uint_eq(room, 1 + 6);
}
END_TEST

START_TEST(deinit_gives_every_unit_back)
{
	uint64_t n_free;

	arena_reserve(&arena, 600);
	n_free = arena.header->n_free;
	grow(SLOTS_PER_UNIT * SLOTS_DIR_ENTRIES + 1);
	ck_assert_uint_eq(arena.header->n_free, n_free - 515);
	slots_deinit(&arena, root);
	ck_assert_uint_eq(arena.header->n_free, n_free);
}
END_TEST

START_TEST(random_use_agrees_with_an_array)
{
	uint64_t seed = fixture_seed();
	uint16_t model[700] = { 0 };
	uint64_t used = 0;

	grow(700);
	for (int step = 0; step < 20000; step++) {
		uint64_t slot = fixture_random(&seed) % 700;
		uint32_t taken, n;

		if (fixture_random(&seed) % 16 == 0) {
			n = slots_alloc(&arena, root, (uint32_t)(slot % 90), runs, RUNS, &taken);
			for (uint32_t i = 0; i < n; i++) {
				for (uint32_t k = 0; k < runs[i].n; k++) {
					ck_assert_uint_eq(model[runs[i].slot + k], 0);
					model[runs[i].slot + k] = 1;
				}
				used += runs[i].n;
				taken -= runs[i].n;
			}
			ck_assert_uint_eq(taken, 0);
		} else if (model[slot] > 0 && fixture_random(&seed) % 3 == 0) {
			ck_assert_int_eq(slots_ref(&arena, root, slot), 0);
			model[slot]++;
		} else if (model[slot] > 0) {
			int last = slots_unref(&arena, root, slot);

			ck_assert_int_eq(last, --model[slot] == 0);
			used -= last ? 1 : 0;
		}
		ck_assert_uint_eq(slots_count(&arena, root, slot), model[slot]);
		ck_assert_uint_eq(root->n_used, used);
	}
}
END_TEST

START_TEST(giving_back_a_free_slot_aborts)
{
	grow(4);
	fixture_expect_error("used, but free");
	slots_unref(&arena, root, 1);
}
END_TEST

START_TEST(giving_back_a_slot_beyond_the_end_aborts)
{
	grow(4);
	fixture_expect_error("beyond the end");
	slots_unref(&arena, root, 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("slots");
	TCase *tcase = tcase_create("slots");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_run_is_whole_when_there_is_room);
	tcase_add_test(tcase, a_run_crosses_count_units);
	tcase_add_test(tcase, holes_are_filled_when_no_run_is_whole);
	tcase_add_test(tcase, no_more_runs_than_asked_for);
	tcase_add_test(tcase, the_search_goes_on_where_it_ended_and_wraps);
	tcase_add_test(tcase, growing_keeps_what_is_there);
	tcase_add_test(tcase, a_slot_is_free_after_its_last_reference);
	tcase_add_test(tcase, references_do_not_wrap);
	tcase_add_test(tcase, what_does_not_fit_the_directory_is_no_room);
	tcase_add_test(tcase, growth_that_fails_at_any_unit_keeps_the_old_size);
	tcase_add_test(tcase, deinit_gives_every_unit_back);
	tcase_add_test(tcase, random_use_agrees_with_an_array);
	tcase_add_test_raise_signal(tcase, giving_back_a_free_slot_aborts, SIGABRT);
	tcase_add_test_raise_signal(tcase, giving_back_a_slot_beyond_the_end_aborts, SIGABRT);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
