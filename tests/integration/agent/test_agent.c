/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the agent does on command, and what a program can see of it. A mock daemon (mock.h)
 * drives the real preload library in a real program; each test is one rule.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mock.h"
#include "suites.h"
#include "util/uapi.h"

#define GOOD 7
#define PAGES 64u

static struct mock mock;
static struct victim victim;
static struct space space;
static size_t page;

static void setup(void)
{
	page = (size_t)getpagesize();
	mock_open(&mock);
}

static void teardown(void)
{
	mock_close(&mock);
}

/* The victim in this mode, enrolled; returns the number it says first. */
static uint64_t start(const char *mode)
{
	victim_start(&mock, &victim, mode, NULL);
	mock_enrol(&mock, &space);
	ck_assert_int_eq(space.peer, victim.pid);
	return victim_read_number(&victim);
}

static void expect_good_end(void)
{
	int status = victim_wait(&victim);

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == GOOD, "status %#x", status);
	space_deinit(&space);
}

static void finish(void)
{
	victim_go_on(&victim);
	expect_good_end();
}

/* MOVE the region into chunk 0, with the gate open for as long as that takes. */
static int move_region(uint64_t region)
{
	int status;

	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(mock_register(&space, space_chunk(&space, 0), MOCK_CHUNK_BYTES), 0);
	space_add_run(&space, 0, region, 0, PAGES, 0);
	space_command(&space, 0, UHMM_OP_MOVE);
	status = space_finish(&space, 0);
	mock_unregister(&space, space_chunk(&space, 0), MOCK_CHUNK_BYTES);
	return status;
}

static void store_region(void)
{
	/* In two runs and the other way round, as slots come. */
	space_add_run(&space, 0, 0, 0, PAGES / 2, PAGES / 2 * page);
	space_add_run(&space, 0, 0, PAGES / 2, PAGES / 2, 0);
	space_command(&space, 0, UHMM_OP_STORE);
	ck_assert_int_eq(space_finish(&space, 0), 0);
	ck_assert_int_eq(space.ring->boxes[0].runs[0].result, 0);
	ck_assert_int_eq(space.ring->boxes[0].runs[1].result, 0);
}

/* Serve n faults on the region from the slot file. */
static void serve_faults(uint64_t region, unsigned int n)
{
	unsigned char *bytes = malloc(page);

	for (unsigned int i = 0; i < n; i++) {
		uint64_t addr = mock_next_event(space.uffd, UFFD_EVENT_PAGEFAULT);
		uint64_t index = (addr - region) / page;
		off_t off = (off_t)((index + PAGES / 2) % PAGES * page);

		ck_assert_uint_lt(index, PAGES);
		ck_assert_int_eq(pread(space.slot_fd, bytes, page, off), (ssize_t)page);
		mock_copy(space.uffd, addr, bytes, page);
	}
	free(bytes);
}

static ssize_t read_victim(uint64_t addr, void *bytes, size_t len)
{
	struct iovec local = { .iov_base = bytes, .iov_len = len };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)addr, .iov_len = len };

	return process_vm_readv(victim.pid, &local, 1, &remote, 1, 0);
}

