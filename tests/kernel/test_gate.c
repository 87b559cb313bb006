/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging's registration as the gate for MOVE, and huge pages going through it whole.
 */
#include <stdio.h>
#include <unistd.h>

#include "kernel_facts.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define N_CLOSINGS 500

START_TEST(move_without_registered_destination_is_einval)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);

	*home = 7;
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EINVAL);
	ck_assert_uint_eq(*home, 7);
}
END_TEST

START_TEST(move_into_what_another_userfaultfd_watches_is_einval)
{
	int uffd = kf_open_move_ok(0);
	int other = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);

	*home = 7;
	kf_register_ok(other, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EINVAL);
}
END_TEST

START_TEST(registering_what_another_userfaultfd_watches_is_ebusy)
{
	int uffd = kf_open_ok(0);
	int other = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);

	kf_register_ok(other, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_register(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING), -EBUSY);
}
END_TEST

/* MOVEs one page without pause. `turn` is even from the return of UNREGISTER until the
 * next REGISTER begins. */
struct mover {
	int uffd;
	unsigned char *home;
	unsigned char *staging;
	unsigned int turn;
	int stop;
	unsigned int n_moved;
	unsigned int n_refused;
	unsigned int n_through_closed;
};

static void *mover_run(void *arg)
{
	struct mover *mover = arg;

	while (!__atomic_load_n(&mover->stop, __ATOMIC_RELAXED)) {
		unsigned int before;
		int error;

		(void)madvise(mover->staging, kf_page, MADV_DONTNEED);
		*(volatile unsigned char *)mover->home = 7;
		before = __atomic_load_n(&mover->turn, __ATOMIC_SEQ_CST);
		error = kf_move(mover->uffd, mover->staging, mover->home, kf_page);
		if (error) {
			mover->n_refused += error == -EINVAL;
			continue;
		}
		mover->n_moved++;
		if (before % 2 == 0 && __atomic_load_n(&mover->turn, __ATOMIC_SEQ_CST) == before)
			mover->n_through_closed++;
	}
	return NULL;
}

START_TEST(unregister_closes_the_gate_for_move)
{
	struct mover mover = { .uffd = kf_open_move_ok(0) };
	struct kf_thread thread;

	mover.home = kf_map_ok(1);
	mover.staging = kf_map_ok(1);
	kf_thread_start(&thread, mover_run, &mover);
	for (int i = 0; i < N_CLOSINGS; i++) {
		__atomic_add_fetch(&mover.turn, 1, __ATOMIC_SEQ_CST);
		kf_register_ok(mover.uffd, mover.staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
		(void)usleep(200);
		ck_assert_int_eq(kf_unregister(mover.uffd, mover.staging, kf_page), 0);
		__atomic_add_fetch(&mover.turn, 1, __ATOMIC_SEQ_CST);
		(void)usleep(200);
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELAXED);
	ck_assert(kf_thread_done(&thread, KF_PATIENCE_MS));
	ck_assert_uint_gt(mover.n_moved, 0);
	ck_assert_uint_gt(mover.n_refused, 0);
	ck_assert_uint_eq(mover.n_through_closed, 0);
}
END_TEST

TCase *kf_tcase_gate(void)
{
	TCase *tcase = tcase_create("gate");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, move_without_registered_destination_is_einval);
	tcase_add_test(tcase, move_into_what_another_userfaultfd_watches_is_einval);
	tcase_add_test(tcase, registering_what_another_userfaultfd_watches_is_ebusy);
	tcase_add_test(tcase, unregister_closes_the_gate_for_move);
	return tcase;
}

/* An aligned huge page's room that may become one. */
static unsigned char *map_huge_ok(void)
{
	unsigned char *map = mmap(NULL, 2 * HUGE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t addr = ((uintptr_t)map + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);

	ck_assert_ptr_ne(map, MAP_FAILED);
	(void)madvise((void *)addr, HUGE_BYTES, MADV_HUGEPAGE);
	return (unsigned char *)addr;
}

/* How many pages of the 2 MiB at addr are parts of huge pages? */
static size_t count_huge_ok(const unsigned char *addr)
{
	char line[256];
	unsigned long start;
	unsigned long kbytes = 0;
	bool here = false;
	FILE *smaps = fopen("/proc/self/smaps", "re");

	ck_assert_ptr_nonnull(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)addr && (uintptr_t)addr < end;
		else if (here && sscanf(line, "AnonHugePages: %lu kB", &kbytes) == 1)
			break;
	}
	(void)fclose(smaps);
	return kbytes * 1024 / kf_page;
}

START_TEST(move_whole_huge_page)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = map_huge_ok();
	unsigned char *staging = map_huge_ok();

	*home = 7;
	home[HUGE_BYTES - 1] = 8;
	if (count_huge_ok(home) == 0) {
		kf_skip("move_whole_huge_page", "the kernel gave no huge page (see "
						"/sys/kernel/mm/transparent_hugepage/enabled)");
		return;
	}
	kf_register_ok(uffd, staging, HUGE_BYTES, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, HUGE_BYTES), 0);
	ck_assert_uint_eq(count_huge_ok(home), 0);
	ck_assert_uint_eq(count_huge_ok(staging), HUGE_BYTES / kf_page);
	ck_assert_uint_eq(*staging, 7);
	ck_assert_uint_eq(staging[HUGE_BYTES - 1], 8);
}
END_TEST

START_TEST(register_keeps_a_huge_page_whole)
{
	int uffd = kf_open_ok(0);
	unsigned char *home = map_huge_ok();

	*home = 7;
	if (count_huge_ok(home) == 0) {
		kf_skip("register_keeps_a_huge_page_whole", "the kernel gave no huge page");
		return;
	}
	kf_register_ok(uffd, home, HUGE_BYTES, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_unregister(uffd, home, HUGE_BYTES), 0);
	ck_assert_uint_eq(count_huge_ok(home), HUGE_BYTES / kf_page);
}
END_TEST

TCase *kf_tcase_huge(void)
{
	TCase *tcase = tcase_create("huge");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, move_whole_huge_page);
	tcase_add_test(tcase, register_keeps_a_huge_page_whole);
	return tcase;
}
