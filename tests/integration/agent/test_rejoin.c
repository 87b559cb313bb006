/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon is killed: what the agent does until there is another one, and what the program
 * sees of it. Nearly all tests have the program's pages away meanwhile; a page that reads wrong
 * ends it with another status than GOOD.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mock.h"
#include "suites.h"
#include "util/uapi.h"

#define GOOD 7
#define PAGES 64u

static struct mock mock;
static struct victim victim;
static struct space space;
static int slots; /* the tier's file: it outlives the daemon */
static uint64_t region;
static size_t page;

static void setup(void)
{
	page = (size_t)getpagesize();
	slots = -1;
	mock_open(&mock);
}

static void teardown(void)
{
	mock_close(&mock);
}

static void start_with(const char *mode, const char *extra_env)
{
	victim_start(&mock, &victim, mode, extra_env);
	mock_enrol(&mock, &space);
	region = victim_read_number(&victim);
}

static void start(const char *mode)
{
	start_with(mode, NULL);
}

/* A descriptor of ours that a test decides about, out of the space that will be closed. */
static int take_out(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* Into the slot file, page by page in order. */
static void put_away(void)
{
	ck_assert_int_eq(mock_register(&space, region, PAGES * page), 0);
	ck_assert_int_eq(mock_register(&space, space_chunk(&space, 0), MOCK_CHUNK_BYTES), 0);
	space_add_run(&space, 0, region, 0, PAGES, 0);
	space_command(&space, 0, UHMM_OP_MOVE | UHMM_OP_STORE);
	ck_assert_int_eq(space_finish(&space, 0), 0);
	mock_unregister(&space, space_chunk(&space, 0), MOCK_CHUNK_BYTES);
	ck_assert_int_eq(space.ring->boxes[0].runs[0].result, 0);
	space_command(&space, 0, UHMM_OP_FREE);
	ck_assert_int_eq(space_finish(&space, 0), 0);
}

static void start_away(const char *mode)
{
	start(mode);
	space_give_slot_file(&mock, &space);
	put_away();
}

/* Everything that the kernel closes for a process that is killed. */
static void die(void)
{
	if (space.slot_fd >= 0)
		slots = take_out(&space.slot_fd);
	mock_stop_listening(&mock);
	space_deinit(&space);
}

/* What a successor does first: a fault whose message died with its reader is raised again. */
static void wake(const struct space *of)
{
	struct uffdio_range range = { .start = region, .len = PAGES * page };

	(void)ioctl(of->uffd, UFFDIO_WAKE, &range);
}

/* From HELLO, which was heard, to READY. */
static void welcome_back(void)
{
	mock_welcome(&mock, &space);
	mock_take_enrol(&space, false);
	mock_ready(&space);
	wake(&space);
}

static void expect_agent_fds(unsigned int n)
{
	proc_await_agent_fds(victim.pid, n);
}

static void return_and_hear(void)
{
	mock_listen_again(&mock);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	ck_assert_int_eq(space.peer, victim.pid);
}

static void come_back(void)
{
	return_and_hear();
	welcome_back();
}

static void serve_faults(unsigned int n)
{
	unsigned char *bytes = malloc(page);

	for (unsigned int i = 0; i < n; i++) {
		uint64_t addr = mock_next_event(space.uffd, UFFD_EVENT_PAGEFAULT);

		ck_assert_uint_lt((addr - region) / page, PAGES);
		ck_assert_int_eq(pread(slots, bytes, page, (off_t)(addr - region)), (ssize_t)page);
		mock_copy(space.uffd, addr, bytes, page);
	}
	free(bytes);
}

static void expect_good_end(void)
{
	int status = victim_wait(&victim);

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == GOOD, "status %#x", status);
	space_deinit(&space);
}

static void expect_still_waiting(unsigned int ms)
{
	usleep(ms * 1000);
	ck_assert_int_eq(waitpid(victim.pid, NULL, WNOHANG), 0);
	ck_assert_int_ne(proc_find_agent(victim.pid), 0);
}

