/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events: what an unread one stops, when it comes, and which changes raise none.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel_facts.h"
#include "uffd.h"

/* Waits until the thread that waited for its event has run again. */
static void settle_ok(int uffd)
{
	for (int i = 0; uffd_settled(uffd) == UFFD_AGAIN; i++) {
		ck_assert_int_lt(i, KF_PATIENCE_MS);
		(void)usleep(1000);
	}
}

START_TEST(unread_event_makes_copy_and_move_eagain)
{
	int uffd = kf_open_move_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(2);
	unsigned char *staging = kf_map_ok(1);
	unsigned char *other = kf_map_ok(1);
	struct kf_advise advise;

	*other = 7;
	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_advise_start(&advise, map, kf_page, MADV_DONTNEED);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 7, 0), -EAGAIN);
	ck_assert_int_eq(kf_move(uffd, staging, other, kf_page), -EAGAIN);
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMOVE);
	ck_assert(kf_thread_done(&advise.thread, KF_PATIENCE_MS));
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 7, 0), 0);
	ck_assert_int_eq(kf_move(uffd, staging, other, kf_page), 0);
}
END_TEST

START_TEST(unread_event_does_not_stop_register)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(1);
	unsigned char *other = kf_map_ok(1);
	struct kf_advise advise;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_advise_start(&advise, map, kf_page, MADV_DONTNEED);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	kf_register_ok(uffd, other, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_unregister(uffd, other, kf_page), 0);
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMOVE);
	ck_assert(kf_thread_done(&advise.thread, KF_PATIENCE_MS));
}
END_TEST

START_TEST(settled_probe_sees_unread_event_without_side_effects)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	unsigned char *map = kf_map_ok(2);
	struct kf_advise advise;
	uint64_t before;

	map[kf_page] = 7;
	kf_register_ok(uffd, map, 2 * kf_page,
		       UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	before = kf_pagemap_ok(0, map + kf_page);
	ck_assert_int_eq(uffd_settled(uffd), UFFD_OK);
	kf_advise_start(&advise, map, kf_page, MADV_DONTNEED);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	ck_assert_int_eq(uffd_settled(uffd), UFFD_AGAIN);
	ck_assert_int_eq(uffd_settled(uffd), UFFD_AGAIN);
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMOVE);
	ck_assert(kf_thread_done(&advise.thread, KF_PATIENCE_MS));
	ck_assert_int_eq(uffd_settled(uffd), UFFD_OK);
	ck_assert_uint_eq(kf_pagemap_ok(0, map + kf_page), before);
	ck_assert(kf_is_empty(0, map));
	ck_assert_uint_eq(map[kf_page], 7);
}
END_TEST

