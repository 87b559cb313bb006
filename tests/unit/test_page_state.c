/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>

#include "fixture.h"
#include "page_state.h"

/* The journeys of design, by name: what each arrow does to a record. */
static const struct {
	enum page_state from, to;
} arrows[] = {
	{ PAGE_RESIDENT, PAGE_LEAVING },  { PAGE_LEAVING, PAGE_STAGED },
	{ PAGE_STAGED, PAGE_STORED },	  { PAGE_STORED, PAGE_COMING },
	{ PAGE_COMING, PAGE_RESIDENT },	  { PAGE_LEAVING, PAGE_RESIDENT },
	{ PAGE_STAGED, PAGE_RESIDENT },	  { PAGE_STORED, PAGE_RESIDENT },
	{ PAGE_COMING, PAGE_STORED },	  { PAGE_RESIDENT, PAGE_REMOVED },
	{ PAGE_LEAVING, PAGE_REMOVED },	  { PAGE_STAGED, PAGE_REMOVED },
	{ PAGE_STORED, PAGE_REMOVED },	  { PAGE_COMING, PAGE_REMOVED },
	{ PAGE_POISONED, PAGE_REMOVED },  { PAGE_REMOVED, PAGE_RESIDENT },
	{ PAGE_RESIDENT, PAGE_POISONED }, { PAGE_LEAVING, PAGE_POISONED },
	{ PAGE_STAGED, PAGE_POISONED },	  { PAGE_STORED, PAGE_POISONED },
	{ PAGE_COMING, PAGE_POISONED },	  { PAGE_REMOVED, PAGE_POISONED },
	{ PAGE_POISONED, PAGE_RESIDENT },
};

#define N_ARROWS ((int)(sizeof(arrows) / sizeof(arrows[0])))

START_TEST(exactly_these_moves_are_allowed)
{
	bool listed[PAGE_STATE_MAX][PAGE_STATE_MAX] = { { false } };

	for (int i = 0; i < N_ARROWS; i++)
		listed[arrows[i].from][arrows[i].to] = true;
	for (int from = 0; from < PAGE_STATE_MAX; from++) {
		for (int to = 0; to < PAGE_STATE_MAX; to++)
			ck_assert_msg(page_state_move_allowed((enum page_state)from,
							      (enum page_state)to) ==
					      listed[from][to],
				      "%s -> %s", page_state_name((enum page_state)from),
				      page_state_name((enum page_state)to));
	}
}
END_TEST

START_TEST(a_record_keeps_its_store_and_slot)
{
	struct page_rec rec = page_rec_make(PAGE_LEAVING, PAGE_STORE_MAX, PAGE_SLOT_MAX);

	rec = page_rec_move(rec, PAGE_STAGED);
	ck_assert_int_eq(page_rec_state(rec), PAGE_STAGED);
	rec = page_rec_move(page_rec_move(rec, PAGE_STORED), PAGE_COMING);
	ck_assert_uint_eq(page_rec_store(rec), PAGE_STORE_MAX);
	ck_assert_uint_eq(page_rec_slot(rec), PAGE_SLOT_MAX);
}
END_TEST

START_TEST(a_state_without_slot_has_nothing_but_itself)
{
	struct page_rec rec = page_rec_make(PAGE_COMING, 3, 4);

	rec.v |= PAGE_REC_UNMARKED | PAGE_REC_REFERENCED;
	ck_assert_uint_eq(page_rec_move(rec, PAGE_RESIDENT).v, 0);
	ck_assert_uint_eq(page_rec_move(rec, PAGE_POISONED).v, PAGE_POISONED);
	ck_assert_uint_eq(page_rec_make(PAGE_REMOVED, 3, 4).v, PAGE_REMOVED);
}
END_TEST

START_TEST(unmarked_is_kept_while_away)
{
	struct page_rec rec = page_rec_make(PAGE_STAGED, 3, 4);

	rec.v |= PAGE_REC_UNMARKED;
	rec = page_rec_move(rec, PAGE_STORED);
	ck_assert_uint_ne(rec.v & PAGE_REC_UNMARKED, 0);
	ck_assert_uint_ne(page_rec_move(rec, PAGE_COMING).v & PAGE_REC_UNMARKED, 0);
}
END_TEST

START_TEST(a_forbidden_move_aborts)
{
	fixture_expect_error("RESIDENT to STORED");
	page_rec_move((struct page_rec){ .v = 0 }, PAGE_STORED);
}
END_TEST

START_TEST(a_record_of_an_unknown_state_aborts)
{
	fixture_expect_error("unknown to RESIDENT");
	page_rec_move((struct page_rec){ .v = 0xf }, PAGE_RESIDENT);
}
END_TEST

START_TEST(store_zero_aborts)
{
	fixture_expect_error("no such store or slot");
	page_rec_make(PAGE_STORED, 0, 1);
}
END_TEST

START_TEST(a_slot_too_large_aborts)
{
	fixture_expect_error("no such store or slot");
	page_rec_make(PAGE_STORED, 1, PAGE_SLOT_MAX + 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("page_state");
	TCase *tcase = tcase_create("page_state");

	tcase_add_test(tcase, exactly_these_moves_are_allowed);
	tcase_add_test(tcase, a_record_keeps_its_store_and_slot);
	tcase_add_test(tcase, a_state_without_slot_has_nothing_but_itself);
	tcase_add_test(tcase, unmarked_is_kept_while_away);
	tcase_add_test_raise_signal(tcase, a_forbidden_move_aborts, SIGABRT);
	tcase_add_test_raise_signal(tcase, a_record_of_an_unknown_state_aborts, SIGABRT);
	tcase_add_test_raise_signal(tcase, store_zero_aborts, SIGABRT);
	tcase_add_test_raise_signal(tcase, a_slot_too_large_aborts, SIGABRT);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
