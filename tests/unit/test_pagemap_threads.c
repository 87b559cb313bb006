/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Spaces of one family on threads of their own, as in the daemon: each map has one
 * owner, what they share is leaves, slots and units. At the end the books must add up.
 */
#include <pthread.h>

#include "fixture.h"
#include "pagemap.h"
#include "pagemap_check.h"

#define LEAF PAGEMAP_LEAF_PAGES
#define PAGES (4 * LEAF)
#define THREADS 4
#define STEPS 400

static struct family *family;
static struct pagemap maps[THREADS];

struct owner {
	struct pagemap *map;
	uint64_t seed;
};

static uint64_t below(struct owner *owner, uint64_t n)
{
	return fixture_random(&owner->seed) % n;
}

/* A child that changes some pages and ends, as a forked shell's does. */
static void fork_and_end(struct owner *owner)
{
	struct pagemap child;

	fixture_must(pagemap_fork(owner->map, &child) == 0, "fork");
	for (int i = 0; i < 8; i++)
		fixture_must(pagemap_set(&child, below(owner, PAGES),
					 (struct page_rec){ PAGE_REMOVED }) == 0, "set");
	pagemap_deinit(&child);
}

static void *live(void *data)
{
	struct owner *owner = data;

	for (int step = 0; step < STEPS; step++) {
		uint64_t at = below(owner, PAGES), n = 1 + below(owner, LEAF), op;

		op = below(owner, 16);
		if (op < 10)
			fixture_must(pagemap_set(owner->map, at, check_stored(family)) == 0, "set");
		else if (op < 12)
			fixture_must(pagemap_drop(owner->map, at, n) == 0, "drop");
		else if (op < 13)
			fixture_must(pagemap_remove(owner->map, at, n) == 0, "remove");
		else if (op < 14)
			fixture_must(pagemap_move(owner->map, at, PAGES + at, n) == 0, "move");
		else if (op < 15)
			fork_and_end(owner);
		else
			(void)pagemap_any_away(owner->map, at, n);
	}
	return NULL;
}

START_TEST(families_of_threads_keep_their_books)
{
	uint64_t seed = fixture_seed();
	struct owner owners[THREADS];
	pthread_t threads[THREADS];

	family = check_family(4000, 30000);
	ck_assert_int_eq(pagemap_init(&maps[0], family), 0);
	for (uint64_t i = 0; i < PAGES; i++)
		fixture_must(pagemap_set(&maps[0], i, check_stored(family)) == 0, "set");
	for (int i = 1; i < THREADS; i++)
		ck_assert_int_eq(pagemap_fork(&maps[0], &maps[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		owners[i] = (struct owner){ .map = &maps[i], .seed = fixture_random(&seed) };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, live, &owners[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	check_books(family, maps, THREADS);
	for (int i = 0; i < THREADS; i++)
		pagemap_deinit(&maps[i]);
	check_books(family, maps, 0);
	family_unref(family);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pagemap_threads");
	TCase *tcase = tcase_create("pagemap_threads");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, families_of_threads_keep_their_books, 0, 5);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
