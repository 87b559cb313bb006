/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults: who is woken by what, and what is registered when.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <unistd.h>

#include "kernel_facts.h"
#include "uffd.h"

START_TEST(uffd_api_takes_all_that_uhmm_needs_at_once)
{
	int device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	uint64_t features;
	uint64_t missing;
	int uffd;

	ck_assert_int_ge(device, 0);
	uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(uffd_probe(&features, &missing), 0);
	for (uint64_t bit = 1; bit; bit <<= 1)
		ck_assert_msg(!(missing & bit), "this kernel has no %s", uffd_feature_name(bit));
	ck_assert_int_eq(uffd_api(uffd), 0);
	ck_assert_int_eq(uffd_api(uffd), -EINVAL);
	/* What a client may hand in by mistake or in malice. */
	ck_assert_int_eq(uffd_api(device), -EINVAL);
	ck_assert_int_eq(uffd_api(STDERR_FILENO), -ENOTTY);
}
END_TEST

START_TEST(register_leaves_present_pages)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(2);
	struct kf_touch touch;

	map[0] = 7;
	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert(kf_is_present(map));
	kf_touch_start(&touch, map);
	kf_touch_ends_ok(&touch, 7);
	ck_assert(!kf_has_message(uffd, 0));
	/* But a page that was never touched traps. */
	kf_touch_start(&touch, map + kf_page);
	(void)kf_read_fault_ok(uffd, map + kf_page);
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 8, 0), 0);
	kf_touch_ends_ok(&touch, 8);
}
END_TEST

START_TEST(unregister_with_hole_reads_zero)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map);
	(void)kf_read_fault_ok(uffd, map);
	ck_assert_int_eq(kf_unregister(uffd, map, kf_page), 0);
	kf_touch_ends_ok(&touch, 0);
}
END_TEST

START_TEST(copy_on_present_page_is_eexist_and_does_not_wake)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map);
	(void)kf_read_fault_ok(uffd, map);
	ck_assert_int_eq(kf_fill(uffd, map, 7, UFFDIO_COPY_MODE_DONTWAKE), 0);
	ck_assert_int_eq(kf_fill(uffd, map, 8, 0), -EEXIST);
	ck_assert_msg(!kf_touch_done(&touch, KF_QUIET_MS), "EEXIST woke the thread");
	ck_assert_int_eq(kf_wake(uffd, map, kf_page), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

START_TEST(copy_tells_how_far_it_came)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(4);
	unsigned char *from = kf_map_ok(4);
	uint64_t done;

	from[0] = from[kf_page] = from[3 * kf_page] = 7;
	map[2 * kf_page] = 8;
	kf_register_ok(uffd, map, 4 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	/* Partial success is not EEXIST: the caller sees it when it goes on from there. */
	ck_assert_int_eq(uffd_copy(uffd, (uintptr_t)map, from, 4 * kf_page, &done), UFFD_AGAIN);
	ck_assert_uint_eq(done, 2 * kf_page);
	ck_assert_int_eq(uffd_copy(uffd, (uintptr_t)map + done, from, 2 * kf_page, &done),
			 UFFD_EXISTS);
	ck_assert_uint_eq(done, 0);
	ck_assert_uint_eq(map[2 * kf_page], 8);
}
END_TEST

START_TEST(one_copy_wakes_all_who_wait_in_its_range)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(2);
	unsigned char *from = kf_map_ok(2);
	struct kf_touch touch[3];
	uint64_t done;

	from[0] = from[kf_page] = 7;
	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch[0], map);
	kf_touch_start(&touch[1], map);
	kf_touch_start(&touch[2], map + kf_page);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(kf_read_ok(uffd).event, UFFD_EVENT_PAGEFAULT);
	ck_assert_int_eq(uffd_copy(uffd, (uintptr_t)map, from, 2 * kf_page, &done), UFFD_OK);
	ck_assert_uint_eq(done, 2 * kf_page);
	for (int i = 0; i < 3; i++)
		kf_touch_ends_ok(&touch[i], 7);
}
END_TEST

START_TEST(wake_raises_the_fault_again_after_a_dead_reader)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(4);
	struct kf_touch touch;

	kf_register_ok(uffd, map, 4 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map + kf_page);
	(void)kf_read_fault_ok(uffd, map + kf_page);
	/* This is all that is left of the message. */
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
	ck_assert_int_eq(kf_wake(uffd, map, 4 * kf_page), 0);
	(void)kf_read_fault_ok(uffd, map + kf_page);
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

