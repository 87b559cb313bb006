/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a daemon that is killed over the reading of a FORK leaves to the parent's agent. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event_log.h"
#include "fixture.h"
#include "guard.h"
#include "uhmm/wire.h"

#define PATIENCE_MS 10000
#define LOG_OFF 4096u
#define ROOM 8u

/* The agent's end of the socket, and the log's file. */
static int agent, log_fd;
static int daemon_sock;

static void setup(void)
{
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	agent = ends[0];
	daemon_sock = ends[1];
	log_fd = memfd_create("log", MFD_CLOEXEC);
	fixture_must(log_fd >= 0 && ftruncate(log_fd, 2 * LOG_OFF) == 0, "no log");
}

static void put(unsigned int i, const struct uffd_msg *msg)
{
	off_t off = (off_t)(LOG_OFF + i * sizeof(*msg));

	ck_assert_int_eq(pwrite(log_fd, msg, sizeof(*msg), off), sizeof(*msg));
}

/* A child's userfaultfd, as far as the guard knows: a pipe's end that says which. */
static int make_child(char which)
{
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], &which, 1), 1);
	(void)close(ends[1]);
	return ends[0];
}

static void read_fork(unsigned int i, char which, uint8_t token)
{
	struct uffd_msg msg = { .event = UFFD_EVENT_FORK };

	msg.arg.fork.ufd = (uint32_t)make_child(which);
	memset(event_log_token(&msg), token, UHMM_TOKEN_BYTES);
	put(i, &msg);
}

/* Run as a daemon, which is killed in the end. */
static void as_daemon(void (*run)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(agent);
		if (guard_start() == 0)
			run();
		for (;;)
			(void)raise(SIGKILL);
	}
	(void)close(daemon_sock);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* Of the child that the agent was given, or 0: it sees the end. */
static char next_child(uint8_t token[UHMM_TOKEN_BYTES])
{
	union {
		struct cmsghdr h;
		unsigned char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct uhmm_msg_child msg;
	struct iovec iov = { &msg, sizeof(msg) };
	struct msghdr head = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			       .msg_controllen = sizeof(control) };
	struct pollfd pollfd = { .fd = agent, .events = POLLIN };
	char which = 0;
	ssize_t n;
	int fd;

	ck_assert_int_eq(poll(&pollfd, 1, PATIENCE_MS), 1);
	n = recvmsg(agent, &head, MSG_CMSG_CLOEXEC);
	if (n == 0)
		return 0;
	ck_assert_int_eq(n, sizeof(msg));
	ck_assert_uint_eq(msg.h.type, UHMM_MSG_CHILD);
	ck_assert_uint_eq(head.msg_controllen, sizeof(control));
	memcpy(&fd, CMSG_DATA(&control.h), sizeof(fd));
	ck_assert_int_eq(read(fd, &which, 1), 1);
	(void)close(fd);
	memcpy(token, msg.token, UHMM_TOKEN_BYTES);
	return which;
}

static void reads_and_dies(void)
{
	struct uffd_msg unmap = { .event = UFFD_EVENT_UNMAP };

	ck_assert_ptr_nonnull(guard_begin(daemon_sock, log_fd, LOG_OFF, ROOM));
	put(0, &unmap);
	read_fork(1, 'a', 0);
	read_fork(2, 'b', 7);
}

START_TEST(children_that_were_read_and_not_passed_on_are_the_agents)
{
	uint8_t token[UHMM_TOKEN_BYTES], sevens[UHMM_TOKEN_BYTES];
	struct uffd_msg msg;

	as_daemon(reads_and_dies);
	ck_assert_int_eq(next_child(token), 'a');
	/* The one that a successor finds in the log. */
	ck_assert_int_eq(pread(log_fd, &msg, sizeof(msg), LOG_OFF + sizeof(msg)), sizeof(msg));
	ck_assert_mem_eq(event_log_token(&msg), token, UHMM_TOKEN_BYTES);
	memset(sevens, 0, sizeof(sevens));
	ck_assert_mem_ne(token, sevens, sizeof(sevens));
	ck_assert_int_eq(next_child(token), 'b');
	memset(sevens, 7, sizeof(sevens));
	ck_assert_mem_eq(token, sevens, sizeof(sevens));
	ck_assert_int_eq(next_child(token), 0);
}
END_TEST

static void passes_on_and_dies(void)
{
	struct guard_note *note = guard_begin(daemon_sock, log_fd, LOG_OFF, ROOM);

	read_fork(0, 'a', 0);
	guard_end(note);
}

START_TEST(what_was_passed_on_is_not_the_guards)
{
	uint8_t token[UHMM_TOKEN_BYTES];

	as_daemon(passes_on_and_dies);
	ck_assert_int_eq(next_child(token), 0);
}
END_TEST

static void reads_nothing_and_dies(void)
{
	ck_assert_ptr_nonnull(guard_begin(daemon_sock, log_fd, LOG_OFF, ROOM));
}

START_TEST(nothing_read_is_nothing_to_pass_on)
{
	uint8_t token[UHMM_TOKEN_BYTES];

	as_daemon(reads_nothing_and_dies);
	ck_assert_int_eq(next_child(token), 0);
}
END_TEST

static void reads_much_at_once_and_dies(void)
{
	struct guard_note *first = guard_begin(daemon_sock, log_fd, LOG_OFF, ROOM);

	for (int i = 0; i < 63; i++)
		ck_assert_ptr_nonnull(guard_begin(daemon_sock, log_fd, LOG_OFF + 2048, 1));
	/* No room is no harm. */
	ck_assert_ptr_null(guard_begin(daemon_sock, log_fd, LOG_OFF, ROOM));
	guard_end(NULL);
	guard_end(first);
	ck_assert_ptr_eq(guard_begin(daemon_sock, log_fd, LOG_OFF, ROOM), first);
	read_fork(0, 'z', 1);
}

START_TEST(many_may_read_at_once)
{
	uint8_t token[UHMM_TOKEN_BYTES];

	as_daemon(reads_much_at_once_and_dies);
	ck_assert_int_eq(next_child(token), 'z');
	ck_assert_int_eq(next_child(token), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guard");
	TCase *tcase = tcase_create("guard");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, children_that_were_read_and_not_passed_on_are_the_agents);
	tcase_add_test(tcase, what_was_passed_on_is_not_the_guards);
	tcase_add_test(tcase, nothing_read_is_nothing_to_pass_on);
	tcase_add_test(tcase, many_may_read_at_once);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
