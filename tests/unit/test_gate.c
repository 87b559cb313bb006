/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whatever the kernel says when staging is to be unregistered: nothing is read from the
 * userfaultfd while a MOVE could still succeed. A pipe stands for the userfaultfd, this
 * process's own memory for staging, and uffd_unregister for a kernel without memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "evict.h"
#include "fault.h"
#include "fixture.h"
#include "uffd.h"

#define N_PAGES 4u

enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes);

int __real_fault_read_pagemap(const struct space *space, uint64_t pgidx, uint32_t n,
			      uint64_t *ret);
int __wrap_fault_read_pagemap(const struct space *space, uint64_t pgidx, uint32_t n,
			      uint64_t *ret);

static struct {
	enum uffd_result whole;	     /* of the chunk */
	enum uffd_result page[N_PAGES]; /* one page of it */
	unsigned int n_whole, n_page;
	int pagemap; /* 0: it answers; else what it says instead */
} kernel;

static struct group group;
static struct arena arena;
static struct space space;
static int message_fd;

enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes)
{
	uint64_t page = (addr - space.layout.staging_addr) / space.page_size;

	ck_assert_int_eq(uffd, space.uffd);
	if (bytes == N_PAGES * space.page_size) {
		kernel.n_whole++;
		return kernel.whole;
	}
	ck_assert_uint_eq(bytes, space.page_size);
	ck_assert_uint_lt(page, N_PAGES);
	kernel.n_page++;
	return kernel.page[page];
}

int __wrap_fault_read_pagemap(const struct space *of, uint64_t pgidx, uint32_t n, uint64_t *ret)
{
	return kernel.pagemap ? kernel.pagemap : __real_fault_read_pagemap(of, pgidx, n, ret);
}

static int unread_bytes(void)
{
	int n;

	ck_assert_int_eq(ioctl(space.uffd, FIONREAD, &n), 0);
	return n;
}

/* A fault is unread, and the beacon is being moved. */
static void setup(void)
{
	struct uffd_msg msg = { .event = UFFD_EVENT_PAGEFAULT };
	size_t staging;
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	message_fd = ends[1];
	ck_assert_int_eq(write(message_fd, &msg, sizeof(msg)), sizeof(msg));
	space.uffd = ends[0];
	space.sock = space.agent_efd = -1;
	space.group = &group;
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	space.n_batches = 1;
	space.batches = calloc(1, sizeof(*space.batches));
	space.unit = calloc(1, sizeof(*space.unit));
	fixture_arena(&arena, 16);
	ck_assert_int_eq(event_log_init(&space.log, &arena, &space.unit->log), 0);
	space.ring = calloc(1, sizeof(*space.ring));
	staging = BATCH_PAGES_MAX * space.page_size;
	space.layout.staging_addr =
		(uintptr_t)mmap(NULL, staging, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	space.batches[0].state = BATCH_MOVING;
	space.batches[0].beacon = true;
	space.batches[0].seq = 1; /* not answered */
	space.batches[0].n_pages = N_PAGES;
}

static void teardown(void)
{
	free(space.batches);
	free(space.unit);
	event_log_deinit(&space.log);
	arena_deinit(&arena, true);
	free(space.ring);
}

START_TEST(a_gate_that_closes_lets_the_message_be_read)
{
	kernel.whole = UFFD_OK;
	fault_read(&space);
	ck_assert_int_eq(unread_bytes(), 0);
	ck_assert_uint_eq(space.n_faults, 1);
	ck_assert_int_eq(space.batches[0].state, BATCH_MOVED);
}
END_TEST

START_TEST(nothing_is_read_while_there_is_no_memory_to_close_the_gate)
{
	const enum uffd_result refusals[] = { UFFD_NO_MEM, UFFD_ERROR, UFFD_AGAIN };

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		kernel.whole = refusals[i];
		fault_read(&space);
		ck_assert_int_gt(unread_bytes(), 0);
		ck_assert_int_eq(space.batches[0].state, BATCH_MOVING);
	}
	kernel.whole = UFFD_OK;
	fault_read(&space);
	ck_assert_int_eq(unread_bytes(), 0);
}
END_TEST

START_TEST(a_chunk_with_a_strange_mapping_in_it_is_closed_page_by_page)
{
	kernel.whole = UFFD_NO_VMA;
	kernel.page[1] = UFFD_NO_VMA;
	kernel.page[3] = UFFD_NO_MEM;
	fault_read(&space);
	ck_assert_uint_eq(kernel.n_page, N_PAGES);
	ck_assert_int_gt(unread_bytes(), 0);
	kernel.page[3] = UFFD_OK;
	fault_read(&space);
	ck_assert_int_eq(unread_bytes(), 0);
	ck_assert_int_eq(space.batches[0].state, BATCH_MOVED);
}
END_TEST

START_TEST(nothing_is_read_before_it_is_known_what_moved)
{
	const int answers[] = { -ENOMEM, 2 };

	/* One page has arrived. */
	*(volatile char *)space.layout.staging_addr = 1;
	for (size_t i = 0; i < 2; i++) {
		kernel.pagemap = answers[i];
		fault_read(&space);
		ck_assert_int_gt(unread_bytes(), 0);
		ck_assert_int_eq(space.batches[0].state, BATCH_MOVING);
	}
	kernel.pagemap = 0;
	fault_read(&space);
	ck_assert_int_eq(unread_bytes(), 0);
	ck_assert_int_eq(space.batches[0].state, BATCH_MOVED);
	ck_assert(batch_has_moved(&space.batches[0], 0));
	ck_assert(!batch_has_moved(&space.batches[0], 1));
}
END_TEST

START_TEST(an_agent_that_went_is_not_forgotten_while_it_could_move)
{
	kernel.whole = UFFD_NO_MEM;
	evict_abandon(&space);
	ck_assert_int_eq(space.batches[0].state, BATCH_MOVING);
	kernel.whole = UFFD_OK;
	evict_abandon(&space);
	ck_assert_int_eq(space.batches[0].state, BATCH_IDLE);
}
END_TEST

START_TEST(a_process_that_has_gone_holds_no_gate)
{
	kernel.whole = UFFD_GONE;
	fault_read(&space);
	ck_assert_int_eq(unread_bytes(), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gate");
	TCase *tcase = tcase_create("gate");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_gate_that_closes_lets_the_message_be_read);
	tcase_add_test(tcase, nothing_is_read_while_there_is_no_memory_to_close_the_gate);
	tcase_add_test(tcase, a_chunk_with_a_strange_mapping_in_it_is_closed_page_by_page);
	tcase_add_test(tcase, nothing_is_read_before_it_is_known_what_moved);
	tcase_add_test(tcase, an_agent_that_went_is_not_forgotten_while_it_could_move);
	tcase_add_test(tcase, a_process_that_has_gone_holds_no_gate);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