/* The last act: the program looks at its memory, and the daemon that there is now serves it. */
static void look_and_finish(void)
{
	victim_go_on(&victim);
	serve_faults(PAGES);
	expect_good_end();
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- coming back --------------------------------------------------------------------- */

START_TEST(agent_hands_its_userfaultfd_to_the_next_daemon)
{
	struct uhmm_msg_enrol before;
	uint8_t token[UHMM_TOKEN_BYTES];

	start_away("pages");
	before = space.enrol;
	memcpy(token, space.token, sizeof(token));
	die();
	/* It touches its memory while nobody is there: it waits, and gets it after. */
	victim_go_on(&victim);
	expect_still_waiting(300);
	come_back();
	ck_assert_mem_eq(space.hello.token, token, sizeof(token));
	ck_assert_uint_eq(space.n_children, 0);
	ck_assert_mem_eq(&space.enrol, &before, sizeof(before));
	ck_assert_int_eq(proc_find_agent(victim.pid), before.agent_tid);
	ck_assert_uint_eq(space.ring->agent_tid, (uint32_t)before.agent_tid);
	serve_faults(PAGES);
	expect_good_end();
}
END_TEST

START_TEST(agent_works_for_the_next_daemon_as_before)
{
	start_away("pages");
	die();
	come_back();
	/* Nothing of the old daemon's is left, and nothing of the program's: socket,
	 * userfaultfd, eventfd, memory. */
	expect_agent_fds(4);
	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 3);
	look_and_finish();
}
END_TEST

START_TEST(agent_stores_for_the_next_daemon)
{
	start("pages");
	die();
	come_back();
	/* The first slot file of this daemon has number 0. */
	space_give_slot_file(&mock, &space);
	put_away();
	slots = take_out(&space.slot_fd);
	look_and_finish();
}
END_TEST

START_TEST(agent_comes_back_again_and_again)
{
	start_away("pages");
	for (int i = 0; i < 20; i++) {
		die();
		usleep((useconds_t)(i % 5) * 20000);
		come_back();
	}
	expect_agent_fds(4);
	look_and_finish();
}
END_TEST

START_TEST(fault_that_was_read_by_the_dead_daemon_is_served)
{
	start_away("pages");
	victim_go_on(&victim);
	(void)mock_next_event(space.uffd, UFFD_EVENT_PAGEFAULT);
	die();
	usleep(100 * 1000);
	come_back();
	serve_faults(PAGES);
	expect_good_end();
}
END_TEST

START_TEST(daemon_may_be_away_for_half_a_minute)
{
	start_away("pages");
	die();
	victim_go_on(&victim);
	expect_still_waiting(30000);
	come_back();
	serve_faults(PAGES);
	expect_good_end();
}
END_TEST

START_TEST(path_that_was_relative_is_found_again)
{
	ck_assert_int_eq(chdir(mock.dir), 0);
	start_with("then-chdir", "UHMM_SOCKET=./sock");
	ck_assert_int_eq(chdir("/"), 0);
	space_give_slot_file(&mock, &space);
	put_away();
	victim_go_on(&victim);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	die();
	come_back();
	look_and_finish();
}
END_TEST

START_TEST(agent_comes_back_under_a_filter)
{
	/* Which kills for each call that sandbox.h does not list. */
	victim_start_program(&mock, &victim, UNDER_FILTER, NULL,
			     "UHMM_FILTER=try LD_PRELOAD=" PRELOAD " " VICTIM " pages", NULL);
	mock_enrol(&mock, &space);
	region = victim_read_number(&victim);
	space_give_slot_file(&mock, &space);
	put_away();
	die();
	usleep(300 * 1000);
	come_back();
	look_and_finish();
}
END_TEST

START_TEST(path_that_was_unlinked_may_come_back)
{
	start_away("pages");
	die();
	unlink(mock.socket_path);
	expect_still_waiting(300);
	come_back();
	look_and_finish();
}
END_TEST

/* --- daemons that do not take it ----------------------------------------------------- */

static void refuse(int sock, enum uhmm_reason reason)
{
	struct uhmm_msg_refuse msg = { .reason = reason, .text = "no" };

	mock_send(sock, UHMM_MSG_REFUSE, &msg, sizeof(msg), NULL, 0);
}

/* This daemon lets go of it in some way; how long until it came again? */
static double again_after(void)
{
	double since = now();

	space_deinit(&space);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	return now() - since;
}

