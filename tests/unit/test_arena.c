/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"

#define UNITS 200u

static struct arena arena;

static void setup(void)
{
	fixture_arena(&arena, UNITS);
}

static void teardown(void)
{
	arena_deinit(&arena, true);
}

static void reopen(int expected)
{
	char path[256];

	strcpy(path, arena.path);
	arena_deinit(&arena, false);
	ck_assert_int_eq(arena_open(&arena, path, UNITS * ARENA_UNIT), expected);
	if (expected < 0)
		unlink(path);
}

static arena_off take(void)
{
	arena_off off = 0;

	ck_assert_int_eq(arena_alloc(&arena, &off), 0);
	return off;
}

START_TEST(the_file_is_root_only)
{
	struct stat st;

	ck_assert_int_eq(fstat(arena.fd, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_int_ne(fcntl(arena.fd, F_GETFD) & FD_CLOEXEC, 0);
}
END_TEST

START_TEST(a_file_that_exists_is_not_taken_over)
{
	struct arena other;

	ck_assert_int_eq(arena_create(&other, arena.path, 8, UNITS * ARENA_UNIT), -EEXIST);
	ck_assert_int_eq(access(arena.path, F_OK), 0);
}
END_TEST

START_TEST(every_unit_is_handed_out_once_and_zeroed)
{
	unsigned char given[UNITS] = { 1 };
	static const char zeros[ARENA_UNIT];
	arena_off off;

	for (unsigned int i = 1; i < UNITS; i++) {
		off = take();
		ck_assert_uint_eq(off % ARENA_UNIT, 0);
		ck_assert_uint_eq(given[off / ARENA_UNIT], 0);
		given[off / ARENA_UNIT] = 1;
		ck_assert_mem_eq(arena_ptr(&arena, off), zeros, ARENA_UNIT);
		memset(arena_ptr(&arena, off), 0xff, ARENA_UNIT);
	}
	ck_assert_int_eq(arena_alloc(&arena, &off), -ENOSPC);
	arena_free(&arena, 5 * ARENA_UNIT);
	ck_assert_uint_eq(off = take(), 5 * ARENA_UNIT);
	ck_assert_mem_eq(arena_ptr(&arena, off), zeros, ARENA_UNIT);
}
END_TEST

START_TEST(reserved_units_need_no_growth)
{
	uint64_t n_units;

	ck_assert_int_eq(arena_reserve(&arena, 100), 0);
	ck_assert_uint_ge(arena.header->n_free, 100);
	n_units = arena.header->n_units;
	for (int i = 0; i < 100; i++)
		take();
	ck_assert_uint_eq(arena.header->n_units, n_units);
	ck_assert_int_eq(arena_reserve(&arena, UNITS), -ENOSPC);
	ck_assert_int_eq(arena_reserve(&arena, UINT64_MAX), -ENOSPC);
}
END_TEST

START_TEST(a_successor_finds_what_was_written)
{
	arena_off kept = take(), freed = take();
	uint64_t n_free;

	strcpy(arena_ptr(&arena, kept), "hello");
	arena_free(&arena, freed);
	n_free = arena.header->n_free;
	reopen(0);
	ck_assert_str_eq(arena_ptr(&arena, kept), "hello");
	ck_assert_uint_eq(arena.header->n_free, n_free);
	ck_assert_uint_eq(arena.header->family_id, 7);
	ck_assert_uint_eq(take(), freed);
}
END_TEST

START_TEST(a_wrong_free_count_is_counted_anew)
{
	uint8_t used[UNITS] = { 1 };
	uint64_t n_free;

	used[take() / ARENA_UNIT] = 1;
	n_free = arena.header->n_free;
	arena.header->n_free = 12345;
	reopen(0);
	arena_rebuild_free(&arena, used);
	ck_assert_uint_eq(arena.header->n_free, n_free);
}
END_TEST

START_TEST(a_unit_that_nobody_uses_is_handed_out_again)
{
	uint8_t used[UNITS] = { 1 };
	arena_off lost = take(), kept = take();

	used[kept / ARENA_UNIT] = 1;
	reopen(0);
	arena_rebuild_free(&arena, used);
	ck_assert_uint_eq(arena.header->n_free, arena.header->n_units - 2);
	ck_assert_uint_eq(take(), lost);
	ck_assert_uint_ne(take(), kept);
}
END_TEST

START_TEST(a_free_list_that_runs_in_a_circle_is_torn)
{
	arena_off off = take();

	arena_free(&arena, off);
	*(arena_off *)arena_ptr(&arena, off) = off;
	reopen(-EPROTO);
}
END_TEST

START_TEST(a_free_list_that_leaves_the_file_is_torn)
{
	arena_off off = take();

	arena_free(&arena, off);
	*(arena_off *)arena_ptr(&arena, off) = arena.header->n_units * ARENA_UNIT;
	reopen(-EPROTO);
}
END_TEST

START_TEST(a_misaligned_free_list_is_torn)
{
	take();
	arena.header->free_head += 8;
	reopen(-EPROTO);
}
END_TEST

START_TEST(a_file_without_magic_is_no_arena)
{
	arena.header->magic = 0;
	reopen(-EPROTO);
}
END_TEST

START_TEST(another_version_is_refused)
{
	arena.header->version++;
	reopen(-EPROTO);
}
END_TEST

START_TEST(a_file_that_was_cut_is_torn)
{
	take();
	ck_assert_int_eq(ftruncate(arena.fd, 2 * ARENA_UNIT), 0);
	reopen(-EPROTO);
}
END_TEST

START_TEST(an_empty_file_is_no_arena)
{
	struct arena other;
	int fd = open(fixture_path("empty"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(arena_open(&other, fixture_path("empty"), ARENA_UNIT), -EPROTO);
	ck_assert_int_eq(arena_open(&other, fixture_path("absent"), ARENA_UNIT), -ENOENT);
	close(fd);
}
END_TEST

START_TEST(any_unit_of_a_list_can_leave_it)
{
	arena_off *head = &arena.header->spaces;
	arena_off off[3];

	for (int i = 0; i < 3; i++)
		arena_list_add(&arena, head, off[i] = take());
	ck_assert_uint_eq(*head, off[2]);
	arena_list_remove(&arena, head, off[1]);
	ck_assert_uint_eq(*(arena_off *)arena_ptr(&arena, off[2]), off[0]);
	arena_list_remove(&arena, head, off[1]);
	arena_list_remove(&arena, head, off[2]);
	ck_assert_uint_eq(*head, off[0]);
	arena_list_remove(&arena, head, off[0]);
	ck_assert_uint_eq(*head, 0);
}
END_TEST

START_TEST(deinit_of_nothing_is_fine)
{
	struct arena none = ARENA_NULL;

	arena_deinit(&none, true);
	arena_deinit(&none, true);
}
END_TEST

START_TEST(freeing_what_is_no_unit_aborts)
{
	fixture_expect_error("no unit at");
	arena_free(&arena, 8);
}
END_TEST

START_TEST(freeing_the_header_aborts)
{
	fixture_expect_error("no unit at");
	arena_free(&arena, 0);
}
END_TEST

static void *churn(void *unused)
{
	for (int i = 0; i < 2000; i++) {
		arena_off off[3];

		for (int k = 0; k < 3; k++) {
			off[k] = take();
			*(uint64_t *)arena_ptr(&arena, off[k]) = off[k];
		}
		for (int k = 0; k < 3; k++) {
			ck_assert_uint_eq(*(uint64_t *)arena_ptr(&arena, off[k]), off[k]);
			arena_free(&arena, off[k]);
		}
	}
	return unused;
}

START_TEST(threads_never_get_the_same_unit)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, churn, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(arena.header->n_free, arena.header->n_units - 1);
}
END_TEST

START_TEST(what_was_being_made_is_told_from_what_was_used)
{
	const char *path = fixture_path("begun");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert(!arena_is_unfinished(arena.path));
	fixture_must(fd >= 0, "%s", path);
	ck_assert(arena_is_unfinished(path));
	ck_assert_int_eq(ftruncate(fd, ARENA_UNIT), 0);
	ck_assert(arena_is_unfinished(path));
	ck_assert_int_eq(ftruncate(fd, 2 * ARENA_UNIT), 0);
	ck_assert(!arena_is_unfinished(path));
	(void)close(fd);
	(void)unlink(path);
	ck_assert(!arena_is_unfinished(path));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("arena");
	TCase *tcase = tcase_create("arena");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, the_file_is_root_only);
	tcase_add_test(tcase, a_file_that_exists_is_not_taken_over);
	tcase_add_test(tcase, every_unit_is_handed_out_once_and_zeroed);
	tcase_add_test(tcase, reserved_units_need_no_growth);
	tcase_add_test(tcase, a_successor_finds_what_was_written);
	tcase_add_test(tcase, a_wrong_free_count_is_counted_anew);
	tcase_add_test(tcase, a_unit_that_nobody_uses_is_handed_out_again);
	tcase_add_test(tcase, a_free_list_that_runs_in_a_circle_is_torn);
	tcase_add_test(tcase, a_free_list_that_leaves_the_file_is_torn);
	tcase_add_test(tcase, a_misaligned_free_list_is_torn);
	tcase_add_test(tcase, a_file_without_magic_is_no_arena);
	tcase_add_test(tcase, another_version_is_refused);
	tcase_add_test(tcase, a_file_that_was_cut_is_torn);
	tcase_add_test(tcase, an_empty_file_is_no_arena);
	tcase_add_test(tcase, what_was_being_made_is_told_from_what_was_used);
	tcase_add_test(tcase, any_unit_of_a_list_can_leave_it);
	tcase_add_test(tcase, deinit_of_nothing_is_fine);
	tcase_add_test_raise_signal(tcase, freeing_what_is_no_unit_aborts, SIGABRT);
	tcase_add_test_raise_signal(tcase, freeing_the_header_aborts, SIGABRT);
	tcase_add_test(tcase, threads_never_get_the_same_unit);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
