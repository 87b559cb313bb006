/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Faults, with a kernel that answers as it is told to. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fault.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "uffd.h"

#define ADDR 0x700000000000ull

static struct space space;
static struct group group;
static enum uffd_result answer;
static unsigned int n_unprotected, n_woken;

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

static void setup(void)
{
	space = (struct space){ .uffd = -1, .group = &group, .identified = true };
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.family = check_family(64, 8);
	ck_assert_int_eq(pagemap_init(&space.map, space.family), 0);
	space.faults[0] = (struct fault){ .addr = ADDR, .write = true, .protected = true };
	space.n_faults = 1;
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

int main(void)
{
	Suite *suite = suite_create("fault");
	TCase *tcase = tcase_create("protected");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_store_to_a_page_that_is_only_protected_goes_through);
	tcase_add_test(tcase, such_a_store_waits_while_an_event_is_unread);
	tcase_add_test(tcase, such_a_store_whose_mapping_has_gone_is_woken);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