START_TEST(busy_daemon_is_asked_again_soon)
{
	start_away("pages");
	die();
	return_and_hear();
	for (int i = 0; i < 12; i++) {
		refuse(space.sock, UHMM_REASON_BUSY);
		ck_assert(again_after() < 1.5);
	}
	/* Refused before it has said all that it has to say: it hears the reason. */
	space_deinit(&space);
	refuse(mock_accept_only(&mock), UHMM_REASON_BUSY);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	welcome_back();
	look_and_finish();
}
END_TEST

START_TEST(refusal_is_asked_about_rarely)
{
	double waited;

	start_away("pages");
	die();
	return_and_hear();
	refuse(space.sock, UHMM_REASON_PROTOCOL);
	waited = again_after();
	ck_assert_msg(waited > 1.5 && waited < 8, "%f s", waited);
	refuse(space.sock, UHMM_REASON_POLICY);
	waited = again_after();
	ck_assert_msg(waited > 1.5 && waited < 8, "%f s", waited);
	expect_still_waiting(0);
	welcome_back();
	look_and_finish();
}
END_TEST

START_TEST(daemon_that_hangs_up_at_any_step_is_tried_again)
{
	start_away("pages");
	die();
	mock_listen_again(&mock);
	close(mock_accept_only(&mock));
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	ck_assert(again_after() < 1.5);
	mock_welcome(&mock, &space);
	ck_assert(again_after() < 1.5);
	mock_welcome(&mock, &space);
	mock_take_enrol(&space, false);
	ck_assert(again_after() < 1.5);
	/* After READY it is one more that died. */
	welcome_back();
	die();
	come_back();
	look_and_finish();
}
END_TEST

/* WELCOME with one thing wrong. */
static void bad_welcome(void (*spoil)(struct uhmm_msg_welcome *msg), int ring_fd)
{
	struct uhmm_msg_welcome msg = {
		.space_id = 1,
		.ring_bytes = sizeof(struct uhmm_ring),
		.staging_chunk_bytes = MOCK_CHUNK_BYTES,
		.n_staging_chunks = MOCK_CHUNKS,
	};
	int fds[2] = { ring_fd, mock.device };

	memset(msg.token, 0x5a, sizeof(msg.token));
	spoil(&msg);
	mock_send(space.sock, UHMM_MSG_WELCOME, &msg, sizeof(msg), fds, 2);
	ck_assert(again_after() > 1.5);
}

static void spoil_nothing(struct uhmm_msg_welcome *msg)
{
	(void)msg;
}

static void spoil_geometry(struct uhmm_msg_welcome *msg)
{
	msg->n_staging_chunks = 1;
}

static void spoil_token(struct uhmm_msg_welcome *msg)
{
	msg->token[3] ^= 1;
}

START_TEST(nonsense_is_survived)
{
	static const char junk[200] = "junk";
	struct uhmm_msg_done done = { .error = 0 };
	int ring = memfd_create("ring", MFD_CLOEXEC);
	uint32_t magic = UHMM_WIRE_MAGIC;

	start_away("pages");
	die();
	return_and_hear();
	/* A packet that is no packet, one of another kind, rings that are none. */
	ck_assert_int_eq(send(space.sock, junk, sizeof(junk), 0), sizeof(junk));
	ck_assert(again_after() > 1.5);
	mock_send(space.sock, UHMM_MSG_DONE, &done, sizeof(done), &ring, 1);
	ck_assert(again_after() > 1.5);
	bad_welcome(spoil_geometry, ring);
	bad_welcome(spoil_token, ring);
	bad_welcome(spoil_nothing, mock.device);
	/* Shorter than it says: a look at its end would be fatal. */
	ck_assert_int_eq(write(ring, &magic, sizeof(magic)), sizeof(magic));
	bad_welcome(spoil_nothing, ring);
	mock_send(space.sock, UHMM_MSG_WELCOME, &done, sizeof(done), NULL, 0);
	ck_assert(again_after() > 1.5);
	expect_still_waiting(0);
	welcome_back();
	/* None of all those descriptors is left. */
	expect_agent_fds(4);
	close(ring);
	look_and_finish();
}
END_TEST

START_TEST(daemon_that_talks_nonsense_later_is_left)
{
	struct uhmm_msg_done done = { .error = 0 };

	start_away("pages");
	slots = take_out(&space.slot_fd);
	mock_send(space.sock, UHMM_MSG_DONE, &done, sizeof(done), &slots, 1);
	ck_assert(mock_sees_eof(space.sock));
	space_deinit(&space);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	welcome_back();
	expect_agent_fds(4);
	look_and_finish();
}
END_TEST

