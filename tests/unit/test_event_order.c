/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events are not read in the order of the changes. Whatever order it is, the records end where
 * the memory is.
 */
#include <unistd.h>

#include "event.h"
#include "fault.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "uffd.h"

/* Places of one page each, far apart. */
#define PLACE(i) (0x10000ull * ((i) + 1))
enum { HERE, THERE, GROUND, FAR, N_PLACES };

static struct space space;
static struct space_unit unit;
static struct page_rec recs[N_PLACES]; /* what lay there in the beginning */

bool __wrap_fault_read_batch(struct space *of);
bool __wrap_fault_read_batch(struct space *of)
{
	(void)of;
	return false;
}

static uint32_t settled_for; /* so often it says yes */

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return settled_for && settled_for-- ? UFFD_OK : UFFD_AGAIN;
}

/* What the page table shows, where one can look at all: this place has kept its marker. */
static unsigned int marked;
static enum uffd_result registered;

int __wrap_fault_read_pagemap(const struct space *of, uint64_t pgidx, uint32_t n, uint64_t *ret);
int __wrap_fault_read_pagemap(const struct space *of, uint64_t pgidx, uint32_t n, uint64_t *ret)
{
	(void)of;
	for (uint32_t i = 0; i < n; i++)
		ret[i] = pgidx + i == PLACE(marked) ? UHMM_PAGEMAP_UFFD_WP : 0;
	return (int)n;
}

enum uffd_result __wrap_uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size);
enum uffd_result __wrap_uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size)
{
	(void)uffd, (void)addr, (void)page_size;
	return registered;
}

static uint64_t start_of(unsigned int place)
{
	return space_addr(&space, PLACE(place));
}

/* Whose events are heard next; 0: nobody knows. */
static uint8_t thread;

static struct uffd_msg *next_msg(uint8_t event)
{
	uint32_t room;
	struct uffd_msg *msg = event_log_room(&space.log, &room);

	ck_assert_ptr_nonnull(msg);
	msg->event = event;
	msg->LOG_WHO = thread;
	event_log_add(&space.log, 1);
	space.n_events++;
	return msg;
}

static void hear_remap_of(unsigned int from, unsigned int to, uint64_t n_pages)
{
	struct uffd_msg *msg = next_msg(UFFD_EVENT_REMAP);

	msg->arg.remap.from = start_of(from);
	msg->arg.remap.to = start_of(to);
	msg->arg.remap.len = n_pages * space.page_size;
}

static void hear_remap(unsigned int from, unsigned int to)
{
	hear_remap_of(from, to, 1);
}

static void hear_of_pages(uint8_t event, unsigned int place, uint64_t n_pages)
{
	struct uffd_msg *msg = next_msg(event);

	msg->arg.remove.start = start_of(place);
	msg->arg.remove.end = start_of(place) + n_pages * space.page_size;
}

static void hear_of(uint8_t event, unsigned int place)
{
	hear_of_pages(event, place, 1);
}

/* An mremap and, from the same thread, its tail. */
static void hear_move(unsigned int from, unsigned int to)
{
	hear_remap(from, to);
	hear_of(UFFD_EVENT_UNMAP, from);
}

/* That many pages are mapped there, and the first of them is away. */
static void occupy_pages(unsigned int place, uint64_t n_pages)
{
	ck_assert_int_eq(ranges_add(&space.occupied, start_of(place),
				    start_of(place) + n_pages * space.page_size, 0),
			 0);
	recs[place] = check_stored(space.family);
	ck_assert_int_eq(pagemap_set(&space.map, PLACE(place), recs[place]), 0);
}

static void occupy(unsigned int place)
{
	occupy_pages(place, 1);
}

/* At `place` is what lay at `origin`; N_PLACES: nothing. */
static void must_be(unsigned int place, unsigned int origin)
{
	uint64_t v = origin == N_PLACES ? 0 : recs[origin].v;

	ck_assert_uint_eq(pagemap_get(&space.map, PLACE(place)).v, v);
}

