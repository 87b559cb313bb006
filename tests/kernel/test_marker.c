/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Markers: the page table itself remembers which holes are ours.
 */
#include <unistd.h>

#include "kernel_facts.h"

#define MARKER_MODE (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)
#define MARKER_FEATURES (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED)

/* Four registered pages, untouched; the second one is marked. */
struct marked {
	int uffd;
	unsigned char *map;
	unsigned char *hole;
};

static struct marked marked_make_ok(uint64_t features)
{
	struct marked marked = { .uffd = kf_open_ok(MARKER_FEATURES | features),
				 .map = kf_map_ok(4) };

	marked.hole = marked.map + kf_page;
	kf_register_ok(marked.uffd, marked.map, 4 * kf_page, MARKER_MODE);
	ck_assert_int_eq(kf_mark(marked.uffd, marked.hole, kf_page), 0);
	ck_assert(kf_is_marked(0, marked.hole));
	return marked;
}

START_TEST(write_protected_hole_carries_marker)
{
	struct marked marked = marked_make_ok(0);

	ck_assert_uint_eq(kf_pagemap_ok(0, marked.hole) &
				  (UHMM_PAGEMAP_PRESENT | UHMM_PAGEMAP_SWAPPED),
			  UHMM_PAGEMAP_SWAPPED);
	ck_assert(kf_is_empty(0, marked.map));
	ck_assert(kf_is_empty(0, marked.hole + kf_page));
}
END_TEST

START_TEST(hole_that_move_left_can_carry_marker)
{
	int uffd = kf_open_move_ok(MARKER_FEATURES);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);

	*home = 7;
	kf_register_ok(uffd, home, kf_page, MARKER_MODE);
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), 0);
	ck_assert(kf_is_empty(0, home));
	ck_assert_int_eq(kf_mark(uffd, home, kf_page), 0);
	ck_assert(kf_is_marked(0, home));
}
END_TEST

START_TEST(marker_moves_with_mremap)
{
	struct marked marked = marked_make_ok(UFFD_FEATURE_EVENT_REMAP);
	struct kf_remap remap;
	struct uffd_msg msg;

	kf_remap_start(&remap, marked.map, kf_map_ok(4), 4 * kf_page);
	msg = kf_read_ok(marked.uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_REMAP);
	ck_assert_uint_eq(msg.arg.remap.to, (uintptr_t)remap.to);
	ck_assert(kf_thread_done(&remap.thread, KF_PATIENCE_MS));
	ck_assert(kf_is_marked(0, remap.to + kf_page));
	ck_assert(!kf_is_marked(0, remap.to));
}
END_TEST

START_TEST(marker_survives_mprotect)
{
	struct marked marked = marked_make_ok(0);

	ck_assert_int_eq(mprotect(marked.map, 4 * kf_page, PROT_NONE), 0);
	ck_assert(kf_is_marked(0, marked.hole));
	ck_assert_int_eq(mprotect(marked.map, 4 * kf_page, PROT_READ | PROT_WRITE), 0);
	ck_assert(kf_is_marked(0, marked.hole));
}
END_TEST

START_TEST(marker_vanishes_on_dontneed)
{
	struct marked marked = marked_make_ok(0);

	ck_assert_int_eq(madvise(marked.map, 4 * kf_page, MADV_DONTNEED), 0);
	ck_assert(kf_is_empty(0, marked.hole));
}
END_TEST

START_TEST(marker_survives_madv_free)
{
	struct marked marked = marked_make_ok(0);

	/* Unlike DONTNEED: so after its REMOVE event a marker says nothing. */
	ck_assert_int_eq(madvise(marked.map, 4 * kf_page, MADV_FREE), 0);
	ck_assert(kf_is_marked(0, marked.hole));
}
END_TEST

START_TEST(marker_vanishes_on_munmap_and_new_mmap)
{
	struct marked marked = marked_make_ok(0);

	ck_assert_int_eq(munmap(marked.map, 4 * kf_page), 0);
	ck_assert_ptr_eq(mmap(marked.map, 4 * kf_page, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			 marked.map);
	ck_assert(kf_is_empty(0, marked.hole));
}
END_TEST

START_TEST(marker_vanishes_on_copy)
{
	struct marked marked = marked_make_ok(0);

	ck_assert_int_eq(kf_fill(marked.uffd, marked.hole, 7, 0), 0);
	ck_assert_uint_eq(kf_pagemap_ok(0, marked.hole) & UHMM_PAGEMAP_UFFD_WP, 0);
	/* And the page may be written without a fault. */
	*marked.hole = 8;
	ck_assert(!kf_has_message(marked.uffd, 0));
}
END_TEST

START_TEST(touch_of_marked_hole_is_missing_fault)
{
	struct marked marked = marked_make_ok(0);
	struct kf_touch touch;
	struct uffd_msg msg;

	kf_touch_start(&touch, marked.hole);
	msg = kf_read_fault_ok(marked.uffd, marked.hole);
	ck_assert_uint_eq(
		msg.arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_MINOR), 0);
	ck_assert_int_eq(kf_fill(marked.uffd, marked.hole, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

START_TEST(marker_inherited_by_fork_with_event)
{
	struct marked marked = marked_make_ok(UFFD_FEATURE_EVENT_FORK);
	struct kf_fork forker;
	int wait[2];

	ck_assert_int_eq(pipe(wait), 0);
	kf_fork_start(&forker, kf_child_waits, &wait[0]);
	ck_assert_uint_eq(kf_read_ok(marked.uffd).event, UFFD_EVENT_FORK);
	ck_assert(kf_thread_done(&forker.thread, KF_PATIENCE_MS));
	ck_assert(kf_is_marked(forker.pid, marked.hole));
	ck_assert(!kf_is_marked(forker.pid, marked.map));
	ck_assert_int_eq(write(wait[1], "", 1), 1);
	ck_assert_int_eq(kf_wait_ok(forker.pid), 0);
}
END_TEST

START_TEST(marker_not_inherited_by_fork_without_event)
{
	struct marked marked = marked_make_ok(0);
	int wait[2];
	pid_t pid;

	ck_assert_int_eq(pipe(wait), 0);
	pid = kf_child(kf_child_waits, &wait[0]);
	ck_assert(kf_is_empty(pid, marked.hole));
	ck_assert_int_eq(write(wait[1], "", 1), 1);
	ck_assert_int_eq(kf_wait_ok(pid), 0);
}
END_TEST

TCase *kf_tcase_marker(void)
{
	TCase *tcase = tcase_create("marker");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, write_protected_hole_carries_marker);
	tcase_add_test(tcase, hole_that_move_left_can_carry_marker);
	tcase_add_test(tcase, marker_moves_with_mremap);
	tcase_add_test(tcase, marker_survives_mprotect);
	tcase_add_test(tcase, marker_vanishes_on_dontneed);
	tcase_add_test(tcase, marker_survives_madv_free);
	tcase_add_test(tcase, marker_vanishes_on_munmap_and_new_mmap);
	tcase_add_test(tcase, marker_vanishes_on_copy);
	tcase_add_test(tcase, touch_of_marked_hole_is_missing_fault);
	tcase_add_test(tcase, marker_inherited_by_fork_with_event);
	tcase_add_test(tcase, marker_not_inherited_by_fork_without_event);
	return tcase;
}