START_TEST(refusal_instead_of_ready_is_no_end)
{
	start_away("pages");
	die();
	return_and_hear();
	mock_welcome(&mock, &space);
	mock_take_enrol(&space, false);
	refuse(space.sock, UHMM_REASON_LIMIT);
	ck_assert(again_after() > 1.5);
	welcome_back();
	look_and_finish();
}
END_TEST

START_TEST(silent_daemon_is_given_five_seconds)
{
	double since;

	start_away("pages");
	die();
	mock_listen_again(&mock);
	since = now();
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	ck_assert(mock_sees_eof(space.sock));
	ck_assert_msg(now() - since > 4 && now() - since < 9, "%f s", now() - since);
	(void)again_after();
	mock_welcome(&mock, &space);
	mock_take_enrol(&space, false);
	since = now();
	ck_assert(mock_sees_eof(space.sock));
	ck_assert_msg(now() - since > 4 && now() - since < 9, "%f s", now() - since);
	(void)again_after();
	welcome_back();
	look_and_finish();
}
END_TEST

START_TEST(flags_of_the_ring_are_carried_over)
{
	start_away("pages");
	__atomic_fetch_or(&space.ring->flags, 1u << 31, __ATOMIC_ACQ_REL);
	die();
	come_back();
	ck_assert_uint_eq(space.ring->flags, 1u << 31);
	look_and_finish();
}
END_TEST

/* --- children ------------------------------------------------------------------------ */

static void tell_of_child(uint8_t first, uint8_t second, int fd)
{
	struct uhmm_msg_child msg = { .token = { first, second } };

	mock_send(space.sock, UHMM_MSG_CHILD, &msg, sizeof(msg), &fd, fd >= 0 ? 1 : 0);
}

static int file_saying(unsigned char byte)
{
	int fd = memfd_create("child", MFD_CLOEXEC);

	ck_assert_int_eq(write(fd, &byte, 1), 1);
	return fd;
}

static void give_child(uint8_t first, uint8_t second)
{
	int fd = file_saying(second);

	tell_of_child(first, second, fd);
	close(fd);
}

/* The child of this name is among those handed over, with its own descriptor. */
static bool was_handed_over(uint8_t first, uint8_t second)
{
	for (unsigned int i = 0; i < space.n_children; i++) {
		const struct kept_child *child = &space.children[i];
		unsigned char byte;

		if (child->token[0] != first || child->token[1] != second)
			continue;
		ck_assert_int_eq(pread(child->uffd, &byte, 1, 0), 1);
		return byte == second;
	}
	return false;
}

START_TEST(children_are_kept_until_they_are_not_needed)
{
	start_away("pages");
	for (uint8_t i = 1; i <= 5; i++)
		give_child(1, i);
	tell_of_child(1, 1, -1);
	tell_of_child(1, 4, -1);
	tell_of_child(9, 9, -1);
	expect_agent_fds(8);
	die();
	return_and_hear();
	ck_assert_uint_eq(space.n_children, 3);
	ck_assert(was_handed_over(1, 2) && was_handed_over(1, 3) && was_handed_over(1, 5));
	welcome_back();
	/* It has them still: this daemon may die before the child is heard of. */
	tell_of_child(1, 5, -1);
	die();
	come_back();
	ck_assert_uint_eq(space.n_children, 2);
	ck_assert(was_handed_over(1, 2) && was_handed_over(1, 3));
	tell_of_child(1, 2, -1);
	tell_of_child(1, 3, -1);
	expect_agent_fds(4);
	look_and_finish();
}
END_TEST

START_TEST(no_more_children_than_there_is_room_for)
{
	start_away("pages");
	for (unsigned int i = 0; i < UHMM_CHILDREN_MAX + 10; i++)
		give_child(2, (uint8_t)i);
	expect_agent_fds(5 + UHMM_CHILDREN_MAX);
	die();
	come_back();
	ck_assert_uint_eq(space.n_children, UHMM_CHILDREN_MAX);
	for (unsigned int i = 0; i < UHMM_CHILDREN_MAX; i++)
		ck_assert(was_handed_over(2, (uint8_t)i));
	look_and_finish();
}
END_TEST