static void setup(void)
{
	space = (struct space){ .uffd = -1, .unit = &unit };
	thread = 0;
	marked = N_PLACES;
	settled_for = UINT32_MAX;
	registered = UFFD_NO_VMA;
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.family = check_family(64, 8);
	ck_assert_int_eq(pagemap_init(&space.map, space.family), 0);
	ck_assert_int_eq(event_log_init(&space.log, &space.family->arena, &unit.log), 0);
}

START_TEST(mremap_onto_occupied_ground_waits_for_who_frees_it)
{
	occupy(HERE);
	occupy(GROUND);
	hear_remap(HERE, GROUND);
	hear_of(UFFD_EVENT_UNMAP, HERE); /* its tail */
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	event_settle(&space);
	must_be(GROUND, HERE);
	must_be(HERE, N_PLACES);
}
END_TEST

START_TEST(mremap_onto_free_ground_goes_first)
{
	occupy(HERE);
	hear_move(HERE, GROUND);
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	event_settle(&space);
	must_be(GROUND, N_PLACES);
	must_be(HERE, N_PLACES);
}
END_TEST

/* HERE is moved onto ground that another thread has just freed, and says so late; then THERE is
 * moved onto HERE. */
START_TEST(who_comes_onto_the_place_of_one_that_waits_waits_too)
{
	occupy(HERE);
	occupy(THERE);
	occupy(GROUND);
	hear_remap(HERE, GROUND); /* MREMAP_DONTUNMAP: without a tail */
	hear_of(UFFD_EVENT_UNMAP, HERE); /* of the next mremap's MREMAP_FIXED */
	hear_move(THERE, HERE);
	hear_of(UFFD_EVENT_UNMAP, GROUND); /* the other thread's */
	event_settle(&space);
	must_be(GROUND, HERE);
	must_be(HERE, THERE);
	must_be(THERE, N_PLACES);
}
END_TEST

START_TEST(what_was_moved_away_before_it_was_given_up_there_stays)
{
	occupy(HERE);
	occupy(GROUND);
	hear_remap(HERE, GROUND);
	hear_of(UFFD_EVENT_REMOVE, HERE); /* of what was left empty there */
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	event_settle(&space);
	must_be(GROUND, HERE);
}
END_TEST

START_TEST(what_is_given_up_where_it_has_come_to_is_given_up)
{
	occupy(HERE);
	occupy(GROUND);
	hear_move(HERE, GROUND);
	hear_of(UFFD_EVENT_REMOVE, GROUND);
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	event_settle(&space);
	ck_assert_int_eq(page_rec_state(pagemap_get(&space.map, PLACE(GROUND))), PAGE_REMOVED);
}
END_TEST

START_TEST(others_do_not_wait_for_one_that_waits)
{
	occupy(HERE);
	occupy(GROUND);
	occupy(THERE);
	hear_move(HERE, GROUND);
	hear_move(THERE, FAR);
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	event_settle(&space);
	must_be(FAR, THERE);
	must_be(GROUND, HERE);
}
END_TEST

/* GROUND becomes free, THERE and HERE change places over it, and only then the first thread says
 * that what was on GROUND is FAR. */
static void others_swap_over_ground(uint64_t n_pages)
{
	thread = thread ? 1 : 0;
	hear_remap_of(HERE, GROUND, n_pages);
	hear_of_pages(UFFD_EVENT_UNMAP, HERE, n_pages);
	hear_remap_of(THERE, HERE, n_pages);
	hear_of_pages(UFFD_EVENT_UNMAP, THERE, n_pages);
	hear_remap_of(GROUND, THERE, n_pages);
	hear_of_pages(UFFD_EVENT_UNMAP, GROUND, n_pages);
	thread = thread ? 2 : 0;
	hear_move(GROUND, FAR);
}