START_TEST(settled_probe_is_not_disturbed_by_an_unread_fault)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	ck_assert_int_eq(uffd_settled(uffd), UFFD_OK);
	ck_assert_int_eq(kf_fill(uffd, map, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

START_TEST(continue_tells_registered_private_memory_from_other_and_changes_nothing)
{
	int uffd = kf_open_ok(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED);
	unsigned char *map = kf_map_ok(3), *other = kf_map_ok(1);

	*map = 77;
	*other = 78;
	kf_register_ok(uffd, map, 3 * kf_page,
		       UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	ck_assert_int_eq(kf_mark(uffd, map + kf_page, kf_page), 0);
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(uffd_is_registered(uffd, (uintptr_t)map + i * kf_page, kf_page),
				 UFFD_OK);
	ck_assert_uint_eq(*(volatile unsigned char *)map, 77);
	ck_assert(kf_is_marked(getpid(), map + kf_page));
	ck_assert(kf_is_empty(getpid(), map + 2 * kf_page));
	ck_assert_int_eq(uffd_is_registered(uffd, (uintptr_t)other, kf_page), UFFD_NO_VMA);
	ck_assert_int_eq(munmap(other, kf_page), 0);
	ck_assert_int_eq(uffd_is_registered(uffd, (uintptr_t)other, kf_page), UFFD_NO_VMA);
}
END_TEST

START_TEST(remove_event_comes_before_the_zap)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(1);
	struct kf_advise advise;
	struct uffd_msg msg;

	*map = 77;
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_advise_start(&advise, map, kf_page, MADV_DONTNEED);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	(void)usleep(KF_QUIET_MS * 1000);
	ck_assert_uint_eq(*(volatile unsigned char *)map, 77);
	msg = kf_read_ok(uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_REMOVE);
	ck_assert_uint_eq(msg.arg.remove.start, (uintptr_t)map);
	ck_assert_uint_eq(msg.arg.remove.end, (uintptr_t)map + kf_page);
	ck_assert(kf_thread_done(&advise.thread, KF_PATIENCE_MS));
	ck_assert_int_eq(advise.error, 0);
	ck_assert(!kf_is_present(map));
}
END_TEST

/* A thread that gives a page up, and by its number. */
struct giver {
	struct kf_thread thread;
	unsigned char *addr;
	pid_t tid; /* atomic */
};

static void *giver_run(void *arg)
{
	struct giver *giver = arg;

	__atomic_store_n(&giver->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	(void)madvise(giver->addr, kf_page, MADV_DONTNEED);
	return NULL;
}

/* What the kernel shows of a thread of ours. */
static bool read_of(pid_t tid, const char *name, char *text, int size)
{
	char path[64];
	bool got;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/%s", tid, name);
	file = fopen(path, "re");
	got = file && fgets(text, size, file);
	if (file)
		(void)fclose(file);
	return got;
}

static bool waits_for_its_event(pid_t tid)
{
	char text[128];

	return read_of(tid, "wchan", text, sizeof(text)) &&
	       strncmp(text, "userfaultfd_event_wait", 22) == 0;
}

static unsigned long turns_ok(pid_t tid)
{
	char text[128];

	ck_assert(read_of(tid, "schedstat", text, sizeof(text)));
	return strtoul(strrchr(text, ' '), NULL, 10);
}

static void wait_until_it_waits_ok(pid_t tid)
{
	for (int i = 0; !waits_for_its_event(tid); i++) {
		ck_assert_int_lt(i, KF_PATIENCE_MS);
		(void)usleep(1000);
	}
}

/* Starts it, and waits until its event is queued. */
static void giver_start_ok(struct giver *giver, unsigned char *addr)
{
	*giver = (struct giver){ .addr = addr };
	kf_thread_start(&giver->thread, giver_run, giver);
	while (__atomic_load_n(&giver->tid, __ATOMIC_ACQUIRE) == 0)
		(void)usleep(1000);
	wait_until_it_waits_ok(giver->tid);
}

/* A giver that goes on giving. */
#define GIVEN_UP 2000

static void *giver_run_on(void *arg)
{
	for (int i = 0; i < GIVEN_UP; i++)
		(void)giver_run(arg);
	return NULL;
}

/* It may not have left its processor yet, and shows no function then. */
START_TEST(who_waits_for_an_event_to_be_read_is_shown_asleep_and_his_call_as_soon_as_he_is)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	struct giver giver = { .addr = kf_map_ok(1) };
	char text[512], call[16];

	(void)snprintf(call, sizeof(call), "%d ", SYS_madvise);
	kf_register_ok(uffd, giver.addr, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_thread_start(&giver.thread, giver_run_on, &giver);
	for (int i = 0; i < GIVEN_UP; i++) {
		pid_t tid;

		while (!kf_has_message(uffd, 0))
			;
		tid = __atomic_load_n(&giver.tid, __ATOMIC_ACQUIRE);
		ck_assert(read_of(tid, "stat", text, sizeof(text)));
		ck_assert_int_eq(strrchr(text, ')')[2], 'D');
		ck_assert(read_of(tid, "syscall", text, sizeof(text)));
		ck_assert_int_eq(strncmp(text, call, strlen(call)), 0);
		ck_assert(waits_for_its_event(tid));
		ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMOVE);
	}
	ck_assert(kf_thread_done(&giver.thread, KF_PATIENCE_MS));
}
END_TEST

#define N_GIVERS 4

START_TEST(events_are_read_in_the_order_in_which_they_were_queued)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(N_GIVERS);
	struct giver givers[N_GIVERS];

	kf_register_ok(uffd, map, N_GIVERS * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	for (int i = 0; i < N_GIVERS; i++)
		giver_start_ok(&givers[i], map + (size_t)(N_GIVERS - 1 - i) * kf_page);
	for (int i = 0; i < N_GIVERS; i++) {
		struct uffd_msg msg = kf_read_ok(uffd);

		ck_assert_uint_eq(msg.event, UFFD_EVENT_REMOVE);
		ck_assert_uint_eq(msg.arg.remove.start, (uintptr_t)givers[i].addr);
		ck_assert(kf_thread_done(&givers[i].thread, KF_PATIENCE_MS));
	}
}
END_TEST

START_TEST(reading_one_event_wakes_the_others_who_wait_and_they_wait_again)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(2);
	struct giver first, second;
	unsigned long before;

	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	giver_start_ok(&first, map);
	giver_start_ok(&second, map + kf_page);
	before = turns_ok(second.tid);
	(void)kf_read_ok(uffd);
	ck_assert(kf_thread_done(&first.thread, KF_PATIENCE_MS));
	for (int i = 0; turns_ok(second.tid) == before; i++) {
		ck_assert_int_lt(i, KF_PATIENCE_MS);
		(void)usleep(1000);
	}
	wait_until_it_waits_ok(second.tid);
	ck_assert(!kf_thread_done(&second.thread, KF_QUIET_MS));
	ck_assert_uint_eq(kf_read_ok(uffd).arg.remove.start, (uintptr_t)second.addr);
	ck_assert(kf_thread_done(&second.thread, KF_PATIENCE_MS));
}
END_TEST

START_TEST(fault_is_read_before_an_older_event)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(2);
	struct kf_touch touch;
	struct giver giver;

	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	giver_start_ok(&giver, map);
	kf_touch_start(&touch, map + kf_page);
	(void)usleep(KF_QUIET_MS * 1000);
	(void)kf_read_fault_ok(uffd, map + kf_page);
	ck_assert(waits_for_its_event(giver.tid));
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMOVE);
	ck_assert(kf_thread_done(&giver.thread, KF_PATIENCE_MS));
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

