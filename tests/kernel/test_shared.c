/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared memory (shmem): what evicting it by write-protecting, copying and punching stands on.
 * MINOR is what makes it safe: in a registered mapping no page of the object can be reached
 * for the first time without a message.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel_facts.h"

#define SHARED_MODE                                                                                \
	(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP)
#define SHARED_FEATURES                                                                            \
	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
	 UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED)
#define SHARED_EVENTS                                                                              \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |          \
	 UFFD_FEATURE_EVENT_UNMAP)

/* A registered shared mapping, and the object behind it as the daemon opens it. */
struct shared {
	int uffd;
	int object;
	unsigned char *map;
	size_t n_pages;
};

static int object_open_ok(const void *addr, size_t bytes)
{
	char path[96];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)addr,
		       (unsigned long)addr + bytes);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

static struct shared shared_make_ok(size_t n_pages, uint64_t features)
{
	struct shared s = { .n_pages = n_pages };

	s.uffd = kf_open_ok(SHARED_FEATURES | features);
	s.map = mmap(NULL, n_pages * kf_page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	ck_assert_ptr_ne(s.map, MAP_FAILED);
	s.object = object_open_ok(s.map, n_pages * kf_page);
	for (size_t i = 0; i < n_pages; i++)
		s.map[i * kf_page] = (unsigned char)(i + 1);
	kf_register_ok(s.uffd, s.map, n_pages * kf_page, SHARED_MODE);
	return s;
}

static void punch_ok(const struct shared *s, size_t page, size_t n)
{
	ck_assert_int_eq(fallocate(s->object, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)(page * kf_page), (off_t)(n * kf_page)),
			 0);
}

static int shared_continue(int uffd, const void *addr, size_t bytes)
{
	struct uffdio_continue arg = { .range = { (uintptr_t)addr, bytes } };

	return ioctl(uffd, UFFDIO_CONTINUE, &arg) < 0 ? -errno : 0;
}

static int shared_unprotect(int uffd, const void *addr, size_t bytes)
{
	struct uffdio_writeprotect arg = { .range = { (uintptr_t)addr, bytes } };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &arg) < 0 ? -errno : 0;
}

static void *store_run(void *arg)
{
	*(volatile unsigned char *)arg = 99;
	return NULL;
}

START_TEST(punch_through_map_files_takes_pages_out_of_a_mapping_without_an_event)
{
	struct shared s = shared_make_ok(4, SHARED_EVENTS);
	struct kf_touch touch;
	struct uffd_msg msg;

	ck_assert_int_eq(kf_mark(s.uffd, s.map, 4 * kf_page), 0);
	punch_ok(&s, 1, 1);
	ck_assert(!kf_has_message(s.uffd, KF_QUIET_MS));
	kf_touch_start(&touch, s.map + kf_page);
	msg = kf_read_fault_ok(s.uffd, s.map + kf_page);
	ck_assert_uint_eq(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, 0);
	ck_assert_int_eq(lseek(s.object, (off_t)kf_page, SEEK_DATA), (off_t)(2 * kf_page));
	ck_assert_int_eq(kf_fill(s.uffd, s.map + kf_page, 42, 0), 0);
	kf_touch_ends_ok(&touch, 42);
	ck_assert_int_eq(lseek(s.object, (off_t)kf_page, SEEK_DATA), (off_t)kf_page);
	/* What was filled is not protected, whatever marker the punched page left. */
	s.map[kf_page] = 43;
	ck_assert_uint_eq(s.map[kf_page], 43);
}
END_TEST

START_TEST(store_to_a_protected_shared_page_faults_and_goes_on_when_unprotected)
{
	struct shared s = shared_make_ok(2, 0);
	struct kf_thread store;
	struct uffd_msg msg;

	ck_assert_int_eq(kf_mark(s.uffd, s.map, 2 * kf_page), 0);
	ck_assert_uint_eq(s.map[kf_page], 2);
	kf_thread_start(&store, store_run, s.map + kf_page);
	msg = kf_read_fault_ok(s.uffd, s.map + kf_page);
	ck_assert_uint_ne(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP, 0);
	ck_assert_int_eq(shared_unprotect(s.uffd, s.map + kf_page, kf_page), 0);
	ck_assert(kf_thread_done(&store, KF_PATIENCE_MS));
	ck_assert_uint_eq(s.map[kf_page], 99);
}
END_TEST