START_TEST(who_frees_the_ground_does_not_wait_for_what_is_to_come_there)
{
	occupy_pages(HERE, 2);
	occupy_pages(THERE, 2);
	occupy(GROUND);
	others_swap_over_ground(2);
	event_settle(&space);
	must_be(FAR, GROUND);
	must_be(HERE, THERE);
	must_be(THERE, HERE);
}
END_TEST

START_TEST(of_two_that_leave_the_ground_the_thread_tells_which_was_first)
{
	thread = 1;
	occupy(HERE);
	occupy(THERE);
	occupy(GROUND);
	others_swap_over_ground(1);
	event_settle(&space);
	must_be(FAR, GROUND);
	must_be(HERE, THERE);
	must_be(THERE, HERE);
}
END_TEST

START_TEST(what_a_thread_moves_on_at_once_does_not_free_the_ground_for_it)
{
	occupy(HERE);
	occupy(GROUND);
	thread = 1;
	hear_move(HERE, GROUND);
	hear_move(GROUND, THERE);
	thread = 2;
	hear_move(GROUND, FAR);
	event_settle(&space);
	must_be(FAR, GROUND);
	must_be(THERE, HERE);
}
END_TEST

START_TEST(what_a_thread_unmaps_is_what_it_has_moved_there)
{
	occupy(HERE);
	occupy(GROUND);
	thread = 1;
	hear_move(HERE, GROUND);
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	thread = 2;
	hear_move(GROUND, FAR);
	event_settle(&space);
	must_be(FAR, GROUND);
	must_be(GROUND, N_PLACES);
}
END_TEST

/* One thread takes the place that another has left, and unmaps where the other has gone to. */
START_TEST(who_frees_the_ground_does_not_wait_for_who_waits_for_it)
{
	occupy(HERE);
	occupy(THERE);
	thread = 1;
	hear_move(THERE, HERE);
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	thread = 2;
	hear_move(HERE, GROUND);
	event_settle(&space);
	must_be(HERE, THERE);
	must_be(GROUND, N_PLACES);
}
END_TEST

START_TEST(a_tail_that_is_taken_for_anothers_event_is_found)
{
	occupy(HERE);
	occupy(GROUND);
	thread = 1;
	hear_remap(HERE, GROUND);
	thread = 2;
	hear_remap(GROUND, FAR);
	thread = 1; /* it is the second's */
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	hear_of(UFFD_EVENT_UNMAP, HERE);
	event_settle(&space);
	must_be(FAR, GROUND);
	must_be(GROUND, HERE);
}
END_TEST

START_TEST(of_two_that_may_be_its_tail_the_threads_own_is)
{
	occupy(HERE);
	occupy(THERE);
	occupy(GROUND);
	thread = 1;
	hear_remap(GROUND, FAR);
	thread = 2;
	hear_move(HERE, GROUND);
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	hear_move(THERE, GROUND);
	thread = 1;
	hear_of(UFFD_EVENT_UNMAP, GROUND);
	event_settle(&space);
	must_be(FAR, GROUND);
	must_be(GROUND, THERE);
}
END_TEST

START_TEST(a_tail_that_nobody_was_seen_to_wait_for_is_found)
{
	occupy(HERE);
	thread = 1;
	hear_remap(HERE, GROUND);
	thread = 0;
	hear_of(UFFD_EVENT_UNMAP, HERE);
	thread = 1;
	hear_move(GROUND, HERE);
	hear_move(HERE, FAR);
	event_settle(&space);
	must_be(FAR, HERE);
	ck_assert(!ranges_find(&space.occupied, start_of(HERE)));
	ck_assert(!ranges_find(&space.occupied, start_of(GROUND)));
}
END_TEST

/* One whose process is known, with memory of three pages; the first and the last are away. */
static void occupy_three_of_known(void)
{
	space.identified = true;
	occupy_pages(HERE, 3);
	recs[THERE] = check_stored(space.family);
	ck_assert_int_eq(pagemap_set(&space.map, PLACE(HERE) + 2, recs[THERE]), 0);
	ck_assert_int_eq(ranges_add(&space.registered, start_of(HERE),
				    start_of(HERE) + 3 * space.page_size, 0),
			 0);
	registered = UFFD_OK;
}

