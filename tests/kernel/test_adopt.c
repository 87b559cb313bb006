/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the handing over from a dead daemon to its successor stands on.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel_facts.h"

/* A write that changes nothing: an atomic OR with 0. */
static int or_zero(void *addr)
{
	uint32_t own = 0;
	long r = syscall(SYS_futex, &own, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, addr,
			 FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, 0));

	return r < 0 ? -errno : 0;
}

START_TEST(futex_or_of_zero_makes_a_page_exclusive_that_fork_shared)
{
	int uffd = kf_open_move_ok(0);
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);
	int gate[2];

	memset(home, 42, kf_page);
	ck_assert_int_eq(pipe(gate), 0);
	(void)kf_child(kf_child_waits, &gate[0]);
	kf_register_ok(uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), -EBUSY);
	ck_assert_int_eq(or_zero(home), 0);
	ck_assert_uint_eq(home[0], 42);
	ck_assert_int_eq(kf_move(uffd, staging, home, kf_page), 0);
}
END_TEST

START_TEST(futex_or_on_a_missing_page_fails_at_once)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);

	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(or_zero(map), -EFAULT);
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
	ck_assert(!kf_is_present(map));
}
END_TEST

START_TEST(memory_file_read_of_a_missing_page_fails_at_once)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(2), bytes[2];
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

	map[0] = 42;
	kf_register_ok(uffd, map, 2 * kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(pread(mem, bytes, 2, (off_t)(uintptr_t)(map + kf_page)), -1);
	ck_assert_int_eq(errno, EIO);
	/* What lies before it is read. */
	map[kf_page - 1] = 43;
	ck_assert_int_eq(pread(mem, bytes, 2, (off_t)(uintptr_t)(map + kf_page - 1)), 1);
	ck_assert_uint_eq(bytes[0], 43);
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
}
END_TEST

START_TEST(one_wake_over_all_addresses_raises_read_faults_again)
{
	const uint64_t start = 0x10000, end = (1ull << 47) - kf_page;
	int uffd = kf_open_ok(0);
	unsigned char *low = kf_map_ok(1), *high = kf_map_ok(1);
	struct kf_touch a, b;

	kf_register_ok(uffd, low, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_register_ok(uffd, high, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&a, low);
	(void)kf_read_fault_ok(uffd, low);
	kf_touch_start(&b, high);
	(void)kf_read_fault_ok(uffd, high);
	ck_assert(!kf_has_message(uffd, KF_QUIET_MS));
	ck_assert_int_eq(kf_wake(uffd, (void *)(uintptr_t)start, end - start), 0);
	(void)kf_read_ok(uffd);
	(void)kf_read_ok(uffd);
	ck_assert_int_eq(kf_fill(uffd, low, 1, 0), 0);
	ck_assert_int_eq(kf_fill(uffd, high, 2, 0), 0);
	kf_touch_ends_ok(&a, 1);
	kf_touch_ends_ok(&b, 2);
}
END_TEST

struct reader {
	int uffd, sock;
};

/* Reads a fault, sends the userfaultfd away, and is killed. */
static int reader_dies(void *arg)
{
	const struct reader *reader = arg;
	struct uffd_msg msg;

	if (!kf_has_message(reader->uffd, KF_PATIENCE_MS) ||
	    read(reader->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return 1;
	kf_send_fd_ok(reader->sock, reader->uffd);
	raise(SIGKILL);
	return 2;
}

START_TEST(userfaultfd_in_a_socket_queue_outlives_its_sender)
{
	struct reader reader = { .uffd = kf_open_ok(0) };
	unsigned char *map = kf_map_ok(1);
	struct kf_touch touch;
	int pair[2], status, uffd;
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	reader.sock = pair[0];
	kf_register_ok(reader.uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	kf_touch_start(&touch, map);
	pid = kf_child(reader_dies, &reader);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	/* Now the queue's is the only one. */
	close(reader.uffd);
	close(pair[0]);
	ck_assert(!kf_touch_done(&touch, KF_QUIET_MS));
	uffd = kf_recv_fd(pair[1]);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(kf_wake(uffd, map, kf_page), 0);
	(void)kf_read_fault_ok(uffd, map);
	ck_assert_int_eq(kf_fill(uffd, map, 42, 0), 0);
	kf_touch_ends_ok(&touch, 42);
}
END_TEST

START_TEST(second_register_of_a_range_changes_nothing)
{
	const uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
	int uffd = kf_open_move_ok(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED);
	unsigned char *map = kf_map_ok(2);

	kf_register_ok(uffd, map, 2 * kf_page, mode);
	ck_assert_int_eq(kf_mark(uffd, map, kf_page), 0);
	kf_register_ok(uffd, map, 2 * kf_page, mode);
	ck_assert(kf_is_marked(0, map));
	ck_assert(!kf_is_marked(0, map + kf_page));
}
END_TEST

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

struct keeper {
	int fd; /* in its own table */
	pid_t tid;
	int started[2], end[2];
};

/* A thread with a table of its own, as the agent is, that holds a file with an 'x'. */
static void *keeper_run(void *arg)
{
	struct keeper *keeper = arg;
	int end = dup(keeper->end[0]);
	char byte;

	if (unshare(CLONE_FILES) != 0)
		return NULL;
	keeper->tid = (pid_t)syscall(SYS_gettid);
	keeper->fd = memfd_create("kept", MFD_CLOEXEC);
	(void)!write(keeper->fd, "x", 1);
	(void)!write(keeper->started[1], "", 1);
	(void)!read(end, &byte, 1);
	return NULL;
}

START_TEST(descriptor_of_a_thread_with_its_own_table_is_within_reach)
{
	struct keeper keeper;
	pthread_t thread;
	int pidfd, fd;
	char byte = 0;

	ck_assert_int_eq(pipe(keeper.started), 0);
	ck_assert_int_eq(pipe(keeper.end), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, keeper_run, &keeper), 0);
	ck_assert_int_eq(read(keeper.started[0], &byte, 1), 1);
	/* Neither privilege nor the dumpable flag is asked for between threads. */
	ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
	ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
	pidfd = (int)syscall(SYS_pidfd_open, keeper.tid, PIDFD_THREAD);
	if (pidfd < 0 && errno == EINVAL) {
		kf_skip("descriptor_of_a_thread_with_its_own_table_is_within_reach",
			"no pidfd of a thread: needs Linux 6.9");
		return;
	}
	ck_assert_int_ge(pidfd, 0);
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, keeper.fd, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(write(keeper.end[1], "", 1), 1);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_int_eq(pread(fd, &byte, 1, 0), 1);
	ck_assert_int_eq(byte, 'x');
}
END_TEST

TCase *kf_tcase_adopt(void)
{
	TCase *tcase = tcase_create("adopt");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, futex_or_of_zero_makes_a_page_exclusive_that_fork_shared);
	tcase_add_test(tcase, futex_or_on_a_missing_page_fails_at_once);
	tcase_add_test(tcase, memory_file_read_of_a_missing_page_fails_at_once);
	tcase_add_test(tcase, one_wake_over_all_addresses_raises_read_faults_again);
	tcase_add_test(tcase, userfaultfd_in_a_socket_queue_outlives_its_sender);
	tcase_add_test(tcase, second_register_of_a_range_changes_nothing);
	tcase_add_test(tcase, descriptor_of_a_thread_with_its_own_table_is_within_reach);
	return tcase;
}