START_TEST(page_of_the_object_that_is_not_mapped_raises_minor_and_continue_maps_it)
{
	struct shared s = shared_make_ok(4, 0);
	struct kf_touch touch;
	struct uffd_msg msg;

	/* DONTNEED drops the mapping's pages, not the object's. */
	ck_assert_int_eq(madvise(s.map, 4 * kf_page, MADV_DONTNEED), 0);
	kf_touch_start(&touch, s.map + kf_page);
	msg = kf_read_fault_ok(s.uffd, s.map + kf_page);
	ck_assert_uint_ne(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, 0);
	ck_assert_int_eq(shared_continue(s.uffd, s.map + kf_page, kf_page), 0);
	kf_touch_ends_ok(&touch, 2);
	/* And no neighbour came along. */
	ck_assert(!kf_is_present(s.map));
	ck_assert(!kf_is_present(s.map + 2 * kf_page));
}
END_TEST

START_TEST(continue_of_a_hole_is_efault_and_copy_over_a_page_of_the_object_eexist)
{
	struct shared s = shared_make_ok(2, 0);

	punch_ok(&s, 0, 1);
	ck_assert_int_eq(shared_continue(s.uffd, s.map, kf_page), -EFAULT);
	ck_assert_int_eq(madvise(s.map + kf_page, kf_page, MADV_DONTNEED), 0);
	ck_assert_int_eq(kf_fill(s.uffd, s.map + kf_page, 42, 0), -EEXIST);
	ck_assert_int_eq(shared_continue(s.uffd, s.map + kf_page, kf_page), 0);
	ck_assert_int_eq(shared_continue(s.uffd, s.map + kf_page, kf_page), -EEXIST);
	ck_assert_uint_eq(s.map[kf_page], 2);
}
END_TEST

static void *duplicate_run(void *arg)
{
	const struct shared *s = arg;

	return mremap(s->map, 0, s->n_pages * kf_page, MREMAP_MAYMOVE);
}

START_TEST(mremap_of_no_length_doubles_a_shared_mapping_with_its_registration)
{
	struct shared s = shared_make_ok(2, SHARED_EVENTS);
	struct kf_thread thread;
	struct kf_touch touch;
	struct uffd_msg msg;
	unsigned char *twin;

	ck_assert_int_eq(kf_mark(s.uffd, s.map, 2 * kf_page), 0);
	kf_thread_start(&thread, duplicate_run, &s);
	msg = kf_read_ok(s.uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_REMAP);
	twin = (unsigned char *)(uintptr_t)msg.arg.remap.to;
	while (!kf_thread_done(&thread, KF_QUIET_MS))
		(void)kf_read_ok(s.uffd);
	kf_touch_start(&touch, twin);
	msg = kf_read_fault_ok(s.uffd, twin);
	ck_assert_uint_ne(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, 0);
	ck_assert_int_eq(shared_continue(s.uffd, twin, kf_page), 0);
	kf_touch_ends_ok(&touch, 1);
}
END_TEST

struct forked {
	struct shared *shared;
	int go;
};

static int forked_run(void *arg)
{
	struct forked *forked = arg;
	char byte;

	(void)!read(forked->go, &byte, 1);
	*(volatile unsigned char *)forked->shared->map = 77;
	return 0;
}

