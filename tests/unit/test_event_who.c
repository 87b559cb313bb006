/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose event it is, of the threads that were seen to wait. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "fixture.h"
#include "space.h"

static struct space space;

static void waits(pid_t tid, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a4)
{
	uint32_t i = space.who.n_waiting++;

	space.who.waiting[i].tid = tid;
	space.who.waiting[i].call =
		(struct threads_call){ .nr = nr, .args = { a0, a1, a2, 0, a4 }, .sp = 1 };
}

static uint8_t whose(uint8_t event, uint64_t start, uint64_t end)
{
	struct uffd_msg msg = { .event = event };

	if (event == UFFD_EVENT_REMAP) {
		msg.arg.remap.from = start;
		msg.arg.remap.to = 0x900000;
		msg.arg.remap.len = end - start;
	} else if (event != UFFD_EVENT_FORK) {
		msg.arg.remove.start = start;
		msg.arg.remove.end = end;
	}
	event_who_note(&space, &msg);
	return msg.LOG_WHO;
}

static void setup(void)
{
	event_who_forget(&space.who);
}

START_TEST(the_call_tells_whose_event_it_is)
{
	waits(100, SYS_munmap, 0x1000, 0x5000, 0, 0);
	waits(101, SYS_mremap, 0x10000, 0x4000, 0x4000, 0x900000);
	waits(102, SYS_madvise, 0x20000, 0x1000, MADV_DONTNEED, 0);
	waits(103, SYS_clone, 0, 0, 0, 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_REMOVE, 0x20000, 0x21000), 1);
	ck_assert_uint_eq(whose(UFFD_EVENT_FORK, 0, 0), 2);
	ck_assert_uint_eq(whose(UFFD_EVENT_REMAP, 0x10000, 0x14000), 3);
	/* Of what is unmapped only the end was registered. */
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x3000, 0x6000), 4);
	ck_assert_uint_eq(space.who.n_waiting, 0);
}
END_TEST

START_TEST(a_call_brings_only_its_kind_and_its_place)
{
	waits(100, SYS_munmap, 0x1000, 0x5000, 0, 0);
	waits(101, SYS_madvise, 0x1000, 0x5000, MADV_DONTNEED, 0);
	waits(102, SYS_futex, 0x1000, 0x5000, 0, 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x6000, 0x7000), 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_REMAP, 0x1000, 0x6000), 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_FORK, 0, 0), 0);
	ck_assert_uint_eq(space.who.n_waiting, 3);
}
END_TEST

START_TEST(an_mremap_unmaps_its_destination_and_its_source)
{
	waits(100, SYS_mremap, 0x10000, 0x4000, 0x2000, 0x900000);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x900000, 0x902000), 1);
	waits(100, SYS_mremap, 0x10000, 0x4000, 0x2000, 0x900000);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x12000, 0x14000), 1);
	waits(100, SYS_mremap, 0x10000, 0x4000, 0x2000, 0x900000);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x10000, 0x12000), 1);
}
END_TEST

START_TEST(what_two_can_have_brought_is_nobodys)
{
	waits(100, SYS_munmap, 0x1000, 0x5000, 0, 0);
	waits(101, SYS_munmap, 0x1000, 0x1000, 0, 0);
	waits(102, SYS_munmap, 0x8000, 0x1000, 0, 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), 0);
	/* Which of them waits still nobody knows. */
	ck_assert_uint_eq(space.who.n_waiting, 1);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x8000, 0x9000), 1);
}
END_TEST

START_TEST(more_threads_than_numbers_are_not_mixed_up)
{
	for (pid_t tid = 1; tid <= (pid_t)WHO_TIDS_MAX; tid++) {
		waits(tid, SYS_munmap, 0x1000, 0x1000, 0, 0);
		ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), (uint8_t)tid);
	}
	waits(WHO_TIDS_MAX + 1, SYS_munmap, 0x1000, 0x1000, 0, 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), 0);
	waits(7, SYS_munmap, 0x1000, 0x1000, 0, 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), 7);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event_who");
	TCase *tcase = tcase_create("whose");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, the_call_tells_whose_event_it_is);
	tcase_add_test(tcase, a_call_brings_only_its_kind_and_its_place);
	tcase_add_test(tcase, an_mremap_unmaps_its_destination_and_its_source);
	tcase_add_test(tcase, what_two_can_have_brought_is_nobodys);
	tcase_add_test(tcase, more_threads_than_numbers_are_not_mixed_up);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