/* --- what the program does meanwhile ------------------------------------------------- */

static int command_move(uint64_t home)
{
	ck_assert_int_eq(mock_register(&space, home, page), 0);
	ck_assert_int_eq(mock_register(&space, space_chunk(&space, 1), MOCK_CHUNK_BYTES), 0);
	space_add_run(&space, 1, home, 0, 1, 0);
	space_command(&space, 1, UHMM_OP_MOVE);
	ck_assert_int_eq(space_finish(&space, 1), 0);
	mock_unregister(&space, space_chunk(&space, 1), MOCK_CHUNK_BYTES);
	return space.ring->boxes[1].runs[0].result;
}

static void answer_beacon(int uffd, const struct uhmm_beacon *answer)
{
	unsigned char *bytes = calloc(1, page);
	uint64_t addr = mock_next_event(uffd, UFFD_EVENT_PAGEFAULT);

	ck_assert_uint_eq(addr, space.enrol.beacon_addr);
	memcpy(bytes, answer, sizeof(*answer));
	mock_copy(uffd, addr, bytes, page);
	free(bytes);
}

/* The child whose userfaultfd this is looks at its memory and finds it right; its agent is
 * refused, which is its own affair. Then the parent. */
static void finish_child_and_parent(int uffd)
{
	struct uhmm_beacon token = { .word = UHMM_BEACON_TOKEN, .token = { 7 } };
	int parent = space.uffd;
	struct space child;

	answer_beacon(uffd, &token);
	(void)mock_next_event(uffd, UFFD_EVENT_REMOVE);
	mock_accept(&mock, &child, UHMM_ROLE_CHILD);
	refuse(child.sock, UHMM_REASON_LIMIT);
	ck_assert_uint_eq(victim_read_number(&victim), 3);
	victim_go_on(&victim);
	space.uffd = uffd;
	serve_faults(PAGES);
	space.uffd = parent;
	ck_assert_uint_eq(victim_read_number(&victim), GOOD);
	space_deinit(&child);
	look_and_finish();
}

START_TEST(fork_waits_for_the_next_daemon)
{
	int uffd;

	start_away("fork");
	ck_assert_int_eq(command_move(space.enrol.beacon_addr), 0);
	die();
	victim_go_on(&victim);
	expect_still_waiting(500);
	come_back();
	uffd = (int)mock_next_event(space.uffd, UFFD_EVENT_FORK);
	finish_child_and_parent(uffd);
	close(uffd);
}
END_TEST

START_TEST(child_that_was_forked_before_is_handed_over_whole)
{
	int uffd;

	start_away("fork");
	ck_assert_int_eq(command_move(space.enrol.beacon_addr), 0);
	victim_go_on(&victim);
	uffd = (int)mock_next_event(space.uffd, UFFD_EVENT_FORK);
	tell_of_child(7, 7, uffd);
	/* Its last userfaultfd but the one that its parent's agent keeps. */
	close(uffd);
	die();
	usleep(300 * 1000);
	come_back();
	ck_assert_uint_eq(space.n_children, 1);
	wake(&(struct space){ .uffd = space.children[0].uffd });
	/* It reads its beacon: that fault's message may have been read, too. */
	finish_child_and_parent(space.children[0].uffd);
}
END_TEST

START_TEST(program_ends_while_no_daemon_is_there)
{
	start("hello");
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	expect_good_end();
}
END_TEST

START_TEST(program_that_is_killed_leaves_nobody_behind)
{
	int status;

	start_away("pages");
	die();
	victim_go_on(&victim);
	expect_still_waiting(100);
	kill(victim.pid, SIGKILL);
	status = victim_wait(&victim);
	ck_assert(WIFSIGNALED(status));
	mock_listen_again(&mock);
	ck_assert(!mock_has_client(&mock, 500));
}
END_TEST

START_TEST(exec_while_no_daemon_is_there_ends_the_agent)
{
	start("exec");
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	ck_assert_uint_eq(victim_read_number(&victim), 1);
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
	mock_listen_again(&mock);
	ck_assert(!mock_has_client(&mock, 500));
	victim_go_on(&victim);
	expect_good_end();
}
END_TEST

static void act_while_nobody_is_there(const char *mode)
{
	start_away(mode);
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	come_back();
	look_and_finish();
}

