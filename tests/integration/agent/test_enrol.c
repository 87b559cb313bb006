/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Enrolment and its refusals, fork, and the calls before which the agent makes way. Driven by
 * the mock daemon; each test is one rule.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static uint64_t start(const char *mode)
{
	victim_start(&mock, &victim, mode, NULL);
	mock_enrol(&mock, &space);
	return victim_read_number(&victim);
}

static void expect_good_end(void)
{
	int status = victim_wait(&victim);

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == GOOD, "status %#x", status);
}

static void finish(void)
{
	victim_go_on(&victim);
	expect_good_end();
	space_deinit(&space);
}

/* The program ran to its end, and said this on standard error and nothing else. */
static void expect_unmanaged(const char *says)
{
	char text[512];

	ck_assert_uint_eq(victim_read_number(&victim), 1);
	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 3);
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
	victim_go_on(&victim);
	victim_read_stderr(&victim, text, sizeof(text));
	ck_assert_str_eq(text, says);
	expect_good_end();
}

/* --- refusals ------------------------------------------------------------------------ */

START_TEST(no_daemon_is_one_line)
{
	char says[256];

	unlink(mock.socket_path);
	victim_start(&mock, &victim, "hello", NULL);
	snprintf(says, sizeof(says), "uhmm: not managed: no daemon at %s\n", mock.socket_path);
	expect_unmanaged(says);
}
END_TEST

START_TEST(quiet_is_no_line)
{
	unlink(mock.socket_path);
	victim_start(&mock, &victim, "hello", "UHMM_QUIET=1");
	expect_unmanaged("");
}
END_TEST

START_TEST(refusal_names_its_reason)
{
	struct uhmm_msg_refuse refuse = {
		.reason = UHMM_REASON_POLICY,
		.text = "user 0 may not",
	};

	victim_start(&mock, &victim, "hello", NULL);
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	mock_send(space.sock, UHMM_MSG_REFUSE, &refuse, sizeof(refuse), NULL, 0);
	expect_unmanaged("uhmm: not managed: user 0 may not (policy)\n");
}
END_TEST

START_TEST(refusal_after_enrol_takes_the_agent_back)
{
	struct uhmm_msg_refuse refuse = {
		.reason = UHMM_REASON_PROTOCOL,
		.text = "no userfaultfd of that process",
	};

	victim_start(&mock, &victim, "hello", NULL);
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	mock_welcome(&mock, &space);
	mock_take_enrol(&space, true);
	mock_send(space.sock, UHMM_MSG_REFUSE, &refuse, sizeof(refuse), NULL, 0);
	expect_unmanaged("uhmm: not managed: no userfaultfd of that process (protocol)\n");
}
END_TEST

START_TEST(silent_daemon_is_given_up)
{
	victim_start(&mock, &victim, "hello", NULL);
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	expect_unmanaged("uhmm: not managed: the daemon does not answer (busy)\n");
}
END_TEST

START_TEST(nonsense_from_the_daemon_is_given_up)
{
	struct uhmm_msg_welcome welcome = { .ring_bytes = 1 };
	int fds[3];

	victim_start(&mock, &victim, "hello", NULL);
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	fds[0] = fds[1] = fds[2] = mock.device;
	mock_send(space.sock, UHMM_MSG_WELCOME, &welcome, sizeof(welcome), fds, 3);
	expect_unmanaged("uhmm: not managed: the daemon's answer makes no sense (protocol)\n");
}
END_TEST

START_TEST(no_address_space_is_no_agent)
{
	struct space first;

	victim_start(&mock, &victim, "no-space", NULL);
	mock_enrol(&mock, &first);
	ck_assert(mock_sees_eof(first.sock));
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	mock_welcome(&mock, &space);
	ck_assert(mock_sees_eof(space.sock));
	expect_unmanaged("uhmm: not managed: no address space for the agent (no-agent)\n");
}
END_TEST

/* Copy a file to where every user can read it. */
static void publish(const char *from, const char *to)
{
	char command[512];

	snprintf(command, sizeof(command), "cp %s %s && chmod 755 %s", from, to, to);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(no_thread_is_no_agent)
{
	char program[128], preload[128], words[300];
	struct space first;

	snprintf(program, sizeof(program), "%s/victim", mock.dir);
	snprintf(preload, sizeof(preload), "%s/preload.so", mock.dir);
	publish(VICTIM, program);
	publish(PRELOAD, preload);
	snprintf(words, sizeof(words), "no-threads %s %s", program, preload);
	victim_start(&mock, &victim, words, NULL);
	mock_enrol(&mock, &first);
	mock_accept(&mock, &space, UHMM_ROLE_PROGRAM);
	mock_welcome(&mock, &space);
	ck_assert(mock_sees_eof(space.sock));
	expect_unmanaged("uhmm: not managed: the agent could not be started (no-agent)\n");
	unlink(program);
	unlink(preload);
}
END_TEST

START_TEST(group_is_passed_on)
{
	static const uint8_t group[UHMM_TOKEN_BYTES] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
							 0xcd, 0xef, 0xff };

	victim_start(&mock, &victim, "hello", "UHMM_GROUP=0123456789abcdefFF00000000000000");
	mock_enrol(&mock, &space);
	ck_assert_mem_eq(space.hello.group, group, sizeof(group));
	ck_assert_uint_eq(victim_read_number(&victim), 1);
	finish();
}
END_TEST