START_TEST(forked_child_inherits_the_protection_of_shared_pages)
{
	struct shared s = shared_make_ok(2, SHARED_EVENTS);
	struct forked forked = { .shared = &s };
	struct kf_fork child;
	struct uffd_msg msg;
	int pipe_fds[2], uffd;

	ck_assert_int_eq(pipe(pipe_fds), 0);
	forked.go = pipe_fds[0];
	ck_assert_int_eq(kf_mark(s.uffd, s.map, 2 * kf_page), 0);
	kf_fork_start(&child, forked_run, &forked);
	msg = kf_read_ok(s.uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_FORK);
	uffd = (int)msg.arg.fork.ufd;
	ck_assert(kf_thread_done(&child.thread, KF_PATIENCE_MS));
	ck_assert_int_eq(write(pipe_fds[1], "", 1), 1);
	msg = kf_read_fault_ok(uffd, s.map);
	ck_assert_uint_ne(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP, 0);
	ck_assert_uint_eq(s.map[0], 1);
	ck_assert_int_eq(shared_unprotect(uffd, s.map, kf_page), 0);
	ck_assert_int_eq(kf_wait_ok(child.pid), 0);
	ck_assert_uint_eq(s.map[0], 77);
}
END_TEST

START_TEST(pagemap_scan_tells_shared_pages_that_are_not_protected)
{
	struct shared s = shared_make_ok(4, 0);
	struct page_region regions[4];
	struct pm_scan_arg arg = { .size = sizeof(arg),
				   .start = (uintptr_t)s.map,
				   .end = (uintptr_t)s.map + 4 * kf_page,
				   .vec = (uintptr_t)regions,
				   .vec_len = 4,
				   .category_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
				   .return_mask = PAGE_IS_PRESENT };
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(kf_mark(s.uffd, s.map, 2 * kf_page), 0);
	ck_assert_int_eq(kf_mark(s.uffd, s.map + 3 * kf_page, kf_page), 0);
	ck_assert_int_eq(ioctl(pagemap, PAGEMAP_SCAN, &arg), 1);
	ck_assert_uint_eq(regions[0].start, (uintptr_t)s.map + 2 * kf_page);
	ck_assert_uint_eq(regions[0].end, (uintptr_t)s.map + 3 * kf_page);
}
END_TEST

/* Does this thread's system call file show madvise with these arguments? */
static bool shows_madvise(const struct kf_advise *advise)
{
	char path[64], text[256], want[128];
	bool found = false;
	FILE *file;

	/* The test is the leader, and has one other thread: look at it by its number. */
	for (pid_t tid = getpid() + 1; tid < getpid() + 64 && !found; tid++) {
		(void)snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(text, sizeof(text), file)) {
			(void)snprintf(want, sizeof(want), "%d 0x%lx 0x%lx 0x%x ", SYS_madvise,
				       (unsigned long)advise->addr, advise->bytes,
				       (unsigned)advise->advice);
			found = strncmp(text, want, strlen(want)) == 0;
		}
		(void)fclose(file);
	}
	return found;
}

/* Does a thread of ours sleep where it waits for its event to be read? */
static bool shows_wait(void)
{
	char path[64], text[128];
	bool found = false;
	FILE *file;

	for (pid_t tid = getpid() + 1; tid < getpid() + 64 && !found; tid++) {
		(void)snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", tid);
		file = fopen(path, "re");
		if (!file)
			continue;
		found = fgets(text, sizeof(text), file) &&
			strncmp(text, "userfaultfd_event_wait", 22) == 0;
		(void)fclose(file);
	}
	return found;
}

START_TEST(madvise_whose_event_is_unread_shows_its_advice_and_where_it_waits)
{
	struct shared s = shared_make_ok(2, SHARED_EVENTS);
	struct kf_advise advise;
	bool seen = false;

	kf_advise_start(&advise, s.map, 2 * kf_page, MADV_REMOVE);
	ck_assert(kf_has_message(s.uffd, KF_PATIENCE_MS));
	for (int i = 0; i < 100 && !seen; i++) {
		seen = shows_madvise(&advise) && shows_wait();
		(void)usleep(1000);
	}
	ck_assert(seen);
	ck_assert_uint_eq(kf_read_ok(s.uffd).event, UFFD_EVENT_REMOVE);
	ck_assert(kf_thread_done(&advise.thread, KF_PATIENCE_MS));
	ck_assert(!shows_wait());
}
END_TEST

