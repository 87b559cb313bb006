/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What UFFDIO_MOVE promises: the way in which private memory leaves.
 */
#include <linux/io_uring.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel_facts.h"

#define N_JOURNEYS 1000

/* Counts up in one page for as long as it may, and looks whether its stores stay. */
struct counter {
	volatile uint64_t *word;
	uint64_t n;
	uint64_t n_lost;
	int stop;
};

static void *counter_run(void *arg)
{
	struct counter *counter = arg;

	while (!__atomic_load_n(&counter->stop, __ATOMIC_RELAXED)) {
		*counter->word = ++counter->n;
		if (*counter->word != counter->n)
			counter->n_lost++;
	}
	return NULL;
}

/* Out to staging, and home when the counter touches it. Busy: another time. */
static void journey(int uffd, unsigned char *home, unsigned char *staging)
{
	struct uffdio_copy copy = { .dst = (uintptr_t)home,
				    .src = (uintptr_t)staging,
				    .len = kf_page };
	int error;

	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	do {
		error = kf_move(uffd, staging, home, kf_page);
	} while (error == -EAGAIN || error == -EBUSY);
	ck_assert_int_eq(error, 0);
	ck_assert_int_eq(kf_unregister(uffd, staging, kf_page), 0);
	ck_assert_msg(!kf_is_present(home), "no hole where the page was");
	ck_assert_msg(kf_is_present(staging), "the page is not in staging");
	(void)kf_read_fault_ok(uffd, home);
	ck_assert_int_eq(ioctl(uffd, UFFDIO_COPY, &copy), 0);
	ck_assert_int_eq(madvise(staging, kf_page, MADV_DONTNEED), 0);
}

START_TEST(move_is_atomic_and_leaves_a_hole)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);
	struct counter counter = { .word = (void *)home };
	struct kf_thread thread;

	home[kf_page - 1] = 1;
	kf_register_ok(uffd, home, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_thread_start(&thread, counter_run, &counter);
	for (int i = 0; i < N_JOURNEYS; i++)
		journey(uffd, home, staging);
	__atomic_store_n(&counter.stop, 1, __ATOMIC_RELAXED);
	ck_assert(kf_thread_done(&thread, KF_PATIENCE_MS));
	ck_assert_uint_eq(counter.n_lost, 0);
	ck_assert_uint_eq(*counter.word, counter.n);
}
END_TEST

START_TEST(move_never_looks_at_the_registration_of_its_source)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);

	*home = 7;
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), 0);
	ck_assert_uint_eq(*staging, 7);
}
END_TEST

START_TEST(move_of_a_run_with_a_hole_tells_how_far_it_came)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(4);
	unsigned char *staging = kf_map_ok(4);
	struct uffdio_move arg = { .dst = (uintptr_t)staging,
				   .src = (uintptr_t)home,
				   .len = 4 * kf_page };

	home[0] = home[kf_page] = home[3 * kf_page] = 7;
	kf_register_ok(uffd, staging, 4 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_lt(ioctl(uffd, UFFDIO_MOVE, &arg), 0);
	ck_assert_int_eq(arg.move, (int64_t)(2 * kf_page));
	arg = (struct uffdio_move){ .dst = (uintptr_t)staging + 2 * kf_page,
				    .src = (uintptr_t)home + 2 * kf_page,
				    .len = 2 * kf_page,
				    .mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES };
	ck_assert_int_eq(ioctl(uffd, UFFDIO_MOVE, &arg), 0);
	ck_assert(!kf_is_present(staging + 2 * kf_page));
	ck_assert_uint_eq(staging[3 * kf_page], 7);
}
END_TEST

/* A page that a device may write at any time: registered with io_uring as a fixed buffer. */
static int pin_page(void *page)
{
	struct io_uring_params params = { .flags = 0 };
	struct iovec iov = { page, kf_page };
	int ring = (int)syscall(SYS_io_uring_setup, 1, &params);

	if (ring < 0)
		return -errno;
	return syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1) < 0 ? -errno
											  : 0;
}

START_TEST(move_refuses_pinned_page)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);
	int error;

	*home = 7;
	error = pin_page(home);
	if (error == -ENOSYS || error == -EPERM) {
		kf_skip("move_refuses_pinned_page", "io_uring is switched off here");
		return;
	}
	ck_assert_int_eq(error, 0);
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EBUSY);
	ck_assert_uint_eq(*home, 7);
}
END_TEST

START_TEST(move_refuses_page_shared_after_fork)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);
	int wait[2];
	pid_t pid;

	*home = 7;
	ck_assert_int_eq(pipe(wait), 0);
	pid = kf_child(kf_child_waits, &wait[0]);
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EBUSY);
	ck_assert_int_eq(write(wait[1], "", 1), 1);
	ck_assert_int_eq(kf_wait_ok(pid), 0);
	/* Nobody shares it now, but the kernel learns that only with the next store. */
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EBUSY);
	*home = 8;
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), 0);
	ck_assert_uint_eq(*staging, 8);
}
END_TEST

START_TEST(move_refuses_readonly_source)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);

	*home = 7;
	ck_assert_int_eq(mprotect(home, kf_page, PROT_READ), 0);
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EINVAL);
	ck_assert_uint_eq(*home, 7);
}
END_TEST

TCase *kf_tcase_move(void)
{
	TCase *tcase = tcase_create("move");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, move_is_atomic_and_leaves_a_hole);
	tcase_add_test(tcase, move_never_looks_at_the_registration_of_its_source);
	tcase_add_test(tcase, move_of_a_run_with_a_hole_tells_how_far_it_came);
	tcase_add_test(tcase, move_refuses_pinned_page);
	tcase_add_test(tcase, move_refuses_page_shared_after_fork);
	tcase_add_test(tcase, move_refuses_readonly_source);
	return tcase;
}