START_TEST(program_may_close_every_descriptor_meanwhile)
{
	act_while_nobody_is_there("then-closes");
}
END_TEST

START_TEST(program_may_change_its_user_meanwhile)
{
	act_while_nobody_is_there("then-setuid");
}
END_TEST

START_TEST(stopped_program_comes_back_when_it_goes_on)
{
	start_away("pages");
	kill(victim.pid, SIGSTOP);
	ck_assert_int_eq(waitpid(victim.pid, NULL, WUNTRACED), victim.pid);
	die();
	mock_listen_again(&mock);
	ck_assert(!mock_has_client(&mock, 300));
	kill(victim.pid, SIGCONT);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	welcome_back();
	look_and_finish();
}
END_TEST

/* --- making way meanwhile ------------------------------------------------------------ */

START_TEST(agent_makes_way_for_unshare_and_holds_on)
{
	pid_t before;

	start_away("then-unshare");
	for (uint8_t i = 1; i <= 3; i++)
		give_child(3, i);
	before = space.enrol.agent_tid;
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	/* Another agent, which has all that the first one had. */
	ck_assert_int_ne(proc_find_agent(victim.pid), before);
	ck_assert_uint_eq(proc_count_fds(victim.pid, victim.pid), 3);
	come_back();
	ck_assert_int_ne(space.enrol.agent_tid, before);
	ck_assert_uint_eq(space.n_children, 3);
	ck_assert(was_handed_over(3, 1) && was_handed_over(3, 2) && was_handed_over(3, 3));
	expect_agent_fds(7);
	look_and_finish();
}
END_TEST

START_TEST(agent_makes_way_while_a_daemon_is_silent)
{
	double since;

	start_away("then-unshare");
	die();
	return_and_hear();
	since = now();
	victim_go_on(&victim);
	ck_assert(mock_sees_eof(space.sock));
	ck_assert_msg(now() - since < 2, "%f s", now() - since);
	space_deinit(&space);
	/* The program asks for an agent as the child of nobody here. */
	mock_accept(&mock, &space, UHMM_ROLE_CHILD);
	refuse(space.sock, UHMM_REASON_PROTOCOL);
	space_deinit(&space);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	mock_accept(&mock, &space, UHMM_ROLE_AGENT);
	welcome_back();
	look_and_finish();
}
END_TEST

/* The daemon lets go of the agent, and dies before the program has another one. */
START_TEST(daemon_that_dies_while_the_agent_is_out_of_the_way_costs_nothing)
{
	struct uhmm_msg_quit quit = { .reason = UHMM_REASON_NONE };
	struct uhmm_msg_done done = { .error = 0 };
	struct uhmm_msg_request request;
	struct space admin;
	size_t n_fds;
	int fds[8];

	start_away("then-unshare");
	victim_go_on(&victim);
	mock_accept(&mock, &admin, UHMM_ROLE_ADMIN);
	ck_assert_uint_eq(mock_recv(admin.sock, &request, sizeof(request), fds, &n_fds),
			  sizeof(request));
	mock_send(space.sock, UHMM_MSG_QUIT, &quit, sizeof(quit), NULL, 0);
	ck_assert(mock_sees_eof(space.sock));
	die();
	mock_send(admin.sock, UHMM_MSG_DONE, &done, sizeof(done), NULL, 0);
	space_deinit(&admin);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	come_back();
	look_and_finish();
}
END_TEST

START_TEST(agent_makes_no_call_under_a_filter)
{
	start("seccomp");
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	/* The filter kills who makes a socket. The agent is there: it holds what it has. */
	ck_assert_uint_eq(victim_read_number(&victim), GOOD);
	expect_still_waiting(1000);
	mock_listen_again(&mock);
	ck_assert(!mock_has_client(&mock, 1000));
	victim_go_on(&victim);
	expect_good_end();
}
END_TEST

/* One that came behind our back, and that the daemon had seen. */
START_TEST(agent_makes_no_call_where_the_daemon_saw_a_filter)
{
	start_away("pages");
	__atomic_fetch_or(&space.ring->flags, UHMM_RING_SANDBOXED, __ATOMIC_ACQ_REL);
	die();
	mock_listen_again(&mock);
	ck_assert(!mock_has_client(&mock, 1000));
	victim_go_on(&victim);
	expect_still_waiting(300);
	kill(victim.pid, SIGKILL);
	victim_wait(&victim);
}
END_TEST

