/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow model: random operations on the maps of one family and on plain arrays.
 * After each one every page and all books must agree. UHMM_SEED repeats a run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "pagemap.h"
#include "pagemap_check.h"

#define LEAF PAGEMAP_LEAF_PAGES
#define PAGES (7 * LEAF)
/* Some chunks on either side of a boundary between nodes of all levels. */
#define BASE ((1ull << 36) - 3 * LEAF)
#define MAPS 4
#define STEPS 5000

static struct family *family;
static struct pagemap maps[MAPS];
static struct page_rec model[MAPS][PAGES];
static unsigned int n_maps;
static uint64_t seed;

static uint64_t below(uint64_t n)
{
	return fixture_random(&seed) % n;
}

/* A range, often on chunk boundaries. */
static uint64_t pick_range(uint64_t *ret_first)
{
	uint64_t first = below(PAGES), n;

	if (below(3) == 0)
		first -= first % LEAF;
	n = below(2) == 0 ? 1 + below(40) : 1 + below(PAGES - first);
	if (below(3) == 0)
		n = (n + LEAF - 1) / LEAF * LEAF;
	*ret_first = first;
	return n < PAGES - first ? n : PAGES - first;
}

static struct page_rec pick_rec(struct page_rec old)
{
	switch (below(8)) {
	case 0:
		return (struct page_rec){ .v = 0 };
	case 1:
		return (struct page_rec){ .v = PAGE_REC_REFERENCED };
	case 2:
		return (struct page_rec){ .v = PAGE_REMOVED };
	case 3:
		return (struct page_rec){ .v = PAGE_POISONED };
	case 4:
	case 5:
		if (page_rec_state(old) == PAGE_STORED)
			return page_rec_move(old, PAGE_COMING);
		if (page_rec_state(old) == PAGE_COMING)
			return page_rec_move(old, PAGE_STORED);
		return check_stored(family);
	default:
		return check_stored(family);
	}
}

static void do_set(unsigned int m)
{
	uint64_t at = below(PAGES), n = 1 + below(8);

	for (; n > 0 && at < PAGES; n--, at++) {
		model[m][at] = pick_rec(model[m][at]);
		ck_assert_int_eq(pagemap_set(&maps[m], BASE + at, model[m][at]), 0);
	}
}

static void fill_model(unsigned int m, uint64_t first, uint64_t n, enum page_state state)
{
	for (uint64_t i = 0; i < n; i++)
		model[m][first + i] = (struct page_rec){ .v = (uint64_t)state };
}

static void do_drop(unsigned int m)
{
	uint64_t first, n = pick_range(&first);

	ck_assert_int_eq(pagemap_drop(&maps[m], BASE + first, n), 0);
	fill_model(m, first, n, PAGE_RESIDENT);
}

static void do_remove(unsigned int m)
{
	uint64_t first, n = pick_range(&first);

	ck_assert_int_eq(pagemap_remove(&maps[m], BASE + first, n), 0);
	for (uint64_t i = first; i < first + n; i++) {
		/* What had no record may have got one. */
		if (model[m][i].v == 0 && pagemap_get(&maps[m], BASE + i).v == 0)
			continue;
		model[m][i] = (struct page_rec){ .v = PAGE_REMOVED };
	}
}

static void do_prune(unsigned int m)
{
	pagemap_prune(&maps[m]);
	for (uint64_t i = 0; i < PAGES; i++)
		if (model[m][i].v == PAGE_REC_REFERENCED && pagemap_get(&maps[m], BASE + i).v == 0)
			model[m][i].v = 0;
}

static void do_move(unsigned int m)
{
	uint64_t from, n = pick_range(&from), to = below(PAGES);

	if (below(2) == 0)
		to = from % LEAF + to / LEAF * LEAF;
	if (to >= PAGES || n > PAGES - to)
		return;
	if (from < to ? to - from < n : from - to < n)
		return;
	ck_assert_int_eq(pagemap_move(&maps[m], BASE + from, BASE + to, n), 0);
	memcpy(&model[m][to], &model[m][from], n * sizeof(model[m][0]));
	fill_model(m, from, n, PAGE_RESIDENT);
}

static void do_fork(unsigned int m)
{
	if (n_maps == MAPS)
		return;
	ck_assert_int_eq(pagemap_fork(&maps[m], &maps[n_maps]), 0);
	memcpy(model[n_maps], model[m], sizeof(model[m]));
	n_maps++;
}

static void do_deinit(unsigned int m)
{
	if (n_maps == 1)
		return;
	pagemap_deinit(&maps[m]);
	n_maps--;
	maps[m] = maps[n_maps];
	memmove(model[m], model[n_maps], sizeof(model[m]));
}

static void do_one(unsigned int m)
{
	uint64_t first, n, op = below(33);

	if (op < 20) {
		do_set(m);
	} else if (op < 23) {
		do_drop(m);
	} else if (op < 25) {
		do_remove(m);
	} else if (op < 28) {
		do_move(m);
	} else if (op < 29) {
		do_fork(m);
	} else if (op < 30) {
		do_deinit(m);
	} else if (op < 31) {
		do_prune(m);
	} else if (op < 32) {
		n = pick_range(&first);
		ck_assert_int_eq(pagemap_reserve(&maps[m], BASE + first, n), 0);
	} else {
		n = pick_range(&first);
		pagemap_mark_check(&maps[m], BASE + first, n);
	}
}

static bool is_found(struct page_rec rec)
{
	return page_state_is_away(page_rec_state(rec)) || page_rec_state(rec) == PAGE_POISONED;
}

static void compare(unsigned int m, int step)
{
	uint64_t next = BASE;
	struct page_rec rec;

	for (uint64_t i = 0; i < PAGES; i++) {
		rec = pagemap_get(&maps[m], BASE + i);
		fixture_must(rec.v == model[m][i].v, "step %d, map %u, page %llu: %llx, not %llx",
			     step, m, (unsigned long long)i, (unsigned long long)rec.v,
			     (unsigned long long)model[m][i].v);
		if (!is_found(rec))
			continue;
		next = pagemap_next(&maps[m], next, BASE + PAGES, &rec);
		fixture_must(next == BASE + i && rec.v == model[m][i].v, "step %d", step);
		next++;
	}
	ck_assert_uint_eq(pagemap_next(&maps[m], next, UINT64_MAX, &rec), UINT64_MAX);
}

START_TEST(random_operations_agree_with_plain_arrays)
{
	seed = fixture_seed();
	family = check_family(4000, MAPS * PAGES + 8);
	ck_assert_int_eq(pagemap_init(&maps[0], family), 0);
	n_maps = 1;
	for (int step = 0; step < STEPS; step++) {
		do_one((unsigned int)below(n_maps));
		for (unsigned int m = 0; m < n_maps; m++)
			compare(m, step);
		check_books(family, maps, n_maps);
	}
	while (n_maps > 0)
		pagemap_deinit(&maps[--n_maps]);
	check_books(family, maps, 0);
	family_unref(family);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pagemap_model");
	TCase *tcase = tcase_create("pagemap_model");

	tcase_set_timeout(tcase, 100);
	tcase_add_test(tcase, random_operations_agree_with_plain_arrays);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
