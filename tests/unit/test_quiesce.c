/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Time, threads and the kernel are what the wrappers below say. */
#include "fixture.h"
#include "quiesce.h"
#include "space.h"
#include "uffd.h"

#define PAGE 4096ull
#define CHUNK (512 * PAGE)
#define LONG_NS 1000000000u

uint64_t __wrap_clock_now_ns(void);
bool __wrap_threads_note(struct threads *threads, int task_fd);
bool __wrap_threads_are_past(struct threads *threads, threads_judge judge);
enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode);

void __wrap_object_removes_ended(struct space *space, uint64_t seq);

static struct space space;
static uint64_t ended_seq;
static uint64_t now_ns = LONG_NS;
static bool past = true, can_note = true;
static unsigned int n_notes;

void __wrap_object_removes_ended(struct space *of, uint64_t seq)
{
	ck_assert_ptr_eq(of, &space);
	ended_seq = seq;
}

uint64_t __wrap_clock_now_ns(void)
{
	return now_ns;
}

bool __wrap_threads_note(struct threads *threads, int task_fd)
{
	(void)threads;
	(void)task_fd;
	n_notes += can_note;
	return can_note;
}

bool __wrap_threads_are_past(struct threads *threads, threads_judge judge)
{
	(void)threads;
	(void)judge;
	return past;
}

enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode)
{
	(void)uffd;
	(void)addr;
	(void)bytes;
	(void)mode;
	return UFFD_OK;
}

static void setup(void)
{
	space.page_size = PAGE;
	space.page_shift = 12;
	space.identified = space.beacon_out = true;
	space.quiesce = QUIESCE_NULL;
}

static void teardown(void)
{
	quiesce_deinit(&space.quiesce);
}

static void later(void)
{
	now_ns += LONG_NS;
	quiesce_step(&space);
}

static bool pending(uint64_t addr)
{
	return quiesce_is_pending(&space.quiesce, addr);
}

START_TEST(what_is_removed_stays_until_every_thread_is_past)
{
	ck_assert(quiesce_is_idle(&space.quiesce));
	quiesce_note_remove(&space, 5 * PAGE, 6 * PAGE);
	past = false;
	for (int i = 0; i < 5; i++)
		later();
	ck_assert(pending(5 * PAGE));
	ck_assert(!pending(4 * PAGE));
	ck_assert(!pending(6 * PAGE));
	ck_assert_uint_eq(n_notes, 1);
	past = true;
	later();
	ck_assert(!pending(5 * PAGE));
	ck_assert(quiesce_is_idle(&space.quiesce));
}
END_TEST

START_TEST(nothing_is_proven_of_threads_that_could_not_be_seen)
{
	quiesce_note_remove(&space, 0, PAGE);
	can_note = false;
	for (int i = 0; i < 5; i++)
		later();
	ck_assert(pending(0));
	can_note = true;
	later();
	ck_assert(pending(0));
	later();
	ck_assert(!pending(0));
}
END_TEST

START_TEST(a_proof_is_about_what_was_removed_before_it)
{
	space.remove_seq = 7;
	quiesce_note_remove(&space, PAGE, 2 * PAGE);
	later();
	ck_assert_uint_eq(n_notes, 1);
	space.remove_seq = 8;
	quiesce_note_remove(&space, 2 * PAGE, 3 * PAGE);
	later();
	ck_assert_uint_eq(ended_seq, 7);
	ck_assert(!pending(PAGE));
	ck_assert(pending(2 * PAGE));
	later();
	ck_assert(pending(2 * PAGE));
	later();
	ck_assert(!pending(2 * PAGE));
}
END_TEST

START_TEST(a_page_removed_again_during_the_proof_waits_for_the_next)
{
	quiesce_note_remove(&space, PAGE, 2 * PAGE);
	later();
	quiesce_note_remove(&space, PAGE, 2 * PAGE);
	later();
	ck_assert(pending(PAGE));
}
END_TEST

START_TEST(a_program_that_never_stops_does_not_postpone_the_proof)
{
	for (uint64_t i = 0; i < 100; i++) {
		quiesce_note_remove(&space, i * PAGE, (i + 1) * PAGE);
		later();
	}
	ck_assert(!pending(50 * PAGE));
	ck_assert(pending(99 * PAGE));
}
END_TEST

START_TEST(too_many_ranges_are_rounded_outwards)
{
	const struct removed *young = &space.quiesce.young;

	for (uint64_t i = 0; i < 5000; i++)
		quiesce_note_remove(&space, i * 2 * PAGE, i * 2 * PAGE + PAGE);
	ck_assert_uint_le(young->ranges.n, 1024);
	for (uint64_t i = 0; i < 5000; i++)
		ck_assert(pending(i * 2 * PAGE));
	ck_assert(!pending(10000 * PAGE + CHUNK));
	/* A page in every second chunk of 200 GiB. */
	for (uint64_t i = 0; i < 50000; i++)
		quiesce_note_remove(&space, i * 2 * CHUNK + 7 * PAGE, i * 2 * CHUNK + 8 * PAGE);
	ck_assert_uint_le(young->ranges.n, 1024);
	for (uint64_t i = 0; i < 50000; i++)
		ck_assert(pending(i * 2 * CHUNK + 7 * PAGE));
	ck_assert(!pending(1ull << 40));
	/* And one in every other region of a whole address space. */
	for (uint64_t i = 0; i < 4096; i++)
		quiesce_note_remove(&space, i << 35, (i << 35) + PAGE);
	ck_assert(pending(7ull << 35));
	ck_assert_uint_le(young->ranges.n, 1024);
	later();
	later();
	ck_assert(quiesce_is_idle(&space.quiesce));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("quiesce");
	TCase *tcase = tcase_create("quiesce");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, what_is_removed_stays_until_every_thread_is_past);
	tcase_add_test(tcase, nothing_is_proven_of_threads_that_could_not_be_seen);
	tcase_add_test(tcase, a_proof_is_about_what_was_removed_before_it);
	tcase_add_test(tcase, a_page_removed_again_during_the_proof_waits_for_the_next);
	tcase_add_test(tcase, a_program_that_never_stops_does_not_postpone_the_proof);
	tcase_add_test(tcase, too_many_ranges_are_rounded_outwards);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