START_TEST(agent_is_harmless_and_out_of_sight)
{
	static const char *const empty[] = { "CapInh", "CapPrm", "CapEff", "CapAmb" };
	char path[64], target[64], value[128], uid[128];
	pid_t tid;

	start("hello");
	tid = proc_find_agent(victim.pid);
	ck_assert_int_eq(tid, space.enrol.agent_tid);
	ck_assert_uint_eq((uint32_t)tid, space.ring->agent_tid);
	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 3);
	/* Socket, userfaultfd, eventfd, memory. */
	proc_await_agent_fds(victim.pid, 4);
	for (size_t i = 0; i < 4; i++) {
		proc_status(victim.pid, tid, empty[i], value, sizeof(value));
		ck_assert_str_eq(value, "0000000000000000");
	}
	/* All but KILL and STOP, which nobody can block. */
	proc_status(victim.pid, tid, "SigBlk", value, sizeof(value));
	ck_assert_str_eq(value, "fffffffffffbfeff");
	proc_status(victim.pid, victim.pid, "SigBlk", value, sizeof(value));
	ck_assert_str_eq(value, "0000000000000000");
	proc_status(victim.pid, tid, "NoNewPrivs", value, sizeof(value));
	ck_assert_str_eq(value, "1");
	proc_status(victim.pid, victim.pid, "NoNewPrivs", value, sizeof(value));
	ck_assert_str_eq(value, "0");
	proc_status(victim.pid, tid, "Uid", value, sizeof(value));
	proc_status(victim.pid, victim.pid, "Uid", uid, sizeof(uid));
	ck_assert_str_eq(value, uid);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/cwd", victim.pid, tid);
	ck_assert_int_eq(readlink(path, target, sizeof(target)), 1);
	finish();
}
END_TEST

START_TEST(program_starts_as_without_us)
{
	victim_start(&mock, &victim, "sees", NULL);
	mock_enrol(&mock, &space);
	expect_good_end();
}
END_TEST

START_TEST(pages_leave_and_come_home)
{
	uint64_t region = start("pages");
	unsigned char first;

	space_give_slot_file(&mock, &space);
	ck_assert_int_eq(move_region(region), 0);
	ck_assert_int_eq(space.ring->boxes[0].runs[0].result, 0);
	ck_assert_int_eq(read_victim(space_chunk(&space, 0) + page, &first, 1), 1);
	ck_assert_uint_eq(first, (unsigned char)(1 + page % 251));
	store_region();
	space_command(&space, 0, UHMM_OP_FREE);
	ck_assert_int_eq(space_finish(&space, 0), 0);
	ck_assert_int_eq(read_victim(space_chunk(&space, 0) + page, &first, 1), 1);
	ck_assert_uint_eq(first, 0);
	victim_go_on(&victim);
	serve_faults(region, PAGES);
	expect_good_end();
}
END_TEST

START_TEST(all_boxes_are_served)
{
	uint64_t region = start("pages");

	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(mock_register(&space, space.enrol.staging_addr,
				       MOCK_CHUNKS * MOCK_CHUNK_BYTES), 0);
	for (unsigned int box = 0; box < MOCK_CHUNKS; box++) {
		space_add_run(&space, box, region + box * page, 511, 1, 0);
		space_command(&space, box, UHMM_OP_MOVE);
	}
	for (unsigned int box = 0; box < MOCK_CHUNKS; box++) {
		unsigned char first;

		ck_assert_int_eq(space_finish(&space, box), 0);
		ck_assert_int_eq(read_victim(space_chunk(&space, box) + 511 * page, &first, 1), 1);
		ck_assert_uint_eq(first, (unsigned char)(box + box * page % 251));
	}
	kill(victim.pid, SIGKILL);
	victim_wait(&victim);
}
END_TEST

START_TEST(page_that_will_not_move_is_skipped_alone)
{
	uint64_t region = start("pages");
	unsigned char *other = calloc(1, page);
	unsigned char first;

	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(mock_register(&space, space_chunk(&space, 0), MOCK_CHUNK_BYTES), 0);
	/* In the way of the sixth page. */
	mock_copy(space.uffd, space_chunk(&space, 0) + 5 * page, other, page);
	space_add_run(&space, 0, region, 0, PAGES, 0);
	space_command(&space, 0, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 0), 0);
	ck_assert_int_eq(space.ring->boxes[0].runs[0].result, -EEXIST);
	ck_assert_int_eq(read_victim(space_chunk(&space, 0) + 4 * page, &first, 1), 1);
	ck_assert_uint_eq(first, (unsigned char)(4 + 4 * page % 251));
	ck_assert_int_eq(read_victim(space_chunk(&space, 0) + 6 * page, &first, 1), 1);
	ck_assert_uint_eq(first, (unsigned char)(6 + 6 * page % 251));
	ck_assert_int_eq(read_victim(region + 5 * page, &first, 1), 1);
	ck_assert_uint_eq(first, (unsigned char)(5 + 5 * page % 251));
	free(other);
	kill(victim.pid, SIGKILL);
	victim_wait(&victim);
}
END_TEST