/* --- fork ---------------------------------------------------------------------------- */

static int command_move(struct space *of, uint64_t home, uint32_t n_pages)
{
	int status;

	ck_assert_int_eq(mock_register(of, space_chunk(of, 0), MOCK_CHUNK_BYTES), 0);
	space_add_run(of, 0, home, 0, n_pages, 0);
	space_command(of, 0, UHMM_OP_MOVE);
	status = space_finish(of, 0);
	mock_unregister(of, space_chunk(of, 0), MOCK_CHUNK_BYTES);
	return status ? status : of->ring->boxes[0].runs[0].result;
}

/* The child runs, may check its memory, and finds it right. */
static void finish_child(void)
{
	ck_assert_uint_eq(victim_read_number(&victim), 3);
	victim_go_on(&victim);
	ck_assert_uint_eq(victim_read_number(&victim), GOOD);
}

START_TEST(child_of_a_program_with_nothing_away_enrols_afresh)
{
	struct space child;

	start("fork");
	victim_go_on(&victim);
	mock_enrol(&mock, &child);
	ck_assert_int_ne(child.peer, victim.pid);
	ck_assert_uint_eq(child.enrol.beacon_addr, space.enrol.beacon_addr);
	finish_child();
	/* Its beacon is shared with a child until somebody writes; it must leave nevertheless. */
	ck_assert_int_eq(mock_register(&space, space.enrol.beacon_addr, page), 0);
	ck_assert_int_eq(command_move(&space, space.enrol.beacon_addr, 1), 0);
	space_deinit(&child);
	finish();
}
END_TEST

START_TEST(pages_shared_with_a_child_leave)
{
	uint64_t region = start("fork");
	struct space child;

	victim_go_on(&victim);
	mock_enrol(&mock, &child);
	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(command_move(&space, region, PAGES), 0);
	/* The child has not lost them. */
	finish_child();
	space_deinit(&child);
	kill(victim.pid, SIGKILL);
	victim_wait(&victim);
	space_deinit(&space);
}
END_TEST

/* Answer the read of the beacon in the child whose userfaultfd this is. */
static void answer_beacon(int uffd, const struct uhmm_beacon *answer)
{
	unsigned char *bytes = calloc(1, page);
	uint64_t addr = mock_next_event(uffd, UFFD_EVENT_PAGEFAULT);

	ck_assert_uint_eq(addr, space.enrol.beacon_addr);
	memcpy(bytes, answer, sizeof(*answer));
	mock_copy(uffd, addr, bytes, page);
	free(bytes);
}

/* The victim forks with its beacon away; returns the child's userfaultfd. */
static int fork_with_beacon_away(uint64_t region)
{
	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(mock_register(&space, space.enrol.beacon_addr, page), 0);
	ck_assert_int_eq(command_move(&space, space.enrol.beacon_addr, 1), 0);
	victim_go_on(&victim);
	return (int)mock_next_event(space.uffd, UFFD_EVENT_FORK);
}

START_TEST(child_with_a_token_gets_its_own_agent)
{
	struct uhmm_beacon token = { .word = UHMM_BEACON_TOKEN };
	uint64_t region = start("fork");
	int uffd = fork_with_beacon_away(region);
	struct space child;

	memset(token.token, 0x77, sizeof(token.token));
	answer_beacon(uffd, &token);
	/* The child puts the beacon away again, for children of its own. */
	ck_assert_uint_eq(mock_next_event(uffd, UFFD_EVENT_REMOVE), space.enrol.beacon_addr);
	mock_accept(&mock, &child, UHMM_ROLE_CHILD);
	ck_assert_mem_eq(child.hello.token, token.token, sizeof(token.token));
	ck_assert_int_ne(child.peer, victim.pid);
	child.uffd = uffd;
	mock_welcome(&mock, &child);
	mock_take_enrol(&child, false);
	/* It works in the child's own address space before the child goes on. The pages are
	 * shared with the parent, so they stay; its staging is its own. */
	mock_ready(&child);
	space_command(&child, 0, UHMM_OP_FREE);
	ck_assert_int_eq(space_finish(&child, 0), 0);
	finish_child();
	space_deinit(&child);
	finish();
}
END_TEST

