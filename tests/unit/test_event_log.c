/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event log: what was read is found again, also by who comes after. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "event_log.h"
#include "fixture.h"

static struct arena arena;
static struct event_log event_log;
static arena_off head;

static void setup(void)
{
	fixture_arena(&arena, 64);
	ck_assert_int_eq(event_log_init(&event_log, &arena, &head), 0);
}

static void teardown(void)
{
	event_log_deinit(&event_log);
	arena_deinit(&arena, true);
}

static uint64_t n_read;

/* As a read would: the n-th message that was read tells its number. */
static void read_some(uint32_t n)
{
	while (n) {
		uint32_t room = 0;
		struct uffd_msg *msgs = event_log_room(&event_log, &room);

		ck_assert_ptr_nonnull(msgs);
		ck_assert_uint_ge(room, LOG_ROOM_MIN);
		if (room > n)
			room = n;
		for (uint32_t i = 0; i < room; i++) {
			msgs[i].event = UFFD_EVENT_UNMAP;
			msgs[i].arg.remove.start = n_read++;
		}
		event_log_add(&event_log, room);
		n -= room;
	}
}

/* The last n that were read, and nothing else that says anything. */
static void must_hold(const struct event_log *log, uint32_t n)
{
	uint64_t next = n_read - n;

	for (uint32_t i = 0; i < log->n; i++) {
		const struct uffd_msg *msg = event_log_at(log, i);

		if (!event_log_is_done(msg))
			ck_assert_uint_eq(msg->arg.remove.start, next++);
	}
	ck_assert_uint_eq(next, n_read);
}

static void successor_must_find(uint32_t n)
{
	struct event_log after;

	ck_assert_int_eq(event_log_open(&after, &arena, head), 0);
	must_hold(&after, n);
	free(after.units);
}

START_TEST(what_was_read_is_found_by_a_successor)
{
	for (uint32_t n = 0; n < 3 * LOG_UNIT_MSGS; n += 50) {
		read_some(50);
		must_hold(&event_log, n + 50);
		successor_must_find(n + 50);
	}
}
END_TEST

START_TEST(a_read_that_nobody_counted_is_found_too)
{
	uint32_t room;
	struct uffd_msg *msgs;

	read_some(3);
	msgs = event_log_room(&event_log, &room);
	msgs[0].event = UFFD_EVENT_REMAP;
	msgs[0].arg.remove.start = n_read++;
	successor_must_find(4);
}
END_TEST

START_TEST(a_log_that_was_cleared_is_empty_and_gives_its_units_back)
{
	uint64_t room = arena_room(&arena);

	read_some(5 * LOG_UNIT_MSGS + 1);
	event_log_clear(&event_log);
	successor_must_find(0);
	ck_assert_uint_eq(arena_room(&arena), room);
	read_some(2);
	must_hold(&event_log, 2);
	successor_must_find(2);
}
END_TEST

START_TEST(without_room_in_the_arena_there_is_none_in_the_log)
{
	uint32_t room;
	arena_off off;

	read_some(LOG_UNIT_MSGS);
	while (arena_alloc(&arena, &off) == 0)
		;
	ck_assert_ptr_null(event_log_room(&event_log, &room));
	must_hold(&event_log, LOG_UNIT_MSGS);
}
END_TEST

START_TEST(a_log_that_leads_out_of_the_arena_is_refused)
{
	struct event_log after;

	ck_assert_int_eq(event_log_open(&after, &arena, 0), -EPROTO);
	ck_assert_int_eq(event_log_open(&after, &arena, head + 8), -EPROTO);
	ck_assert_int_eq(event_log_open(&after, &arena, 4096ull << 32), -EPROTO);
	event_log.units[0]->next = head; /* round and round */
	ck_assert_int_eq(event_log_open(&after, &arena, head), -EPROTO);
	event_log.units[0]->next = 0;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event_log");
	TCase *tcase = tcase_create("log");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, what_was_read_is_found_by_a_successor);
	tcase_add_test(tcase, a_read_that_nobody_counted_is_found_too);
	tcase_add_test(tcase, a_log_that_was_cleared_is_empty_and_gives_its_units_back);
	tcase_add_test(tcase, without_room_in_the_arena_there_is_none_in_the_log);
	tcase_add_test(tcase, a_log_that_leads_out_of_the_arena_is_refused);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