START_TEST(page_that_is_away_when_it_is_looked_at_holds_nobody_up)
{
	uint64_t region = start("pages");

	ck_assert_int_eq(move_region(region), 0);
	ck_assert_int_eq(mock_register(&space, space_chunk(&space, 1), MOCK_CHUNK_BYTES), 0);
	/* With what is not mapped behind it, nobody can say before what is there. */
	space_add_run(&space, 1, region + (PAGES - 1) * page, 0, 2, 0);
	space_command(&space, 1, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 1), 0);
	/* Nor does it wait for the daemon that has died meanwhile. */
	space_deinit(&space);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	kill(victim.pid, SIGKILL);
	victim_wait(&victim);
	space_deinit(&space);
}
END_TEST

START_TEST(agent_without_a_way_to_look_moves_nothing)
{
	uint64_t region;

	victim_start(&mock, &victim, "pages", NULL);
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	mock_welcome(&mock, &space);
	mock_take_enrol(&space, true);
	mock_ready_without_memory(&space);
	region = victim_read_number(&victim);
	ck_assert_int_eq(move_region(region), -EBADF);
	ck_assert_int_eq(space.ring->boxes[0].runs[0].result, 12345);
	finish();
}
END_TEST

START_TEST(closed_gate_ends_the_command)
{
	uint64_t region = start("pages");

	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	for (unsigned int i = 0; i < 16; i++)
		space_add_run(&space, 0, region + i * page, i, 1, 0);
	space_command(&space, 0, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 0), -EINVAL);
	ck_assert_int_eq(space.ring->boxes[0].runs[7].result, -EINVAL);
	ck_assert_int_eq(space.ring->boxes[0].runs[8].result, 12345);
	finish();
}
END_TEST

START_TEST(unread_event_ends_the_command)
{
	uint64_t region = start("drops-range");

	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(mock_register(&space, space_chunk(&space, 0), MOCK_CHUNK_BYTES), 0);
	victim_go_on(&victim);
	usleep(100 * 1000);
	space_add_run(&space, 0, region + page, 0, 8, 0);
	space_add_run(&space, 0, region + 9 * page, 8, 8, 0);
	space_command(&space, 0, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 0), -EAGAIN);
	ck_assert_int_eq(space.ring->boxes[0].runs[0].result, -EAGAIN);
	ck_assert_int_eq(space.ring->boxes[0].runs[1].result, 12345);
	ck_assert_uint_eq(mock_next_event(space.uffd, UFFD_EVENT_REMOVE), region);
	expect_good_end();
}
END_TEST

START_TEST(nonsense_in_the_ring_is_refused)
{
	start("hello");
	space_add_run(&space, 0, 0, 510, 3, 0);
	space_command(&space, 0, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 0), -ERANGE);
	space_add_run(&space, 0, 0, UINT32_MAX, UINT32_MAX, 0);
	space_command(&space, 0, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 0), -ERANGE);
	space.ring->boxes[0].n_runs = UHMM_RING_RUNS + 1;
	space_command(&space, 0, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 0), -ERANGE);
	space_add_run(&space, 0, 0, 0, 1, 0);
	space_command(&space, 0, UHMM_OP_STORE);
	ck_assert_int_eq(space_finish(&space, 0), -EBADF);
	finish();
}
END_TEST

START_TEST(program_that_closes_every_descriptor_keeps_its_agent)
{
	uint64_t region = start("closes");

	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 2);
	space_give_slot_file(&mock, &space);
	ck_assert_int_eq(move_region(region), 0);
	store_region();
	victim_go_on(&victim);
	serve_faults(region, PAGES);
	expect_good_end();
}
END_TEST

