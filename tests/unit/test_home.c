/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * To unregister takes the markers and the messages of whatever lies there in that instant. What
 * an event has put there unseen is registered again before anybody reads the event. The seam
 * says what the wrappers below say.
 */
#include <errno.h>

#include "fixture.h"
#include "home.h"
#include "object.h"
#include "uffd.h"

#define START 0x10000ull
#define END 0x20000ull

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode);
enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes);
void __wrap_object_registered_again(struct space *space, uint64_t start, uint64_t end);

static struct space space;
static struct space_unit unit;
static struct {
	enum uffd_result before, after, unregister;
	unsigned int n_unregistered, n_registered, n_objects_told;
} kernel;

enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return kernel.n_unregistered ? kernel.after : kernel.before;
}

enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode)
{
	(void)uffd;
	ck_assert_uint_eq(addr, START);
	ck_assert_uint_eq(bytes, END - START);
	ck_assert_uint_eq(mode, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	kernel.n_registered++;
	return UFFD_OK;
}

enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes)
{
	(void)uffd;
	ck_assert_uint_eq(addr, START);
	ck_assert_uint_eq(bytes, END - START);
	/* A successor knows what may be registered no more. */
	ck_assert_uint_eq(unit.raced_start, START);
	ck_assert_uint_eq(unit.raced_end, END);
	kernel.n_unregistered++;
	return kernel.unregister;
}

void __wrap_object_registered_again(struct space *of, uint64_t start, uint64_t end)
{
	ck_assert_ptr_eq(of, &space);
	ck_assert_uint_eq(start, START);
	ck_assert_uint_eq(end, END);
	kernel.n_objects_told++;
}

static void setup(void)
{
	space.unit = &unit;
	ck_assert_int_eq(ranges_add(&space.registered, START, END, 0), 0);
	ck_assert_int_eq(ranges_add(&space.certain, START, END, 0), 0);
}

static void teardown(void)
{
	ranges_deinit(&space.registered);
	ranges_deinit(&space.certain);
}

START_TEST(what_is_let_go_is_forgotten)
{
	ck_assert_int_eq(home_unregister(&space, START, END), 0);
	ck_assert_uint_eq(kernel.n_registered, 0);
	ck_assert_uint_eq(space.registered.n, 0);
	ck_assert_uint_eq(space.certain.n, 0);
	ck_assert_uint_eq(space.raced.end, 0);
	ck_assert_uint_eq(unit.raced_end, 0);
}
END_TEST

START_TEST(nothing_is_let_go_with_an_event_unread)
{
	kernel.before = UFFD_AGAIN;
	ck_assert_int_eq(home_unregister(&space, START, END), -EAGAIN);
	ck_assert_uint_eq(kernel.n_unregistered, 0);
	ck_assert(ranges_cover(&space.certain, START, END));
}
END_TEST

START_TEST(what_an_event_moved_there_is_registered_again)
{
	kernel.after = UFFD_AGAIN;
	ck_assert_int_eq(home_unregister(&space, START, END), -EAGAIN);
	ck_assert_uint_eq(kernel.n_registered, 1);
	ck_assert_uint_eq(kernel.n_objects_told, 1);
	ck_assert(ranges_cover(&space.registered, START, END));
	ck_assert(!ranges_cover(&space.certain, START, END));
	ck_assert_uint_eq(space.raced.start, START);
	ck_assert_uint_eq(space.raced.end, END);
}
END_TEST

START_TEST(what_the_kernel_refuses_stays_registered)
{
	kernel.unregister = UFFD_NO_MEM;
	ck_assert_int_eq(home_unregister(&space, START, END), -EINVAL);
	ck_assert(ranges_cover(&space.registered, START, END));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("home");
	TCase *tcase = tcase_create("unregister");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, what_is_let_go_is_forgotten);
	tcase_add_test(tcase, nothing_is_let_go_with_an_event_unread);
	tcase_add_test(tcase, what_an_event_moved_there_is_registered_again);
	tcase_add_test(tcase, what_the_kernel_refuses_stays_registered);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
