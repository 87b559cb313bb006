/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ground that is let go for an mremap: a successor of a daemon that ends then must know it. */
#include <poll.h>
#include <sys/syscall.h>

#include "evict.h"
#include "fault.h"
#include "fixture.h"
#include "populate.h"
#include "threads.h"
#include "uffd.h"

#define ADDR 0x700000000000ull
#define PAGE 0x1000ull

static struct space space;
static struct space_unit unit;
static enum uffd_result answer;
static unsigned int n_let_go, n_registered;

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	(void)fds;
	(void)n;
	(void)timeout_ms;
	return 0;
}

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return UFFD_AGAIN;
}

pid_t __wrap_threads_find(int task_fd, pid_t tid);
pid_t __wrap_threads_find(int task_fd, pid_t tid)
{
	(void)task_fd;
	return tid;
}

bool __wrap_threads_read_call(int task_fd, pid_t tid, struct threads_call *ret_call);
bool __wrap_threads_read_call(int task_fd, pid_t tid, struct threads_call *ret_call)
{
	(void)task_fd;
	(void)tid;
	*ret_call = (struct threads_call){ .nr = SYS_mremap, .args = { 0, PAGE, 2 * PAGE } };
	return true;
}

int __wrap_fault_read_pagemap(const struct space *of, uint64_t pgidx, uint32_t n, uint64_t *ret);
int __wrap_fault_read_pagemap(const struct space *of, uint64_t pgidx, uint32_t n, uint64_t *ret)
{
	(void)of;
	(void)pgidx;
	ret[0] = 0;
	return n ? 1 : 0;
}

enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes);
enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes)
{
	(void)uffd;
	ck_assert_uint_eq(addr, ADDR);
	ck_assert_uint_eq(bytes, PAGE);
	ck_assert_uint_eq(unit.raced_start, ADDR);
	ck_assert_uint_eq(unit.raced_end, ADDR + PAGE);
	n_let_go++;
	return answer;
}

enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode);
enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode)
{
	(void)uffd;
	(void)addr;
	(void)bytes;
	(void)mode;
	n_registered++;
	return UFFD_OK;
}

static void setup(void)
{
	n_let_go = n_registered = 0;
	unit = (struct space_unit){ .next = 0 };
	space = (struct space){ .uffd = -1, .unit = &unit, .page_size = PAGE, .page_shift = 12 };
	space.faults[0] = (struct fault){ .addr = ADDR, .tid = 1 };
	space.n_faults = 1;
}

START_TEST(ground_is_noted_before_it_is_let_go)
{
	answer = UFFD_OK;
	populate_step(&space);
	ck_assert_uint_eq(n_let_go, 1);
	ck_assert_uint_eq(n_registered, 1);
	ck_assert_uint_eq(space.raced.end, ADDR + PAGE);
	ck_assert_uint_eq(unit.raced_end, ADDR + PAGE);
}
END_TEST

START_TEST(what_the_kernel_refuses_is_not)
{
	answer = UFFD_NO_MEM;
	populate_step(&space);
	ck_assert_uint_eq(n_let_go, 1);
	ck_assert_uint_eq(n_registered, 0);
	ck_assert_uint_eq(space.raced.end, 0);
	ck_assert_uint_eq(unit.raced_end, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("populate");
	TCase *tcase = tcase_create("ground");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, ground_is_noted_before_it_is_let_go);
	tcase_add_test(tcase, what_the_kernel_refuses_is_not);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
