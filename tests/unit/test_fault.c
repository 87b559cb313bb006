/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Faults, with a kernel that answers as it is told to. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fault.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "uffd.h"

#define ADDR 0x700000000000ull

static struct space space;
static struct group group;
static enum uffd_result answer;
static unsigned int n_unprotected, n_woken, n_copied;

enum uffd_result __wrap_uffd_unprotect(int uffd, uint64_t addr, uint64_t bytes);
enum uffd_result __wrap_uffd_unprotect(int uffd, uint64_t addr, uint64_t bytes)
{
	(void)uffd;
	ck_assert_uint_eq(addr, ADDR);
	ck_assert_uint_eq(bytes, space.page_size);
	n_unprotected++;
	return answer;
}

/* No event is unread. */
enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return UFFD_OK;
}

enum uffd_result __wrap_uffd_wake(int uffd, uint64_t addr, uint64_t bytes);
enum uffd_result __wrap_uffd_wake(int uffd, uint64_t addr, uint64_t bytes)
{
	(void)uffd;
	(void)addr;
	(void)bytes;
	n_woken++;
	return UFFD_OK;
}

enum uffd_result __wrap_uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
enum uffd_result __wrap_uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done)
{
	(void)uffd;
	ck_assert_uint_eq(addr, ADDR);
	ck_assert_uint_eq(bytes, space.page_size);
	*ret_done = answer == UFFD_OK ? bytes : 0;
	return answer;
}

enum uffd_result __wrap_uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
				  uint64_t *ret_done);
enum uffd_result __wrap_uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
				  uint64_t *ret_done)
{
	(void)uffd;
	ck_assert_uint_eq(addr, ADDR);
	ck_assert_ptr_eq(src, space.zero_page);
	n_copied++;
	*ret_done = bytes;
	return UFFD_OK;
}

/* What the program's page table says of the page. */
static void set_entry(uint64_t entry)
{
	space.pagemap_fd = memfd_create("pagemap", MFD_CLOEXEC);
	ck_assert_int_ge(space.pagemap_fd, 0);
	ck_assert_int_eq(pwrite(space.pagemap_fd, &entry, sizeof(entry),
				(off_t)((ADDR >> space.page_shift) * sizeof(entry))),
			 sizeof(entry));
}

static void setup(void)
{
	static char zeros[65536];

	space = (struct space){ .uffd = -1, .group = &group, .identified = true };
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.family = check_family(64, 8);
	ck_assert_int_eq(pagemap_init(&space.map, space.family), 0);
	space.faults[0] = (struct fault){ .addr = ADDR, .write = true, .protected = true };
	space.n_faults = 1;
	space.zero_page = zeros;
}

START_TEST(a_store_to_a_page_that_is_only_protected_goes_through)
{
	answer = UFFD_OK;
	fault_serve_all(&space);
	ck_assert_uint_eq(n_unprotected, 1);
	ck_assert_uint_eq(space.n_faults, 0);
	/* The kernel has woken it. */
	ck_assert_uint_eq(n_woken, 0);
}
END_TEST

START_TEST(such_a_store_waits_while_an_event_is_unread)
{
	answer = UFFD_AGAIN;
	fault_serve_all(&space);
	ck_assert_uint_eq(space.n_faults, 1);
}
END_TEST

START_TEST(such_a_store_whose_mapping_has_gone_is_woken)
{
	answer = UFFD_NO_VMA;
	fault_serve_all(&space);
	ck_assert_uint_eq(space.n_faults, 0);
	ck_assert_uint_eq(n_woken, 1);
}
END_TEST

/* The page table has this entry, and the kernel says that of a zero page. */
static void store_to_hole(uint64_t entry, enum uffd_result says)
{
	space.faults[0].protected = false;
	set_entry(entry);
	answer = says;
	fault_serve_all(&space);
}

START_TEST(a_first_store_gets_the_zero_page)
{
	store_to_hole(0, UFFD_OK);
	ck_assert_uint_eq(space.n_faults + n_copied + n_woken, 0);
}
END_TEST

/* The kernel says of both that there is something. */
START_TEST(a_late_message_takes_no_guard_away)
{
	store_to_hole(0, UFFD_EXISTS);
	ck_assert_uint_eq(n_copied, 0);
	ck_assert_uint_eq(n_woken, 1);
	ck_assert_uint_eq(space.n_faults, 0);
}
END_TEST

START_TEST(what_was_given_up_and_has_its_marker_still_is_zero)
{
	ck_assert_int_eq(pagemap_set(&space.map, ADDR >> space.page_shift,
				     (struct page_rec){ PAGE_REMOVED }),
			 0);
	store_to_hole(UHMM_PAGEMAP_UFFD_WP, UFFD_EXISTS);
	ck_assert_uint_eq(n_copied, 1);
	ck_assert_uint_eq(space.n_faults, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fault");
	TCase *tcase = tcase_create("protected");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_store_to_a_page_that_is_only_protected_goes_through);
	tcase_add_test(tcase, such_a_store_waits_while_an_event_is_unread);
	tcase_add_test(tcase, such_a_store_whose_mapping_has_gone_is_woken);
	tcase_add_test(tcase, a_first_store_gets_the_zero_page);
	tcase_add_test(tcase, a_late_message_takes_no_guard_away);
	tcase_add_test(tcase, what_was_given_up_and_has_its_marker_still_is_zero);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