static void on_signal(int signum)
{
	(void)signum;
}

START_TEST(signal_with_a_handler_does_not_end_the_wait_for_an_event)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE);
	unsigned char *map = kf_map_ok(1);
	struct giver giver;

	ck_assert(signal(SIGUSR1, on_signal) != SIG_ERR);
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	giver_start_ok(&giver, map);
	ck_assert_int_eq(pthread_kill(giver.thread.thread, SIGUSR1), 0);
	ck_assert(!kf_thread_done(&giver.thread, KF_QUIET_MS));
	ck_assert(waits_for_its_event(giver.tid));
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMOVE);
	ck_assert(kf_thread_done(&giver.thread, KF_PATIENCE_MS));
}
END_TEST

static void *unmap_run(void *arg)
{
	(void)munmap(arg, kf_page);
	return NULL;
}

START_TEST(unmap_event_comes_after_the_unmap)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_UNMAP);
	unsigned char *map = kf_map_ok(1);
	struct kf_thread thread;
	unsigned char vec;

	*map = 77;
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_thread_start(&thread, unmap_run, map);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	/* mincore knows mappings only: ENOMEM where there is none. */
	ck_assert_int_lt(mincore(map, kf_page, &vec), 0);
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_UNMAP);
	ck_assert(kf_thread_done(&thread, KF_PATIENCE_MS));
	settle_ok(uffd);
}
END_TEST

START_TEST(moving_mremap_is_remap_and_then_unmap_of_its_source)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP);
	unsigned char *map = kf_map_ok(1);
	struct kf_remap remap;
	struct uffd_msg msg;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_remap_start(&remap, map, kf_map_ok(1), kf_page);
	msg = kf_read_ok(uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_REMAP);
	ck_assert_uint_eq(msg.arg.remap.from, (uintptr_t)map);
	msg = kf_read_ok(uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_UNMAP);
	ck_assert_uint_eq(msg.arg.remove.start, (uintptr_t)map);
	ck_assert(kf_thread_done(&remap.thread, KF_PATIENCE_MS));
	settle_ok(uffd);
}
END_TEST

static void *map_over_run(void *arg)
{
	(void)mmap(arg, kf_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0);
	return NULL;
}

static void *unmap_three_run(void *arg)
{
	(void)munmap(arg, 3 * kf_page);
	return NULL;
}