START_TEST(child_goes_on_when_its_token_is_refused)
{
	struct uhmm_beacon token = { .word = UHMM_BEACON_TOKEN };
	struct uhmm_msg_refuse refuse = { .reason = UHMM_REASON_LIMIT };
	uint64_t region = start("fork");
	int uffd = fork_with_beacon_away(region);
	struct space child;

	answer_beacon(uffd, &token);
	(void)mock_next_event(uffd, UFFD_EVENT_REMOVE);
	mock_accept(&mock, &child, UHMM_ROLE_CHILD);
	mock_send(child.sock, UHMM_MSG_REFUSE, &refuse, sizeof(refuse), NULL, 0);
	/* It asks whether it is served all the same. */
	answer_beacon(uffd, &token);
	(void)mock_next_event(uffd, UFFD_EVENT_REMOVE);
	finish_child();
	close(uffd);
	finish();
}
END_TEST

static void expect_incomplete_child(void)
{
	char says[256];

	ck_assert_uint_eq(victim_read_number(&victim), 128 + SIGKILL);
	victim_go_on(&victim);
	victim_read_stderr(&victim, says, sizeof(says));
	ck_assert_str_eq(says, "uhmm: this child was forked while the daemon died; its memory is "
			       "incomplete, so it ends here\n");
	ck_assert_int_eq(WEXITSTATUS(victim_wait(&victim)), 128 + SIGKILL);
}

START_TEST(child_that_is_refused_and_then_lost_ends)
{
	struct uhmm_beacon token = { .word = UHMM_BEACON_TOKEN };
	struct uhmm_msg_refuse refuse = { .reason = UHMM_REASON_PROTOCOL };
	uint64_t region = start("fork");
	int uffd = fork_with_beacon_away(region);
	struct space child;

	answer_beacon(uffd, &token);
	(void)mock_next_event(uffd, UFFD_EVENT_REMOVE);
	mock_accept(&mock, &child, UHMM_ROLE_CHILD);
	/* The daemon that had its userfaultfd has died, and the next one does not know it. */
	close(uffd);
	mock_send(child.sock, UHMM_MSG_REFUSE, &refuse, sizeof(refuse), NULL, 0);
	close(child.sock);
	expect_incomplete_child();
}
END_TEST

START_TEST(child_of_a_sandbox_makes_no_call)
{
	struct uhmm_beacon token = {
		.word = UHMM_BEACON_TOKEN,
		.flags = UHMM_RING_SANDBOXED,
	};
	uint64_t region = start("fork");
	int uffd = fork_with_beacon_away(region);

	answer_beacon(uffd, &token);
	finish_child();
	ck_assert(!mock_has_client(&mock, 0));
	close(uffd);
	finish();
}
END_TEST

START_TEST(child_whose_memory_is_incomplete_ends)
{
	const struct uhmm_beacon lost = { .word = 0 };
	uint64_t region = start("fork");
	int uffd = fork_with_beacon_away(region);

	answer_beacon(uffd, &lost);
	expect_incomplete_child();
	close(uffd);
}
END_TEST

/* --- making way ---------------------------------------------------------------------- */

START_TEST(agent_makes_way_for_unshare_and_comes_back)
{
	struct space again;

	start("unshare");
	victim_go_on(&victim);
	mock_serve_agent_quit(&mock, &space);
	ck_assert_uint_eq(space.quit_flags, 0);
	ck_assert(mock_sees_eof(space.sock));
	mock_accept(&mock, &again, UHMM_ROLE_CHILD);
	ck_assert_int_eq(again.peer, victim.pid);
	ck_assert_mem_eq(again.hello.token, space.token, sizeof(space.token));
	again.uffd = space.uffd;
	mock_welcome(&mock, &again);
	mock_take_enrol(&again, false);
	mock_ready(&again);
	/* Staging may hold the only copy of a page: it is the same. */
	ck_assert_uint_eq(again.enrol.staging_addr, space.enrol.staging_addr);
	ck_assert_uint_eq(again.enrol.beacon_addr, space.enrol.beacon_addr);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	ck_assert_int_eq(proc_find_agent(victim.pid), again.enrol.agent_tid);
	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 3);
	space_command(&again, 0, UHMM_OP_FREE);
	ck_assert_int_eq(space_finish(&again, 0), 0);
	finish();
}
END_TEST

