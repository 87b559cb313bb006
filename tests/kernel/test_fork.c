/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What fork, exec and the end of a task do to registrations.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel_facts.h"
#include "uffd.h"

static int child_reads_byte(void *arg)
{
	return *(volatile unsigned char *)arg;
}

/* The child's userfaultfd, once fork has returned in the parent. */
static int fork_ok(int uffd, struct kf_fork *forker, void *page)
{
	struct uffd_msg msg;

	kf_fork_start(forker, child_reads_byte, page);
	msg = kf_read_ok(uffd);
	ck_assert_uint_eq(msg.event, UFFD_EVENT_FORK);
	ck_assert(kf_thread_done(&forker->thread, KF_PATIENCE_MS));
	ck_assert_int_gt(forker->pid, 0);
	return (int)msg.arg.fork.ufd;
}

START_TEST(fork_event_brings_a_working_fd)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_FORK);
	unsigned char *map = kf_map_ok(1);
	struct kf_fork forker;
	int child;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	child = fork_ok(uffd, &forker, map);
	ck_assert_int_eq(fcntl(child, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	ck_assert_int_eq(fcntl(child, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(kf_api(child, 0), -EINVAL); /* it has its parent's features */
	(void)kf_read_fault_ok(child, map);
	ck_assert_int_eq(kf_fill(child, map, 42, 0), 0);
	ck_assert_int_eq(kf_wait_ok(forker.pid), 42);
	ck_assert(!kf_is_present(map));
}
END_TEST

START_TEST(child_forked_without_event_reads_zero_for_a_hole)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	pid_t pid;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	pid = kf_child(child_reads_byte, map);
	ck_assert_int_eq(kf_wait_ok(pid), 0);
	ck_assert(!kf_has_message(uffd, 0));
}
END_TEST

START_TEST(wipeonfork_child_inherits_registration)
{
	int uffd = kf_open_ok(UFFD_FEATURE_EVENT_FORK);
	unsigned char *map = kf_map_ok(1);
	struct kf_fork forker;
	int child;

	*map = 7;
	ck_assert_int_eq(madvise(map, kf_page, MADV_WIPEONFORK), 0);
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	child = fork_ok(uffd, &forker, map);
	(void)kf_read_fault_ok(child, map);
	ck_assert_int_eq(kf_fill(child, map, 42, 0), 0);
	ck_assert_int_eq(kf_wait_ok(forker.pid), 42);
}
END_TEST

/* A process with one registered page; its userfaultfd and the page's address go out by the
 * socket. Then it becomes another program, which waits for its standard input. */
struct exec_plan {
	int socket;
	int input;
};

static int child_registers_and_execs(void *arg)
{
	struct exec_plan *plan = arg;
	unsigned char *map = kf_map_ok(1);
	int uffd = kf_open_ok(0);

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_send_fd_ok(plan->socket, uffd);
	ck_assert_int_eq(write(plan->socket, &map, sizeof(map)), (ssize_t)sizeof(map));
	(void)dup2(plan->input, STDIN_FILENO);
	(void)execlp("cat", "cat", (char *)NULL);
	return 1;
}

START_TEST(exec_drops_registration)
{
	struct exec_plan plan;
	int sockets[2];
	int wait[2];
	unsigned char *map;
	pid_t pid;
	int uffd;
	char byte;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	ck_assert_int_eq(pipe2(wait, O_CLOEXEC), 0);
	plan = (struct exec_plan){ sockets[1], wait[0] };
	pid = kf_child(child_registers_and_execs, &plan);
	(void)close(sockets[1]);
	uffd = kf_recv_fd(sockets[0]);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(read(sockets[0], &map, sizeof(map)), (ssize_t)sizeof(map));
	/* The end of a close-on-exec socket is how exec shows; the userfaultfd says nothing. */
	ck_assert_int_eq(read(sockets[0], &byte, 1), 0);
	ck_assert_int_eq(kf_fill(uffd, map, 7, 0), -ESRCH);
	ck_assert(!kf_has_message(uffd, 0));
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
	(void)close(wait[1]);
	ck_assert_int_eq(kf_wait_ok(pid), 0);
}
END_TEST

static int child_sends_uffd(void *arg)
{
	kf_send_fd_ok(*(int *)arg, kf_open_ok(UFFD_FEATURE_PAGEFAULT_FLAG_WP));
	return 0;
}

START_TEST(ioctls_after_the_end_are_told_apart)
{
	unsigned char *map = kf_map_ok(1);
	uint64_t done;
	int sockets[2];
	pid_t pid;
	int uffd;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	pid = kf_child(child_sends_uffd, &sockets[1]);
	uffd = kf_recv_fd(sockets[0]);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(kf_wait_ok(pid), 0);
	ck_assert_int_eq(uffd_copy(uffd, (uintptr_t)map, map, kf_page, &done), UFFD_GONE);
	ck_assert_int_eq(uffd_zeropage(uffd, (uintptr_t)map, kf_page, &done), UFFD_GONE);
	ck_assert_int_eq(uffd_mark(uffd, (uintptr_t)map, kf_page), UFFD_GONE);
	ck_assert_int_eq(uffd_register(uffd, (uintptr_t)map, kf_page, UFFDIO_REGISTER_MODE_MISSING),
			 UFFD_GONE);
	ck_assert_int_eq(uffd_unregister(uffd, (uintptr_t)map, kf_page), UFFD_GONE);
	ck_assert_int_eq(uffd_settled(uffd), UFFD_OK);
}
END_TEST

KF_BARE static int ends_at_once(void *arg)
{
	(void)arg;
	return (int)syscall(SYS_exit, 0);
}

/* Has the task been gone for good within the time that we are ready to wait? */
static bool task_ends(pid_t tid)
{
	for (int i = 0; i < KF_PATIENCE_MS; i++) {
		if (syscall(SYS_tgkill, getpid(), tid, 0) < 0)
			return true;
		(void)usleep(1000);
	}
	return false;
}

START_TEST(exiting_task_gets_no_fault)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	pid_t tid;

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	/* The kernel is to clear the word at `map` when the thread ends: it lies in a hole. */
	tid = kf_bare_thread_ok(ends_at_once, NULL, CLONE_CHILD_CLEARTID, map);
	ck_assert_msg(task_ends(tid), "the task waits for a fault");
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
	ck_assert_msg(!kf_is_present(map), "the word was written after all");
}
END_TEST

TCase *kf_tcase_fork(void)
{
	TCase *tcase = tcase_create("fork");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, fork_event_brings_a_working_fd);
	tcase_add_test(tcase, child_forked_without_event_reads_zero_for_a_hole);
	tcase_add_test(tcase, wipeonfork_child_inherits_registration);
	tcase_add_test(tcase, exec_drops_registration);
	tcase_add_test(tcase, ioctls_after_the_end_are_told_apart);
	tcase_add_test(tcase, exiting_task_gets_no_fault);
	return tcase;
}
