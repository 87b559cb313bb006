/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A set of events that a daemon left half done, and what is read after it. */
#include <unistd.h>

#include "event.h"
#include "fault.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "uffd.h"

#define N 4u
#define PAGE(i) (0x1000u + (i))

static struct space space;
static struct space_unit unit;
static unsigned int n_unread; /* events that tell of the next PAGEs */
static unsigned int n_told;

static void tell(void)
{
	uint32_t room;
	struct uffd_msg *msg = event_log_room(&space.log, &room);

	ck_assert_ptr_nonnull(msg);
	msg->event = UFFD_EVENT_UNMAP;
	msg->arg.remove.start = space_addr(&space, PAGE(n_told));
	msg->arg.remove.end = space_addr(&space, PAGE(n_told + 1));
	event_log_add(&space.log, 1);
	space.n_events++;
	n_told++;
}

bool __wrap_fault_read_batch(struct space *of);
bool __wrap_fault_read_batch(struct space *of)
{
	ck_assert_ptr_eq(of, &space);
	if (n_unread == 0)
		return false;
	n_unread--;
	tell();
	return true;
}

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return UFFD_OK;
}

static void setup(void)
{
	space = (struct space){ .uffd = -1, .unit = &unit };
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.family = check_family(64, 8);
	ck_assert_int_eq(pagemap_init(&space.map, space.family), 0);
	ck_assert_int_eq(event_log_init(&space.log, &space.family->arena, &unit.log), 0);
	for (uint64_t i = 0; i < N; i++)
		ck_assert_int_eq(pagemap_set(&space.map, PAGE(i),
					     page_rec_make(PAGE_POISONED, 0, 0)),
				 0);
}

/* Of the first n the map knows nothing any more, and of the others it does. */
static void must_be_forgotten(unsigned int n)
{
	for (unsigned int i = 0; i < N; i++)
		ck_assert_int_eq(pagemap_get(&space.map, PAGE(i)).v != 0, i >= n);
}

START_TEST(what_is_read_after_a_set_that_has_its_order_is_applied_too)
{
	tell();
	tell();
	for (uint32_t i = 0; i < 2; i++)
		event_log_at(&space.log, i)->LOG_TURN = i + 1;
	event_log_flag(event_log_at(&space.log, 0), LOG_DONE);
	unit.log_is_ordered = 1;
	space.n_events = 1;
	n_unread = 2;
	event_settle(&space);
	event_settle(&space);
	ck_assert(pagemap_get(&space.map, PAGE(0)).v != 0); /* that was done before */
	for (unsigned int i = 1; i < N; i++)
		ck_assert(pagemap_get(&space.map, PAGE(i)).v == 0);
	ck_assert_uint_eq(unit.log_is_ordered, 0);
	ck_assert_uint_eq(space.log.n, 0);
}
END_TEST

START_TEST(an_order_that_was_not_finished_is_made_anew)
{
	tell();
	tell();
	event_log_at(&space.log, 1)->LOG_TURN = 1;
	n_unread = 1;
	event_settle(&space);
	must_be_forgotten(3);
	ck_assert_uint_eq(space.n_events, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event");
	TCase *tcase = tcase_create("left");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, what_is_read_after_a_set_that_has_its_order_is_applied_too);
	tcase_add_test(tcase, an_order_that_was_not_finished_is_made_anew);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