START_TEST(what_has_kept_its_marker_was_not_unmapped)
{
	occupy_three_of_known();
	marked = HERE;
	hear_of_pages(UFFD_EVENT_UNMAP, HERE, 3);
	event_settle(&space);
	must_be(HERE, HERE);
	ck_assert_uint_eq(pagemap_get(&space.map, PLACE(HERE) + 2).v, 0);
	ck_assert_uint_eq(ranges_bytes(&space.registered), 3 * space.page_size);
}
END_TEST

START_TEST(what_the_kernel_calls_registered_is_known_to_be)
{
	occupy_three_of_known();
	hear_of_pages(UFFD_EVENT_UNMAP, HERE, 2);
	event_settle(&space);
	must_be(HERE, N_PLACES);
	ck_assert_uint_eq(pagemap_get(&space.map, PLACE(HERE) + 2).v, recs[THERE].v);
	ck_assert_uint_eq(ranges_bytes(&space.registered), 3 * space.page_size);
	registered = UFFD_NO_VMA;
	hear_of_pages(UFFD_EVENT_UNMAP, HERE, 2);
	event_settle(&space);
	ck_assert_uint_eq(ranges_bytes(&space.registered), space.page_size);
}
END_TEST

/* It may have gone, and the marker have come with another. */
START_TEST(a_marker_on_ground_that_something_was_moved_to_says_nothing)
{
	occupy_three_of_known();
	marked = HERE;
	hear_of_pages(UFFD_EVENT_UNMAP, HERE, 3);
	hear_move(GROUND, HERE);
	event_settle(&space);
	must_be(HERE, N_PLACES);
}
END_TEST

START_TEST(a_marker_that_was_seen_while_an_event_came_says_nothing)
{
	occupy_three_of_known();
	marked = HERE;
	settled_for = 1;
	hear_of_pages(UFFD_EVENT_UNMAP, HERE, 3);
	event_settle(&space);
	must_be(HERE, N_PLACES);
	ck_assert_uint_eq(pagemap_get(&space.map, PLACE(HERE) + 2).v, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event_order");
	TCase *tcase = tcase_create("order");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, mremap_onto_occupied_ground_waits_for_who_frees_it);
	tcase_add_test(tcase, mremap_onto_free_ground_goes_first);
	tcase_add_test(tcase, who_comes_onto_the_place_of_one_that_waits_waits_too);
	tcase_add_test(tcase, what_was_moved_away_before_it_was_given_up_there_stays);
	tcase_add_test(tcase, what_is_given_up_where_it_has_come_to_is_given_up);
	tcase_add_test(tcase, others_do_not_wait_for_one_that_waits);
	tcase_add_test(tcase, who_frees_the_ground_does_not_wait_for_what_is_to_come_there);
	tcase_add_test(tcase, of_two_that_leave_the_ground_the_thread_tells_which_was_first);
	tcase_add_test(tcase, what_a_thread_moves_on_at_once_does_not_free_the_ground_for_it);
	tcase_add_test(tcase, what_a_thread_unmaps_is_what_it_has_moved_there);
	tcase_add_test(tcase, who_frees_the_ground_does_not_wait_for_who_waits_for_it);
	tcase_add_test(tcase, a_tail_that_is_taken_for_anothers_event_is_found);
	tcase_add_test(tcase, of_two_that_may_be_its_tail_the_threads_own_is);
	tcase_add_test(tcase, a_tail_that_nobody_was_seen_to_wait_for_is_found);
	tcase_add_test(tcase, what_has_kept_its_marker_was_not_unmapped);
	tcase_add_test(tcase, what_the_kernel_calls_registered_is_known_to_be);
	tcase_add_test(tcase, a_marker_on_ground_that_something_was_moved_to_says_nothing);
	tcase_add_test(tcase, a_marker_that_was_seen_while_an_event_came_says_nothing);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