START_TEST(agent_that_none_can_follow_leaves_nothing_away)
{
	struct space again;

	start("unshare-pid");
	ck_assert_int_ne(proc_find_agent(victim.pid), 0);
	victim_go_on(&victim);
	mock_answer_agent_quit(&mock, &space, -ESRCH);
	mock_serve_agent_quit(&mock, &space);
	ck_assert_uint_eq(space.quit_flags, UHMM_REQ_FLAG_HOME);
	ck_assert(mock_sees_eof(space.sock));
	/* It tries, and hangs up. */
	mock_accept(&mock, &again, UHMM_ROLE_CHILD);
	again.uffd = dup(space.uffd);
	mock_welcome(&mock, &again);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	ck_assert(mock_sees_eof(again.sock));
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 3);
	space_deinit(&again);
	finish();
}
END_TEST

START_TEST(agent_ends_before_a_filter_and_children_stay_silent)
{
	start("seccomp");
	victim_go_on(&victim);
	mock_serve_agent_quit(&mock, &space);
	/* The child's status: the filter kills who makes a socket. */
	ck_assert_uint_eq(victim_read_number(&victim), GOOD);
	ck_assert(space.ring->flags & UHMM_RING_SANDBOXED);
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
	ck_assert(!mock_has_client(&mock, 0));
	finish();
}
END_TEST

START_TEST(filter_waits_while_the_next_daemon_does_not_know_the_agent)
{
	start("seccomp");
	victim_go_on(&victim);
	mock_answer_agent_quit(&mock, &space, -ESRCH);
	mock_answer_agent_quit(&mock, &space, -EAGAIN);
	ck_assert_int_ne(proc_find_agent(victim.pid), 0);
	mock_serve_agent_quit(&mock, &space);
	ck_assert_uint_eq(victim_read_number(&victim), GOOD);
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
	finish();
}
END_TEST

START_TEST(agent_comes_back_when_the_filter_is_refused)
{
	struct space again;

	start("bad-filter");
	victim_go_on(&victim);
	mock_serve_agent_quit(&mock, &space);
	mock_accept(&mock, &again, UHMM_ROLE_CHILD);
	again.uffd = space.uffd;
	mock_welcome(&mock, &again);
	mock_take_enrol(&again, false);
	mock_ready(&again);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	ck_assert_uint_eq(again.ring->flags & UHMM_RING_SANDBOXED, 0);
	finish();
}
END_TEST

START_TEST(wrapped_calls_are_what_they_were)
{
	victim_start(&mock, &victim, "wrappers", NULL);
	mock_enrol(&mock, &space);
	expect_good_end();
	space_deinit(&space);
}
END_TEST

static void add_refusals(Suite *suite)
{
	TCase *tcase = tcase_create("refusals");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, no_daemon_is_one_line);
	tcase_add_test(tcase, quiet_is_no_line);
	tcase_add_test(tcase, refusal_names_its_reason);
	tcase_add_test(tcase, refusal_after_enrol_takes_the_agent_back);
	tcase_add_test(tcase, silent_daemon_is_given_up);
	tcase_add_test(tcase, nonsense_from_the_daemon_is_given_up);
	tcase_add_test(tcase, no_address_space_is_no_agent);
	tcase_add_test(tcase, no_thread_is_no_agent);
	tcase_add_test(tcase, group_is_passed_on);
	suite_add_tcase(suite, tcase);
}

Suite *enrol_suite(void)
{
	Suite *suite = suite_create("enrol");
	TCase *fork_case = tcase_create("fork");
	TCase *way = tcase_create("making way");

	add_refusals(suite);
	tcase_add_checked_fixture(fork_case, setup, teardown);
	tcase_set_timeout(fork_case, 60);
	tcase_add_test(fork_case, child_of_a_program_with_nothing_away_enrols_afresh);
	tcase_add_test(fork_case, pages_shared_with_a_child_leave);
	tcase_add_test(fork_case, child_with_a_token_gets_its_own_agent);
	tcase_add_test(fork_case, child_goes_on_when_its_token_is_refused);
	tcase_add_test(fork_case, child_that_is_refused_and_then_lost_ends);
	tcase_add_test(fork_case, child_of_a_sandbox_makes_no_call);
	tcase_add_test(fork_case, child_whose_memory_is_incomplete_ends);
	suite_add_tcase(suite, fork_case);
	tcase_add_checked_fixture(way, setup, teardown);
	tcase_set_timeout(way, 60);
	tcase_add_test(way, agent_makes_way_for_unshare_and_comes_back);
	tcase_add_test(way, agent_that_none_can_follow_leaves_nothing_away);
	tcase_add_test(way, agent_ends_before_a_filter_and_children_stay_silent);
	tcase_add_test(way, filter_waits_while_the_next_daemon_does_not_know_the_agent);
	tcase_add_test(way, agent_comes_back_when_the_filter_is_refused);
	tcase_add_test(way, wrapped_calls_are_what_they_were);
	suite_add_tcase(suite, way);
	return suite;
}