START_TEST(exec_ends_the_connection_and_enrols_anew)
{
	struct space next;

	start("exec");
	victim_go_on(&victim);
	ck_assert(mock_sees_eof(space.sock));
	mock_enrol(&mock, &next);
	ck_assert_int_eq(next.peer, victim.pid);
	ck_assert_uint_eq(victim_read_number(&victim), 1);
	space_deinit(&next);
	finish();
}
END_TEST

START_TEST(stopped_program_answers_when_it_goes_on)
{
	start("hello");
	kill(victim.pid, SIGSTOP);
	ck_assert_int_eq(waitpid(victim.pid, NULL, WUNTRACED), victim.pid);
	space_command(&space, 0, UHMM_OP_FREE);
	ck_assert(!space_is_done(&space, 0, 200));
	kill(victim.pid, SIGCONT);
	ck_assert_int_eq(space_finish(&space, 0), 0);
	finish();
}
END_TEST

static void expect_agent_ends(void)
{
	ck_assert(mock_sees_eof(space.sock));
	ck_assert_uint_eq(space.ring->agent_state, UHMM_AGENT_ENDED);
	for (int i = 0; i < 100 && proc_find_agent(victim.pid); i++)
		usleep(10 * 1000);
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
}

START_TEST(quit_ends_the_agent_and_not_the_program)
{
	struct uhmm_msg_quit quit = { .reason = UHMM_REASON_UID_CHANGED };

	start("hello");
	mock_send(space.sock, UHMM_MSG_QUIT, &quit, sizeof(quit), NULL, 0);
	expect_agent_ends();
	finish();
}
END_TEST

START_TEST(memory_that_is_away_waits_when_the_daemon_dies)
{
	uint64_t region = start("pages");

	ck_assert_int_eq(move_region(region), 0);
	space_deinit(&space);
	victim_go_on(&victim);
	/* With the last userfaultfd closed it would read zeros, and end. */
	usleep(300 * 1000);
	ck_assert_int_eq(waitpid(victim.pid, NULL, WNOHANG), 0);
	ck_assert_int_ne(proc_find_agent(victim.pid), 0);
	kill(victim.pid, SIGKILL);
	victim_wait(&victim);
}
END_TEST

START_TEST(exit_status_and_signals_are_the_programs)
{
	int status;

	start("hello");
	kill(victim.pid, SIGTERM);
	status = victim_wait(&victim);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	ck_assert(mock_sees_eof(space.sock));
	space_deinit(&space);
}
END_TEST

Suite *agent_suite(void)
{
	Suite *suite = suite_create("agent");
	TCase *tcase = tcase_create("agent");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, agent_is_harmless_and_out_of_sight);
	tcase_add_test(tcase, program_starts_as_without_us);
	tcase_add_test(tcase, pages_leave_and_come_home);
	tcase_add_test(tcase, all_boxes_are_served);
	tcase_add_test(tcase, page_that_will_not_move_is_skipped_alone);
	tcase_add_test(tcase, page_that_is_away_when_it_is_looked_at_holds_nobody_up);
	tcase_add_test(tcase, agent_without_a_way_to_look_moves_nothing);
	tcase_add_test(tcase, closed_gate_ends_the_command);
	tcase_add_test(tcase, unread_event_ends_the_command);
	tcase_add_test(tcase, nonsense_in_the_ring_is_refused);
	tcase_add_test(tcase, program_that_closes_every_descriptor_keeps_its_agent);
	tcase_add_test(tcase, exec_ends_the_connection_and_enrols_anew);
	tcase_add_test(tcase, stopped_program_answers_when_it_goes_on);
	tcase_add_test(tcase, quit_ends_the_agent_and_not_the_program);
	tcase_add_test(tcase, memory_that_is_away_waits_when_the_daemon_dies);
	tcase_add_test(tcase, exit_status_and_signals_are_the_programs);
	suite_add_tcase(suite, tcase);
	return suite;
}
