/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which thread brought which event, of those that waited and those that were read. */
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "fixture.h"
#include "object.h"

#define PAGE 4096ull
#define NO_REMOVE (-1)
#define NOT_KNOWN (-2)

static struct space space;
static struct uffd_msg msgs[LOG_UNIT_MSGS];
static uint32_t n_msgs;

static void setup(void)
{
	space.page_size = PAGE;
	space.n_waiters = space.n_removed = n_msgs = 0;
}

/* Pages [first, end). */
static void waits(int advice, uint64_t first, uint64_t end)
{
	space.waiters[space.n_waiters++] = (struct event_waiter){
		.tid = 1, .advice = advice, .start = first * PAGE, .end = end * PAGE
	};
}

static void event(uint8_t type, uint64_t first, uint64_t end)
{
	msgs[n_msgs].event = type;
	msgs[n_msgs].arg.remove.start = first * PAGE;
	msgs[n_msgs++].arg.remove.end = end * PAGE;
}

static void removed(uint64_t first, uint64_t end)
{
	event(UFFD_EVENT_REMOVE, first, end);
}

static enum object_advice advice_of(uint64_t first, uint64_t end)
{
	return object_advice_of(&space, first * PAGE, end * PAGE);
}

START_TEST(the_range_tells_whose_event_it_is)
{
	waits(MADV_DONTNEED, 0, 10);
	waits(MADV_REMOVE, 20, 30);
	removed(20, 30);
	removed(0, 10);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(0, 10), OBJECT_ADVICE_DONTNEED);
	ck_assert_int_eq(advice_of(20, 30), OBJECT_ADVICE_REMOVE);
	ck_assert_int_eq(advice_of(0, 9), OBJECT_ADVICE_UNKNOWN);
}
END_TEST

START_TEST(a_part_of_a_call_is_of_its_thread)
{
	waits(MADV_REMOVE, 0, 100);
	waits(MADV_DONTNEED, 200, 300);
	removed(40, 60);
	removed(200, 201);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(40, 60), OBJECT_ADVICE_REMOVE);
	ck_assert_int_eq(advice_of(200, 201), OBJECT_ADVICE_DONTNEED);
}
END_TEST

START_TEST(who_has_brought_another_event_did_not_bring_this_one)
{
	waits(MADV_DONTNEED, 0, 100);
	waits(MADV_DONTNEED, 0, 100);
	waits(MADV_DONTNEED, 3, 50);
	waits(MADV_REMOVE, 7, 8);
	removed(7, 8);
	removed(3, 50);
	removed(0, 100);
	removed(0, 100);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(7, 8), OBJECT_ADVICE_REMOVE);
	ck_assert_int_eq(advice_of(3, 50), OBJECT_ADVICE_DONTNEED);
	ck_assert_int_eq(advice_of(0, 100), OBJECT_ADVICE_DONTNEED);
}
END_TEST

START_TEST(of_two_calls_on_one_range_the_remove_counts)
{
	waits(MADV_DONTNEED, 5, 6);
	waits(MADV_REMOVE, 5, 6);
	removed(5, 6);
	removed(5, 6);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(5, 6), OBJECT_ADVICE_REMOVE);
}
END_TEST

START_TEST(what_two_threads_may_have_brought_is_not_known)
{
	waits(MADV_DONTNEED, 0, 100);
	waits(MADV_REMOVE, 0, 100);
	removed(0, 50);
	removed(50, 100);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(0, 50), OBJECT_ADVICE_UNKNOWN);
	ck_assert_int_eq(advice_of(50, 100), OBJECT_ADVICE_UNKNOWN);
}
END_TEST

START_TEST(another_number_of_events_than_threads_says_nothing)
{
	waits(MADV_DONTNEED, 0, 10);
	removed(0, 10);
	removed(0, 10);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(0, 10), OBJECT_ADVICE_UNKNOWN);
	setup();
	waits(MADV_DONTNEED, 0, 10);
	waits(NO_REMOVE, 0, UINT64_MAX / PAGE);
	removed(0, 10);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(0, 10), OBJECT_ADVICE_UNKNOWN);
	setup();
	removed(0, 10);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(0, 10), OBJECT_ADVICE_UNKNOWN);
}
END_TEST

START_TEST(an_event_outside_of_all_calls_says_nothing)
{
	waits(MADV_DONTNEED, 0, 10);
	removed(5, 11);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(5, 11), OBJECT_ADVICE_UNKNOWN);
}
END_TEST

START_TEST(a_thread_whose_call_is_not_known_may_want_anything)
{
	waits(NOT_KNOWN, 0, 0);
	waits(MADV_DONTNEED, 0, 10);
	removed(0, 5);
	removed(20, 30);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(20, 30), OBJECT_ADVICE_UNKNOWN);
	ck_assert_int_eq(advice_of(0, 5), OBJECT_ADVICE_DONTNEED);
}
END_TEST

START_TEST(no_more_is_to_be_read_than_there_are_events)
{
	waits(MADV_DONTNEED, 0, 10);
	waits(NO_REMOVE, 0, UINT64_MAX / PAGE);
	ck_assert_uint_eq(object_left_to_read(&space, msgs, n_msgs), 2);
	event(UFFD_EVENT_PAGEFAULT, 0, 0);
	event(UFFD_EVENT_PAGEFAULT, 0, 0);
	ck_assert_uint_eq(object_left_to_read(&space, msgs, n_msgs), 2);
	event(UFFD_EVENT_UNMAP, 50, 60);
	ck_assert_uint_eq(object_left_to_read(&space, msgs, n_msgs), 1);
	removed(0, 10);
	ck_assert_uint_eq(object_left_to_read(&space, msgs, n_msgs), 0);
	object_match(&space, msgs, n_msgs);
	ck_assert_int_eq(advice_of(0, 10), OBJECT_ADVICE_DONTNEED);
}
END_TEST

/* Between the reading of a madvise that has just come and its note no page may be filled. */
START_TEST(whatever_is_read_finds_fills_held_off)
{
	static struct object object;
	struct object *objects[] = { &object };

	ck_assert_int_eq(pthread_mutex_init(&object.lock, NULL), 0);
	space.objects = objects;
	space.n_objects = 1;
	space.uffd = eventfd(1, EFD_CLOEXEC); /* there is something to be read, and no event */
	ck_assert_int_ge(space.uffd, 0);
	ck_assert_uint_eq(object_before_read(&space), 1);
	ck_assert(space.noting);
	object_end_noting(&space);
	ck_assert(!space.noting);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("object_advice");
	TCase *tcase = tcase_create("object_advice");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, the_range_tells_whose_event_it_is);
	tcase_add_test(tcase, a_part_of_a_call_is_of_its_thread);
	tcase_add_test(tcase, who_has_brought_another_event_did_not_bring_this_one);
	tcase_add_test(tcase, of_two_calls_on_one_range_the_remove_counts);
	tcase_add_test(tcase, what_two_threads_may_have_brought_is_not_known);
	tcase_add_test(tcase, another_number_of_events_than_threads_says_nothing);
	tcase_add_test(tcase, an_event_outside_of_all_calls_says_nothing);
	tcase_add_test(tcase, a_thread_whose_call_is_not_known_may_want_anything);
	tcase_add_test(tcase, no_more_is_to_be_read_than_there_are_events);
	tcase_add_test(tcase, whatever_is_read_finds_fills_held_off);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