START_TEST(fault_waits_while_another_fd_is_open)
{
	int uffd = kf_open_ok(0);
	int other = dup(uffd);
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(close(uffd), 0);
	kf_touch_start(&touch, map);
	ck_assert_msg(!kf_touch_done(&touch, KF_QUIET_MS), "nobody served it");
	ck_assert_int_eq(kf_fill(other, map, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

START_TEST(last_close_lets_a_waiter_read_zero)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map);
	ck_assert(kf_has_message(uffd, KF_PATIENCE_MS));
	ck_assert_int_eq(close(uffd), 0);
	kf_touch_ends_ok(&touch, 0);
}
END_TEST

static void ignore_signal(int signal)
{
	(void)signal;
}

START_TEST(signal_raises_the_fault_again)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;

	ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map);
	(void)kf_read_fault_ok(uffd, map);
	ck_assert_int_eq(pthread_kill(touch.thread.thread, SIGUSR1), 0);
	(void)kf_read_fault_ok(uffd, map);
	ck_assert_int_eq(kf_fill(uffd, map, 7, 0), 0);
	kf_touch_ends_ok(&touch, 7);
}
END_TEST

static sigjmp_buf poison_return;
static void *volatile poison_addr;

static void poison_on_sigbus(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	poison_addr = info->si_addr;
	siglongjmp(poison_return, 1);
}

START_TEST(poison_raises_sigbus)
{
	int uffd = kf_open_ok(UFFD_FEATURE_POISON);
	unsigned char *map = kf_map_ok(1);
	struct sigaction action = { .sa_sigaction = poison_on_sigbus, .sa_flags = SA_SIGINFO };
	int pipes[2];

	ck_assert_int_eq(pipe(pipes), 0);
	ck_assert_int_eq(sigaction(SIGBUS, &action, NULL), 0);
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(uffd_poison(uffd, (uintptr_t)map, kf_page), UFFD_OK);
	if (sigsetjmp(poison_return, 1) == 0) {
		(void)*(volatile unsigned char *)map;
		ck_abort_msg("a poisoned page was read");
	}
	/* si_code is BUS_MCEERR_AR only where the kernel has CONFIG_MEMORY_FAILURE. */
	ck_assert_ptr_eq(poison_addr, map);
	/* A system call gets an error, no signal. */
	ck_assert_int_lt(write(pipes[1], map, 1), 0);
	ck_assert_int_eq(errno, EFAULT);
}
END_TEST

TCase *kf_tcase_fault(void)
{
	TCase *tcase = tcase_create("fault");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, uffd_api_takes_all_that_uhmm_needs_at_once);
	tcase_add_test(tcase, register_leaves_present_pages);
	tcase_add_test(tcase, unregister_with_hole_reads_zero);
	tcase_add_test(tcase, copy_on_present_page_is_eexist_and_does_not_wake);
	tcase_add_test(tcase, copy_tells_how_far_it_came);
	tcase_add_test(tcase, one_copy_wakes_all_who_wait_in_its_range);
	tcase_add_test(tcase, wake_raises_the_fault_again_after_a_dead_reader);
	tcase_add_test(tcase, fault_waits_while_another_fd_is_open);
	tcase_add_test(tcase, last_close_lets_a_waiter_read_zero);
	tcase_add_test(tcase, signal_raises_the_fault_again);
	tcase_add_test(tcase, poison_raises_sigbus);
	return tcase;
}

#define GUARD_MISSING "the kernel has no MADV_GUARD_INSTALL"

START_TEST(copy_over_guard_page_erases_the_guard)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(2);

	if (madvise(map + kf_page, kf_page, MADV_GUARD_INSTALL) < 0) {
		kf_skip("copy_over_guard_page_erases_the_guard", GUARD_MISSING);
		return;
	}
	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_fill(uffd, map + kf_page, 7, 0), 0);
	ck_assert_uint_eq(map[kf_page], 7);
}
END_TEST

START_TEST(zeropage_leaves_a_guard_alone)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(2);
	struct uffdio_zeropage zero = { .range = { (uintptr_t)map + kf_page, kf_page } };

	if (madvise(map + kf_page, kf_page, MADV_GUARD_INSTALL) < 0) {
		kf_skip("zeropage_leaves_a_guard_alone", GUARD_MISSING);
		return;
	}
	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_lt(ioctl(uffd, UFFDIO_ZEROPAGE, &zero), 0);
	ck_assert_int_eq(errno, EEXIST);
}
END_TEST

START_TEST(installing_a_guard_raises_no_event)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP);
	unsigned char *map = kf_map_ok(1);

	*map = 7;
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	if (madvise(map, kf_page, MADV_GUARD_INSTALL) < 0) {
		kf_skip("installing_a_guard_raises_no_event", GUARD_MISSING);
		return;
	}
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
	ck_assert(!kf_is_present(map));
}
END_TEST

TCase *kf_tcase_guard(void)
{
	TCase *tcase = tcase_create("guard");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, copy_over_guard_page_erases_the_guard);
	tcase_add_test(tcase, zeropage_leaves_a_guard_alone);
	tcase_add_test(tcase, installing_a_guard_raises_no_event);
	return tcase;
}