static struct timespec mtime_ok(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_mtim;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

START_TEST(madvise_remove_changes_the_objects_mtime_and_dontneed_does_not)
{
	struct shared s = shared_make_ok(4, SHARED_EVENTS);
	int advices[] = { MADV_DONTNEED, MADV_REMOVE };

	punch_ok(&s, 0, 4);
	for (int i = 0; i < 2; i++) {
		struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } }, before;
		struct kf_advise advise;

		ck_assert_int_eq(futimens(s.object, times), 0);
		before = mtime_ok(s.object);
		kf_advise_start(&advise, s.map, 4 * kf_page, advices[i]);
		ck_assert_uint_eq(kf_read_ok(s.uffd).event, UFFD_EVENT_REMOVE);
		ck_assert(kf_thread_done(&advise.thread, KF_PATIENCE_MS));
		ck_assert_int_eq(advise.error, 0);
		ck_assert_int_eq(same_time(before, mtime_ok(s.object)), advices[i] == MADV_DONTNEED);
	}
}
END_TEST

static int store_after_fork(void *arg)
{
	const struct shared *s = arg;

	s->map[0] = 7;
	return 0;
}

START_TEST(store_may_change_the_objects_mtime_too)
{
	struct shared s = shared_make_ok(1, 0);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } }, before;

	ck_assert_int_eq(futimens(s.object, times), 0);
	before = mtime_ok(s.object);
	ck_assert_int_eq(kf_wait_ok(kf_child(store_after_fork, &s)), 0);
	ck_assert(!same_time(before, mtime_ok(s.object)));
}
END_TEST

START_TEST(unregister_takes_the_protection_of_shared_pages_away)
{
	struct shared s = shared_make_ok(2, 0);

	ck_assert_int_eq(kf_mark(s.uffd, s.map, 2 * kf_page), 0);
	ck_assert_int_eq(kf_unregister(s.uffd, s.map, 2 * kf_page), 0);
	s.map[0] = 5;
	ck_assert_uint_eq(s.map[0], 5);
}
END_TEST

static int mapper_run(void *arg)
{
	const struct shared *s = arg;

	/* The child is registered with nobody: it reads zero, and plants a page. */
	return s->map[kf_page];
}

START_TEST(stranger_reads_zero_and_plants_a_page_that_raises_minor)
{
	struct shared s = shared_make_ok(2, 0);
	struct kf_touch touch;
	struct uffd_msg msg;

	punch_ok(&s, 1, 1);
	ck_assert_int_eq(kf_wait_ok(kf_child(mapper_run, &s)), 0);
	kf_touch_start(&touch, s.map + kf_page);
	msg = kf_read_fault_ok(s.uffd, s.map + kf_page);
	ck_assert_uint_ne(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, 0);
	ck_assert_int_eq(kf_fill(s.uffd, s.map + kf_page, 42, 0), -EEXIST);
	ck_assert_int_eq(shared_continue(s.uffd, s.map + kf_page, kf_page), 0);
	kf_touch_ends_ok(&touch, 0);
}
END_TEST

TCase *kf_tcase_shared(void)
{
	TCase *tcase = tcase_create("shared");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, punch_through_map_files_takes_pages_out_of_a_mapping_without_an_event);
	tcase_add_test(tcase, store_to_a_protected_shared_page_faults_and_goes_on_when_unprotected);
	tcase_add_test(tcase, page_of_the_object_that_is_not_mapped_raises_minor_and_continue_maps_it);
	tcase_add_test(tcase, continue_of_a_hole_is_efault_and_copy_over_a_page_of_the_object_eexist);
	tcase_add_test(tcase, mremap_of_no_length_doubles_a_shared_mapping_with_its_registration);
	tcase_add_test(tcase, forked_child_inherits_the_protection_of_shared_pages);
	tcase_add_test(tcase, pagemap_scan_tells_shared_pages_that_are_not_protected);
	tcase_add_test(tcase, madvise_whose_event_is_unread_shows_its_advice_and_where_it_waits);
	tcase_add_test(tcase, madvise_remove_changes_the_objects_mtime_and_dontneed_does_not);
	tcase_add_test(tcase, store_may_change_the_objects_mtime_too);
	tcase_add_test(tcase, unregister_takes_the_protection_of_shared_pages_away);
	tcase_add_test(tcase, stranger_reads_zero_and_plants_a_page_that_raises_minor);
	return tcase;
}
