/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known of the mappings: registered ones grow without a word. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fixture.h"
#include "pick.h"
#include "uffd.h"

#define PAGES 8u

static struct space space;
static enum uffd_result settled;
static uint64_t start, end, half;

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return settled;
}

/* A mapping of its own, between two that cannot be merged with it. */
static void setup(void)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	char *map = mmap(NULL, (PAGES + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	ck_assert_int_eq(mprotect(map + page, PAGES * page, PROT_READ | PROT_WRITE), 0);
	start = (uintptr_t)map + page;
	end = start + PAGES * page;
	half = start + PAGES / 2 * page;
	settled = UFFD_OK;
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

int main(void)
{
	Suite *suite = suite_create("pick");
	TCase *tcase = tcase_create("mappings");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_registered_mapping_has_grown);
	tcase_add_test(tcase, while_an_event_is_unread_nothing_is_said_to_have_grown);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
