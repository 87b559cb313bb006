/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fixture.h"
#include "service.h"

/* A bound socket, as a manager would make it. */
static int make_socket(int type, const char *name)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type, 0);

	ck_assert_int_ge(fd, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fixture_path(name));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void hand_over(int fd, const char *n, pid_t pid)
{
	char text[32];

	ck_assert_int_eq(dup2(fd, 3), 3);
	snprintf(text, sizeof(text), "%d", pid);
	ck_assert_int_eq(setenv("LISTEN_FDS", n, 1), 0);
	ck_assert_int_eq(setenv("LISTEN_PID", text, 1), 0);
}

static void setup(void)
{
	unsetenv("LISTEN_FDS");
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

START_TEST(the_socket_units_socket_is_taken_once)
{
	int fd = make_socket(SOCK_SEQPACKET, "listen"), got = -1;

	ck_assert_int_eq(listen(fd, 1), 0);
	hand_over(fd, "1", getpid());
	ck_assert_int_eq(service_take_listener(&got), 0);
	ck_assert_int_eq(got, 3);
	ck_assert(fcntl(got, F_GETFD) & FD_CLOEXEC);
	ck_assert(fcntl(got, F_GETFL) & O_NONBLOCK);
	ck_assert_int_eq(service_take_listener(&got), -ENOENT);
}
END_TEST

START_TEST(descriptors_for_another_process_are_left_alone)
{
	int fd = make_socket(SOCK_SEQPACKET, "listen"), got = -1;

	ck_assert_int_eq(listen(fd, 1), 0);
	hand_over(fd, "1", getpid() + 1);
	ck_assert_int_eq(service_take_listener(&got), -ENOENT);
	ck_assert(!(fcntl(3, F_GETFD) & FD_CLOEXEC));
}
END_TEST

START_TEST(a_listening_socket_of_another_kind_is_an_error)
{
	int fd = make_socket(SOCK_STREAM, "listen"), got = -1;

	ck_assert_int_eq(listen(fd, 1), 0);
	hand_over(fd, "1", getpid());
	fixture_expect_error("ListenSequentialPacket=");
	ck_assert_int_eq(service_take_listener(&got), -EINVAL);
	ck_assert_int_eq(fixture_errors_seen(), 1);
}
END_TEST

START_TEST(what_does_not_listen_is_no_listener)
{
	int fd = make_socket(SOCK_SEQPACKET, "listen"), got = -1;

	hand_over(fd, "1", getpid());
	ck_assert_int_eq(service_take_listener(&got), -ENOENT);
}
END_TEST

START_TEST(a_count_that_makes_no_sense_is_none)
{
	static const char *const counts[] = { "", "-1", "0", "x", "1x", "99999999999999999999" };
	int got = -1;

	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		hand_over(STDERR_FILENO, counts[i], getpid());
		ck_assert_int_eq(service_take_listener(&got), -ENOENT);
	}
}
END_TEST

START_TEST(lines_reach_the_managers_socket)
{
	int fd = make_socket(SOCK_DGRAM, "notify");
	char got[64] = "";

	setenv("NOTIFY_SOCKET", fixture_path("notify"), 1);
	service_ready("here");
	ck_assert_int_gt(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), 0);
	ck_assert_str_eq(got, "READY=1\nSTATUS=here");
	memset(got, 0, sizeof(got));
	service_notify("WATCHDOG=1");
	ck_assert_int_eq(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), 10);
	ck_assert_str_eq(got, "WATCHDOG=1");
}
END_TEST

START_TEST(lines_reach_an_abstract_socket)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	char name[40], got[64] = "";
	socklen_t len;

	len = (socklen_t)snprintf(name, sizeof(name), "@uhmm-test-%d", getpid());
	memcpy(addr.sun_path + 1, name + 1, len - 1u);
	len += (socklen_t)offsetof(struct sockaddr_un, sun_path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	service_notify("STATUS=x");
	ck_assert_int_eq(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), 8);
}
END_TEST

/* The test would hang if it waited. */
START_TEST(a_manager_that_does_not_read_is_not_waited_for)
{
	int fd = make_socket(SOCK_DGRAM, "notify");

	setenv("NOTIFY_SOCKET", fixture_path("notify"), 1);
	for (int i = 0; i < 10000; i++)
		service_notify("WATCHDOG=1");
	close(fd);
	service_notify("WATCHDOG=1");
}
END_TEST

START_TEST(a_watchdog_for_another_process_is_none)
{
	char pid[16];

	ck_assert_uint_eq(service_watchdog_ns(), 0);
	setenv("WATCHDOG_USEC", "30000000", 1);
	ck_assert_uint_eq(service_watchdog_ns(), 30000000000u);
	snprintf(pid, sizeof(pid), "%d", getpid() + 1);
	setenv("WATCHDOG_PID", pid, 1);
	ck_assert_uint_eq(service_watchdog_ns(), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service");
	TCase *tcase = tcase_create("service");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, the_socket_units_socket_is_taken_once);
	tcase_add_test(tcase, descriptors_for_another_process_are_left_alone);
	tcase_add_test(tcase, a_listening_socket_of_another_kind_is_an_error);
	tcase_add_test(tcase, what_does_not_listen_is_no_listener);
	tcase_add_test(tcase, a_count_that_makes_no_sense_is_none);
	tcase_add_test(tcase, lines_reach_the_managers_socket);
	tcase_add_test(tcase, lines_reach_an_abstract_socket);
	tcase_add_test(tcase, a_manager_that_does_not_read_is_not_waited_for);
	tcase_add_test(tcase, a_watchdog_for_another_process_is_none);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
