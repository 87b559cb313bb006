/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known of the mappings, and what may leave. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fixture.h"
#include "pagemap_check.h"
#include "pick.h"
#include "uffd.h"

#define PAGES 8u

static struct space space;
static enum uffd_result settled;
static uint64_t start, end, half, now_ns;
static struct batch batch;
static struct batch_page units[BATCH_UNITS][BATCH_UNIT_PAGES];

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return settled;
}

enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t len, uint64_t mode);
enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t len, uint64_t mode)
{
	(void)uffd, (void)mode;
	ck_assert_uint_eq(addr, start);
	ck_assert_uint_le(len, end - start);
	return UFFD_OK;
}

static enum uffd_result registered;
static uint64_t asked_addr;

enum uffd_result __wrap_uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size);
enum uffd_result __wrap_uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size)
{
	(void)uffd;
	ck_assert_uint_eq(page_size, space.page_size);
	asked_addr = addr;
	return registered;
}

uint64_t __wrap_clock_now_ns(void);
uint64_t __wrap_clock_now_ns(void)
{
	return now_ns;
}

/* A mapping of its own, between two that cannot be merged with it. */
static void setup(void)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	char *map = mmap(NULL, (PAGES + 4) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	ck_assert_int_eq(mprotect(map + 2 * page, PAGES * page, PROT_READ | PROT_WRITE), 0);
	start = (uintptr_t)map + 2 * page;
	end = start + PAGES * page;
	half = start + PAGES / 2 * page;
	settled = UFFD_OK;
	registered = UFFD_OK;
	space.page_size = page;
	space.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(space.maps_fd, 0);
	ck_assert_int_eq(ranges_add(&space.occupied, start, half, 0), 0);
}

START_TEST(a_registered_mapping_has_grown)
{
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
	ck_assert(ranges_cover(&space.occupied, start, end));
	ck_assert_uint_eq(ranges_bytes(&space.occupied), end - start);
}
END_TEST

/* In an instant in which nothing was certain. */
START_TEST(what_was_taken_for_registered_is_asked_for)
{
	uint64_t page = space.page_size, hole = half + page;

	ck_assert_int_eq(munmap((void *)hole, page), 0);
	ck_assert_int_eq(ranges_add(&space.occupied, start, end, 0), 0);
	ck_assert_int_eq(ranges_add(&space.certain, start, hole, 0), 0);
	space.assumed = (struct range){ start, end, 0 };
	settled = UFFD_AGAIN;
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
	ck_assert(ranges_cover(&space.occupied, start, end));
	/* Behind the hole it is not, after all. */
	settled = UFFD_OK;
	registered = UFFD_NO_VMA;
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
	ck_assert(ranges_cover(&space.occupied, start, hole));
	ck_assert_uint_eq(ranges_bytes(&space.occupied), hole - start);
	ck_assert_uint_eq(space.assumed.end, 0);
}
END_TEST

START_TEST(while_an_event_is_unread_nothing_is_said_to_have_grown)
{
	settled = UFFD_AGAIN;
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
	ck_assert_uint_eq(ranges_bytes(&space.occupied), half - start);
	settled = UFFD_OK;
	space.n_events = 1;
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
	ck_assert_uint_eq(ranges_bytes(&space.occupied), half - start);
}
END_TEST

/* All pages are there, and came home by a fault; the last `n` of them just now. */
static void come_home(uint32_t n)
{
	memset((void *)start, 1, end - start);
	space.family = check_family(64, 8);
	ck_assert_int_eq(pagemap_init(&space.map, space.family), 0);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(space.pagemap_fd, 0);
	for (uint64_t i = 0; i < PAGES; i++)
		ck_assert_int_eq(pagemap_set(&space.map, space_pgidx(&space, start) + i,
					     (struct page_rec){ PAGE_REC_REFERENCED }),
				 0);
	for (uint32_t i = PAGES - n; i < PAGES; i++)
		space.recent.pgidx[space.recent.next++] = space_pgidx(&space, start) + i;
	now_ns = space.recent.ns = 1000000000;
	for (uint32_t i = 0; i < BATCH_UNITS; i++)
		batch.units[i] = units[i];
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
}

static uint32_t pick(bool any)
{
	struct pick_request request = {
		.from = start, .end = end, .max = BATCH_PAGES_MAX, .any = any
	};
	uint64_t at;

	return pick_pages(&space, &batch, &request, &at);
}

START_TEST(what_came_home_last_stays_while_others_do)
{
	come_home(3);
	ck_assert_uint_eq(pick(false), 0);
	ck_assert_uint_eq(pick(false), PAGES - 3);
	ck_assert_uint_eq(pick(false), PAGES - 3);
	ck_assert_uint_eq(batch_page(&batch, PAGES - 4)->pgidx,
			  space_pgidx(&space, start) + PAGES - 4);
}
END_TEST

START_TEST(when_no_more_comes_home_all_may_leave)
{
	come_home(3);
	now_ns += 99000000;
	(void)pick(false);
	ck_assert_uint_eq(pick(false), PAGES - 3);
	now_ns += 2000000;
	ck_assert_uint_eq(pick(false), PAGES - 3);
	ck_assert_uint_eq(pick(false), PAGES);
}
END_TEST

START_TEST(who_asks_for_a_page_to_leave_gets_it)
{
	come_home(3);
	ck_assert_uint_eq(pick(true), PAGES);
}
END_TEST

START_TEST(from_what_is_not_registered_after_all_nothing_leaves)
{
	come_home(0);
	ck_assert_int_eq(ranges_add(&space.certain, start, end, 0), 0);
	ck_assert_int_eq(
		pagemap_set(&space.map, space_pgidx(&space, half), check_stored(space.family)), 0);
	registered = UFFD_NO_VMA;
	ck_assert_uint_eq(pick(true), 0);
	ck_assert_uint_eq(asked_addr, start);
	ck_assert_uint_eq(space.certain.n, 0);
	ck_assert_uint_eq(space.occupied.n, 0);
	registered = UFFD_OK;
	ck_assert_int_eq(pick_refresh_maps(&space, 0), 0);
	ck_assert_uint_eq(pick(true), PAGES);
	ck_assert(ranges_cover(&space.certain, start, end));
}
END_TEST

/* Nor is it needed: no page can be moved then. */
START_TEST(an_unread_event_says_nothing_of_the_registration)
{
	come_home(0);
	ck_assert_int_eq(ranges_add(&space.certain, start, end, 0), 0);
	registered = UFFD_AGAIN;
	ck_assert_uint_eq(pick(true), PAGES);
	ck_assert(ranges_cover(&space.certain, start, end));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pick");
	TCase *tcase = tcase_create("pick");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_registered_mapping_has_grown);
	tcase_add_test(tcase, what_was_taken_for_registered_is_asked_for);
	tcase_add_test(tcase, while_an_event_is_unread_nothing_is_said_to_have_grown);
	tcase_add_test(tcase, what_came_home_last_stays_while_others_do);
	tcase_add_test(tcase, when_no_more_comes_home_all_may_leave);
	tcase_add_test(tcase, who_asks_for_a_page_to_leave_gets_it);
	tcase_add_test(tcase, from_what_is_not_registered_after_all_nothing_leaves);
	tcase_add_test(tcase, an_unread_event_says_nothing_of_the_registration);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