START_TEST(unmap_event_names_all_that_is_unmapped)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_UNMAP);
	unsigned char *map = kf_map_ok(3);
	struct kf_thread thread;
	struct uffd_msg msg;

	kf_register_ok(uffd, map + kf_page, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_thread_start(&thread, unmap_three_run, map);
	msg = kf_read_ok(uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_UNMAP);
	ck_assert_uint_eq(msg.arg.remove.start, (uintptr_t)map);
	ck_assert_uint_eq(msg.arg.remove.end, (uintptr_t)map + 3 * kf_page);
	ck_assert(kf_thread_done(&thread, KF_PATIENCE_MS));
}
END_TEST

START_TEST(mapping_over_raises_unmap)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_UNMAP);
	unsigned char *map = kf_map_ok(1);
	struct kf_thread thread;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_thread_start(&thread, map_over_run, map);
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_UNMAP);
	ck_assert(kf_thread_done(&thread, KF_PATIENCE_MS));
	/* What lies there now is not registered. */
	ck_assert_uint_eq(*map, 0);
}
END_TEST

/* One page over which too much is to be mapped. */
struct no_room {
	struct kf_thread thread;
	unsigned char *addr;
	int error;
};

static void *no_room_run(void *arg)
{
	struct no_room *no_room = arg;
	struct rlimit old, none;

	if (getrlimit(RLIMIT_AS, &old) < 0)
		return NULL;
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = old.rlim_max };
	(void)setrlimit(RLIMIT_AS, &none);
	if (mmap(no_room->addr, 2 * kf_page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		no_room->error = errno;
	(void)setrlimit(RLIMIT_AS, &old);
	return NULL;
}

/* The second page of the two is free. Present, and marked, is what is there afterwards. */
START_TEST(mapping_over_that_fails_may_raise_unmap_and_leaves_all_as_it_was)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			      UFFD_FEATURE_WP_UNPOPULATED);
	struct no_room no_room = { .addr = kf_map_ok(4) };
	unsigned char *map = no_room.addr;
	struct kf_touch touch;
	bool raised;

	ck_assert_int_eq(munmap(map + 2 * kf_page, kf_page), 0);
	no_room.addr = map + kf_page;
	*map = 7;
	kf_register_ok(uffd, map, 2 * kf_page,
		       UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	ck_assert_int_eq(kf_mark(uffd, map + kf_page, kf_page), 0);
	kf_thread_start(&no_room.thread, no_room_run, &no_room);
	raised = kf_has_message(uffd, KF_QUIET_MS);
	if (raised)
		ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_UNMAP);
	ck_assert(kf_thread_done(&no_room.thread, KF_PATIENCE_MS));
	ck_assert_int_eq(no_room.error, ENOMEM);
	ck_assert(kf_is_marked(0, map + kf_page));
	ck_assert_uint_eq(*map, 7);
	kf_touch_start(&touch, map + kf_page);
	(void)kf_read_fault_ok(uffd, map + kf_page);
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 8, 0), 0);
	kf_touch_ends_ok(&touch, 8);
	if (!raised)
		kf_skip("an mmap that fails raises UNMAP all the same",
			"this kernel looks for room before it unmaps");
}
END_TEST

START_TEST(mprotect_cold_and_pageout_raise_no_event)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
			      UFFD_FEATURE_EVENT_REMAP);
	unsigned char *map = kf_map_ok(1);

	*map = 7;
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(mprotect(map, kf_page, PROT_READ), 0);
	ck_assert_int_eq(madvise(map, kf_page, MADV_COLD), 0);
	ck_assert_int_eq(madvise(map, kf_page, MADV_PAGEOUT), 0);
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
}
END_TEST

/* Two pages, with as much free room behind them. */
static unsigned char *map_with_room_ok(void)
{
	unsigned char *map = kf_map_ok(4);

	ck_assert_int_eq(munmap(map + 2 * kf_page, 2 * kf_page), 0);
	return map;
}

