/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Faults in memory that is not private and anonymous. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fixture.h"
#include "home.h"
#include "object.h"
#include "uffd.h"

static struct space space;
static struct fault fault;
static char *map;
static int let_go_says;
static uint64_t let_go_bytes, n_woken;

int __wrap_home_unregister(struct space *of, uint64_t start, uint64_t end);
int __wrap_home_unregister(struct space *of, uint64_t start, uint64_t end)
{
	ck_assert_ptr_eq(of, &space);
	ck_assert_uint_eq(start, (uintptr_t)map);
	let_go_bytes += end - start;
	return let_go_says;
}

static enum uffd_result register_says;

enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode);
enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode)
{
	(void)uffd;
	ck_assert_uint_eq(addr, (uintptr_t)map);
	ck_assert_uint_eq(bytes, space.page_size);
	ck_assert_uint_eq(mode, UFFD_REGISTER_MODE);
	return register_says;
}

enum uffd_result __wrap_uffd_wake(int uffd, uint64_t addr, uint64_t bytes);
enum uffd_result __wrap_uffd_wake(int uffd, uint64_t addr, uint64_t bytes)
{
	(void)uffd;
	ck_assert_uint_eq(addr, (uintptr_t)map);
	ck_assert_uint_eq(bytes, space.page_size);
	n_woken++;
	return UFFD_OK;
}

/* Two pages, of which the first is touched. */
static void map_file(int flags)
{
	int fd = memfd_create("object_serve", MFD_CLOEXEC);

	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(space.maps_fd, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 2 * (off_t)space.page_size), 0);
	map = mmap(NULL, 2 * space.page_size, PROT_READ | PROT_WRITE, flags, fd, 0);
	ck_assert_ptr_ne(map, MAP_FAILED);
	fault.addr = (uintptr_t)map + 8;
}

static void setup(void)
{
	map_file(MAP_PRIVATE);
}

/* Zeros, as of private memory that was never touched, would not be what the file has. */
START_TEST(a_private_file_that_was_registered_by_mistake_is_let_go)
{
	enum fill_result result = FILL_LATER;

	ck_assert(object_fault(&space, &fault, &result));
	ck_assert_int_eq(result, FILL_DONE);
	ck_assert_uint_eq(let_go_bytes, 2 * space.page_size);
	ck_assert_uint_eq(n_woken, 0); /* by letting go */
}
END_TEST

START_TEST(shared_memory_that_is_no_objects_is_let_go)
{
	enum fill_result result = FILL_LATER;

	map_file(MAP_SHARED);
	ck_assert(object_fault(&space, &fault, &result));
	ck_assert_int_eq(result, FILL_DONE);
	ck_assert_uint_eq(let_go_bytes, 2 * space.page_size);
}
END_TEST

START_TEST(not_while_an_event_is_unread)
{
	enum fill_result result = FILL_DONE;

	let_go_says = -EAGAIN;
	ck_assert(object_fault(&space, &fault, &result));
	ck_assert_int_eq(result, FILL_RETRY);
	ck_assert_uint_eq(n_woken, 0);
}
END_TEST

START_TEST(who_waits_for_what_is_not_ours_is_woken)
{
	enum fill_result result = FILL_LATER;

	let_go_says = -EINVAL;
	ck_assert(object_fault(&space, &fault, &result));
	ck_assert_int_eq(result, FILL_DONE);
	ck_assert_uint_eq(n_woken, 1);
}
END_TEST

START_TEST(what_another_has_registered_is_not_let_go)
{
	enum fill_result result = FILL_LATER;

	register_says = UFFD_ERROR;
	ck_assert(object_fault(&space, &fault, &result));
	ck_assert_int_eq(result, FILL_DONE);
	ck_assert_uint_eq(let_go_bytes, 0);
	ck_assert_uint_eq(n_woken, 1);
}
END_TEST

START_TEST(private_memory_is_somebody_elses_to_serve)
{
	enum fill_result result = FILL_LATER;
	char *private = mmap(NULL, space.page_size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(private, MAP_FAILED);
	fault.addr = (uintptr_t) private;
	ck_assert(!object_fault(&space, &fault, &result));
	ck_assert_uint_eq(let_go_bytes, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("object_serve");
	TCase *tcase = tcase_create("object_serve");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_private_file_that_was_registered_by_mistake_is_let_go);
	tcase_add_test(tcase, shared_memory_that_is_no_objects_is_let_go);
	tcase_add_test(tcase, not_while_an_event_is_unread);
	tcase_add_test(tcase, who_waits_for_what_is_not_ours_is_woken);
	tcase_add_test(tcase, what_another_has_registered_is_not_let_go);
	tcase_add_test(tcase, private_memory_is_somebody_elses_to_serve);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