START_TEST(filter_waits_a_moment_for_the_next_daemon)
{
	start("seccomp");
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	usleep(500 * 1000);
	come_back();
	mock_serve_agent_quit(&mock, &space);
	ck_assert_uint_eq(victim_read_number(&victim), GOOD);
	ck_assert(space.ring->flags & UHMM_RING_SANDBOXED);
	ck_assert_int_eq(proc_find_agent(victim.pid), 0);
	victim_go_on(&victim);
	expect_good_end();
}
END_TEST

START_TEST(agent_goes_on_when_the_filter_is_refused)
{
	start("bad-filter");
	die();
	usleep(100 * 1000);
	victim_go_on(&victim);
	ck_assert_uint_eq(victim_read_number(&victim), 2);
	come_back();
	ck_assert_uint_eq(space.ring->flags & UHMM_RING_SANDBOXED, 0);
	victim_go_on(&victim);
	expect_good_end();
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static void add_comings(Suite *suite)
{
	TCase *tcase = add_case(suite, "coming back");

	tcase_add_test(tcase, agent_hands_its_userfaultfd_to_the_next_daemon);
	tcase_add_test(tcase, agent_works_for_the_next_daemon_as_before);
	tcase_add_test(tcase, agent_stores_for_the_next_daemon);
	tcase_add_test(tcase, agent_comes_back_again_and_again);
	tcase_add_test(tcase, fault_that_was_read_by_the_dead_daemon_is_served);
	tcase_add_test(tcase, daemon_may_be_away_for_half_a_minute);
	tcase_add_test(tcase, path_that_was_relative_is_found_again);
	tcase_add_test(tcase, agent_comes_back_under_a_filter);
	tcase_add_test(tcase, path_that_was_unlinked_may_come_back);
	tcase_add_test(tcase, flags_of_the_ring_are_carried_over);
	tcase_add_test(tcase, children_are_kept_until_they_are_not_needed);
	tcase_add_test(tcase, no_more_children_than_there_is_room_for);
}

static void add_refusals(Suite *suite)
{
	TCase *tcase = add_case(suite, "not taken");

	tcase_add_test(tcase, busy_daemon_is_asked_again_soon);
	tcase_add_test(tcase, refusal_is_asked_about_rarely);
	tcase_add_test(tcase, daemon_that_hangs_up_at_any_step_is_tried_again);
	tcase_add_test(tcase, nonsense_is_survived);
	tcase_add_test(tcase, daemon_that_talks_nonsense_later_is_left);
	tcase_add_test(tcase, refusal_instead_of_ready_is_no_end);
	tcase_add_test(tcase, silent_daemon_is_given_five_seconds);
}

Suite *rejoin_suite(void)
{
	Suite *suite = suite_create("rejoin");
	TCase *meanwhile, *way;

	add_comings(suite);
	add_refusals(suite);
	meanwhile = add_case(suite, "meanwhile");
	tcase_add_test(meanwhile, fork_waits_for_the_next_daemon);
	tcase_add_test(meanwhile, child_that_was_forked_before_is_handed_over_whole);
	tcase_add_test(meanwhile, program_ends_while_no_daemon_is_there);
	tcase_add_test(meanwhile, program_that_is_killed_leaves_nobody_behind);
	tcase_add_test(meanwhile, exec_while_no_daemon_is_there_ends_the_agent);
	tcase_add_test(meanwhile, program_may_close_every_descriptor_meanwhile);
	tcase_add_test(meanwhile, program_may_change_its_user_meanwhile);
	tcase_add_test(meanwhile, stopped_program_comes_back_when_it_goes_on);
	way = add_case(suite, "making way without a daemon");
	tcase_add_test(way, agent_makes_way_for_unshare_and_holds_on);
	tcase_add_test(way, agent_makes_way_while_a_daemon_is_silent);
	tcase_add_test(way, daemon_that_dies_while_the_agent_is_out_of_the_way_costs_nothing);
	tcase_add_test(way, agent_makes_no_call_under_a_filter);
	tcase_add_test(way, agent_makes_no_call_where_the_daemon_saw_a_filter);
	tcase_add_test(way, filter_waits_a_moment_for_the_next_daemon);
	tcase_add_test(way, agent_goes_on_when_the_filter_is_refused);
	return suite;
}
