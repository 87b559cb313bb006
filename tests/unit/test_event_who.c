/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is seen to wait, and whose event it is of those who were. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fixture.h"
#include "space.h"
#include "uffd.h"

#define GIVEN_UP 4000

static struct space space;

#define MOVED_TO 0x900000ull

static void waits_moving(pid_t tid, uint64_t from, uint64_t old_len, uint64_t new_len, int flags,
			 uint64_t to)
{
	uint32_t i = space.who.n_waiting++;

	space.who.waiting[i].tid = tid;
	space.who.waiting[i].call = (struct threads_call){
		.nr = SYS_mremap, .args = { from, old_len, new_len, (uint64_t)flags, to }, .sp = 1
	};
}

static void waits(pid_t tid, long nr, uint64_t start, uint64_t len)
{
	waits_moving(tid, start, len, 0, 0, 0);
	space.who.waiting[space.who.n_waiting - 1].call.nr = nr;
}

static uint8_t whose(uint8_t event, uint64_t start, uint64_t end)
{
	struct uffd_msg msg = { .event = event };

	if (event == UFFD_EVENT_REMAP) {
		msg.arg.remap.from = start;
		msg.arg.remap.to = MOVED_TO;
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
	space.page_size = 4096;
	event_who_forget(&space.who);
}

START_TEST(the_call_tells_whose_event_it_is)
{
	waits(100, SYS_munmap, 0x1000, 0x4001);
	waits_moving(101, 0x10000, 0x4000, 0x4000, MREMAP_MAYMOVE | MREMAP_FIXED, MOVED_TO);
	waits(102, SYS_madvise, 0x20000, 0x2000);
	waits(103, SYS_clone, 0, 0);
	ck_assert_uint_eq(whose(UFFD_EVENT_REMOVE, 0x21000, 0x22000), 1);
	ck_assert_uint_eq(whose(UFFD_EVENT_FORK, 0, 0), 2);
	ck_assert_uint_eq(whose(UFFD_EVENT_REMAP, 0x10000, 0x14000), 3);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x6000), 4);
	ck_assert_uint_eq(space.who.n_waiting, 0);
}
END_TEST

/* Then somebody waits who was not seen, and so may others. */
static void must_be_nobodys(uint8_t event, uint64_t start, uint64_t end)
{
	event_who_forget(&space.who);
	waits(100, SYS_munmap, 0x1000, 0x5000);
	waits(101, SYS_madvise, 0x1000, 0x5000);
	waits(102, SYS_futex, 0x1000, 0x5000);
	waits_moving(103, 0x10000, 0x4000, 0x4000, MREMAP_MAYMOVE | MREMAP_FIXED, 0x800000);
	waits_moving(104, 0x20000, 0x4000, 0x4000, MREMAP_MAYMOVE, MOVED_TO);
	ck_assert_uint_eq(whose(event, start, end), 0);
	ck_assert_uint_eq(space.who.n_waiting, 0);
}

START_TEST(a_call_brings_only_its_kind_and_its_place)
{
	must_be_nobodys(UFFD_EVENT_FORK, 0, 0);
	must_be_nobodys(UFFD_EVENT_UNMAP, 0x6000, 0x7000);
	must_be_nobodys(UFFD_EVENT_UNMAP, 0x2000, 0x6000);
	must_be_nobodys(UFFD_EVENT_REMOVE, 0x5000, 0x7000);
	must_be_nobodys(UFFD_EVENT_REMAP, 0x1000, 0x6000);
	/* That one goes elsewhere. */
	must_be_nobodys(UFFD_EVENT_REMAP, 0x10000, 0x14000);
	/* Its fifth argument says nothing. */
	must_be_nobodys(UFFD_EVENT_UNMAP, MOVED_TO, MOVED_TO + 0x4000);
}
END_TEST

static uint8_t unmapped_by_mremap(uint64_t start, uint64_t end)
{
	event_who_forget(&space.who);
	waits_moving(100, 0x10000, 0x4000, 0x2000, MREMAP_MAYMOVE | MREMAP_FIXED, MOVED_TO);
	return whose(UFFD_EVENT_UNMAP, start, end);
}

START_TEST(an_mremap_unmaps_its_destination_and_its_source)
{
	ck_assert_uint_eq(unmapped_by_mremap(MOVED_TO, MOVED_TO + 0x2000), 1);
	ck_assert_uint_eq(unmapped_by_mremap(0x12000, 0x14000), 1);
	ck_assert_uint_eq(unmapped_by_mremap(0x10000, 0x12000), 1);
	ck_assert_uint_eq(unmapped_by_mremap(MOVED_TO, MOVED_TO + 0x1000), 0);
	ck_assert_uint_eq(unmapped_by_mremap(0x10000, 0x14000), 0);
}
END_TEST

START_TEST(what_two_can_have_brought_is_nobodys)
{
	waits(100, SYS_munmap, 0x1000, 0x5000);
	waits(101, SYS_mmap, 0x1000, 0x5000);
	waits(102, SYS_munmap, 0x8000, 0x1000);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x6000), 0);
	/* Which of them waits still nobody knows. */
	ck_assert_uint_eq(space.who.n_waiting, 1);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x8000, 0x9000), 1);
}
END_TEST

START_TEST(more_threads_than_numbers_are_not_mixed_up)
{
	for (pid_t tid = 1; tid <= (pid_t)WHO_TIDS_MAX; tid++) {
		waits(tid, SYS_munmap, 0x1000, 0x1000);
		ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), (uint8_t)tid);
	}
	waits(WHO_TIDS_MAX + 1, SYS_munmap, 0x1000, 0x1000);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), 0);
	waits(7, SYS_munmap, 0x1000, 0x1000);
	ck_assert_uint_eq(whose(UFFD_EVENT_UNMAP, 0x1000, 0x2000), 7);
}
END_TEST

struct giver {
	char *page;
	pid_t tid; /* atomic */
};

static void *give_up(void *arg)
{
	struct giver *giver = arg;

	__atomic_store_n(&giver->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	for (int i = 0; i < GIVEN_UP; i++)
		(void)madvise(giver->page, 4096, MADV_DONTNEED);
	return NULL;
}

static int open_uffd(char *page)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
	struct uffdio_register reg = { .range = { .start = (uintptr_t)page, .len = 4096 },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0) {
		puts("skipped: no userfaultfd without privileges here");
		exit(77);
	}
	ck_assert_int_eq(ioctl(uffd, UFFDIO_API, &api), 0);
	ck_assert_int_eq(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
	return uffd;
}

/* From the instant on at which its event can be read, when it may not sleep yet. */
START_TEST(who_waits_is_seen_at_once)
{
	int task_fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct giver giver = { .page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
	struct pollfd pollfd = { .fd = open_uffd(giver.page), .events = POLLIN };
	struct threads_call call;
	struct uffd_msg msg;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, give_up, &giver), 0);
	for (int i = 0; i < GIVEN_UP; i++) {
		while (poll(&pollfd, 1, 0) == 0)
			;
		fixture_must(event_who_waits(task_fd, __atomic_load_n(&giver.tid, __ATOMIC_ACQUIRE),
					     &call),
			     "round %d", i);
		ck_assert_int_eq(call.nr, SYS_madvise);
		ck_assert_uint_eq(call.args[0], (uintptr_t)giver.page);
		ck_assert_int_eq(uffd_read(pollfd.fd, &msg, sizeof(msg)), sizeof(msg));
	}
	pthread_join(thread, NULL);
	close(pollfd.fd);
	close(task_fd);
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
	tcase = tcase_create("who");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, who_waits_is_seen_at_once);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