START_TEST(mremap_growth_in_place_is_registered)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMAP);
	unsigned char *map = map_with_room_ok();
	struct kf_touch touch;

	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_ptr_eq(mremap(map, 2 * kf_page, 4 * kf_page, 0), map);
	kf_touch_start(&touch, map + 3 * kf_page);
	(void)kf_read_fault_ok(uffd, map + 3 * kf_page);
	ck_assert_int_eq(kf_fill(uffd, map + 3 * kf_page, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

struct growth {
	struct kf_thread thread;
	unsigned char *from, *to;
};

static void *growth_run(void *arg)
{
	struct growth *growth = arg;

	growth->to = mremap(growth->from, kf_page, 3 * kf_page, MREMAP_MAYMOVE);
	return NULL;
}

/* Nobody can serve it: daemon/populate.c lets the ground go. */
START_TEST(locked_growth_that_moves_faults_before_its_remap_event)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMAP);
	struct growth growth = { .from = kf_map_ok(2) };
	struct uffd_msg msg;
	unsigned char *at;

	*growth.from = 7;
	ck_assert_int_eq(mprotect(growth.from + kf_page, kf_page, PROT_NONE), 0);
	kf_register_ok(uffd, growth.from, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	/* AddressSanitizer's mlock does nothing. */
	if (syscall(SYS_mlock, growth.from, kf_page) < 0) {
		kf_skip("locked growth", "mlock is refused");
		return;
	}
	kf_thread_start(&growth.thread, growth_run, &growth);
	msg = kf_read_ok(uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_PAGEFAULT);
	at = (unsigned char *)(uintptr_t)msg.arg.pagefault.address;
	ck_assert_int_eq(kf_fill(uffd, at, 7, 0), -EAGAIN);
	ck_assert(!kf_has_message(uffd, 50));
	ck_assert_int_eq(kf_unregister(uffd, at, 2 * kf_page), 0);
	ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_REMAP);
	ck_assert(kf_thread_done(&growth.thread, KF_PATIENCE_MS));
	ck_assert_ptr_eq(growth.to + kf_page, at);
	ck_assert_uint_eq(growth.to[0], 7);
	ck_assert_uint_eq(growth.to[kf_page], 0);
}
END_TEST

START_TEST(new_mmap_beside_is_not_registered)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = map_with_room_ok();
	struct kf_touch touch;

	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_ptr_eq(mmap(map + 2 * kf_page, 2 * kf_page, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			 map + 2 * kf_page);
	kf_touch_start(&touch, map + 2 * kf_page);
	kf_touch_ends_ok(&touch, 0);
	ck_assert(!kf_has_message(uffd, 0));
}
END_TEST

TCase *kf_tcase_event(void)
{
	TCase *tcase = tcase_create("event");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, unread_event_makes_copy_and_move_eagain);
	tcase_add_test(tcase, unread_event_does_not_stop_register);
	tcase_add_test(tcase, settled_probe_sees_unread_event_without_side_effects);
	tcase_add_test(tcase, settled_probe_is_not_disturbed_by_an_unread_fault);
	tcase_add_test(tcase,
		       continue_tells_registered_private_memory_from_other_and_changes_nothing);
	tcase_add_test(tcase, remove_event_comes_before_the_zap);
	tcase_add_test(
		tcase,
		who_waits_for_an_event_to_be_read_is_shown_asleep_and_his_call_as_soon_as_he_is);
	tcase_add_test(tcase, events_are_read_in_the_order_in_which_they_were_queued);
	tcase_add_test(tcase, reading_one_event_wakes_the_others_who_wait_and_they_wait_again);
	tcase_add_test(tcase, fault_is_read_before_an_older_event);
	tcase_add_test(tcase, signal_with_a_handler_does_not_end_the_wait_for_an_event);
	tcase_add_test(tcase, unmap_event_comes_after_the_unmap);
	tcase_add_test(tcase, moving_mremap_is_remap_and_then_unmap_of_its_source);
	tcase_add_test(tcase, unmap_event_names_all_that_is_unmapped);
	tcase_add_test(tcase, mapping_over_raises_unmap);
	tcase_add_test(tcase, mapping_over_that_fails_may_raise_unmap_and_leaves_all_as_it_was);
	tcase_add_test(tcase, mprotect_cold_and_pageout_raise_no_event);
	tcase_add_test(tcase, mremap_growth_in_place_is_registered);
	tcase_add_test(tcase, locked_growth_that_moves_faults_before_its_remap_event);
	tcase_add_test(tcase, new_mmap_beside_is_not_registered);
	return tcase;
}
