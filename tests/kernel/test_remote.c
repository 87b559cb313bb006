/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon can do to another process, and a thread for it inside.
 */
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel_facts.h"

#define NOBODY 65534

static int drop_privileges(void)
{
	return setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	       setresuid(NOBODY, NOBODY, NOBODY) < 0;
}

struct client {
	int socket;
	int out; /* one byte of the page goes here, from inside a system call */
	unsigned char *page;
};

/* Steps of the client that it cannot assert itself: its exit status. */
enum client_failure { CLIENT_OK, CLIENT_DROP, CLIENT_NOT_HARMLESS, CLIENT_NEW, CLIENT_WRITE };

static int client_run(void *arg)
{
	struct client *client = arg;
	int device;
	int uffd;
	char go;

	if (drop_privileges())
		return CLIENT_DROP;
	if (open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC) >= 0)
		return CLIENT_NOT_HARMLESS;
	device = kf_recv_fd(client->socket);
	uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		return CLIENT_NEW;
	kf_send_fd_ok(client->socket, uffd);
	(void)close(uffd);
	if (read(client->socket, &go, 1) != 1)
		return CLIENT_NEW;
	return write(client->out, client->page, 1) == 1 ? CLIENT_OK : CLIENT_WRITE;
}

START_TEST(unprivileged_process_gets_a_uffd_through_the_brokered_device)
{
	uint64_t features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
			    UFFD_FEATURE_THREAD_ID;
	int device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	struct client client = { .page = kf_map_ok(1) };
	int sockets[2];
	int pipes[2];
	unsigned char byte;
	pid_t pid;
	int uffd;

	ck_assert_int_ge(device, 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	ck_assert_int_eq(pipe(pipes), 0);
	client.socket = sockets[1];
	client.out = pipes[1];
	pid = kf_child(client_run, &client);
	kf_send_fd_ok(sockets[0], device);
	uffd = kf_recv_fd(sockets[0]);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(kf_api(uffd, features), 0);
	kf_register_ok(uffd, client.page, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(write(sockets[0], "", 1), 1);
	/* The client is inside write(2): a fault of the kernel's, and it is delivered. */
	(void)kf_read_fault_ok(uffd, client.page);
	ck_assert_int_eq(kf_fill(uffd, client.page, 90, 0), 0);
	ck_assert_int_eq(read(pipes[0], &byte, 1), 1);
	ck_assert_uint_eq(byte, 90);
	ck_assert_int_eq(kf_wait_ok(pid), CLIENT_OK);
}
END_TEST

struct agent {
	struct uffdio_move move;
	int uffd;
	int error;
	int go;
	int done;
};

KF_BARE static int agent_run(void *arg)
{
	struct agent *agent = arg;
	long rc;

	while (!__atomic_load_n(&agent->go, __ATOMIC_ACQUIRE))
		(void)syscall(SYS_sched_yield);
	rc = syscall(SYS_ioctl, agent->uffd, UFFDIO_MOVE, &agent->move);
	agent->error = rc < 0 ? -errno : 0;
	__atomic_store_n(&agent->done, 1, __ATOMIC_RELEASE);
	return (int)syscall(SYS_exit, 0);
}

START_TEST(raw_thread_without_clone_files_can_move)
{
	struct agent agent = { .uffd = kf_open_move_ok(0) };
	unsigned char *home = kf_map_ok(1);
	unsigned char *staging = kf_map_ok(1);

	*home = 7;
	agent.move = (struct uffdio_move){ .dst = (uintptr_t)staging,
					   .src = (uintptr_t)home,
					   .len = kf_page };
	kf_register_ok(agent.uffd, staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	(void)kf_bare_thread_ok(agent_run, &agent, 0, NULL); /* without CLONE_FILES */
	/* The program closes all that it has; the thread's table still has the descriptor. */
	ck_assert_int_eq(close(agent.uffd), 0);
	__atomic_store_n(&agent.go, 1, __ATOMIC_RELEASE);
	for (int i = 0; !__atomic_load_n(&agent.done, __ATOMIC_ACQUIRE); i++) {
		ck_assert_int_lt(i, KF_PATIENCE_MS);
		(void)usleep(1000);
	}
	ck_assert_int_eq(agent.error, 0);
	ck_assert_uint_eq(*staging, 7);
	ck_assert(!kf_is_present(home));
}
END_TEST

/* A process with a page that its thread has moved to staging, and that is not registered
 * any more. */
struct owner {
	unsigned char *home;
	unsigned char *staging;
	int ready;
	int wait;
};

static int owner_run(void *arg)
{
	struct owner *owner = arg;
	int uffd = kf_open_move_ok(0);

	memset(owner->home, 7, kf_page);
	kf_register_ok(uffd, owner->staging, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(kf_move(uffd, owner->staging, owner->home, kf_page), 0);
	ck_assert_int_eq(kf_unregister(uffd, owner->staging, kf_page), 0);
	ck_assert_int_eq(write(owner->ready, "", 1), 1);
	return kf_child_waits(&owner->wait);
}

START_TEST(process_vm_readv_of_a_staging_page_works)
{
	struct owner owner = { .home = kf_map_ok(1), .staging = kf_map_ok(1) };
	unsigned char *copy = kf_map_ok(1);
	struct iovec local = { copy, kf_page };
	struct iovec remote = { owner.staging, kf_page };
	int ready[2];
	int wait[2];
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	ck_assert_int_eq(pipe(wait), 0);
	owner.ready = ready[1];
	owner.wait = wait[0];
	pid = kf_child(owner_run, &owner);
	(void)close(ready[1]);
	ck_assert_msg(read(ready[0], &byte, 1) == 1, "the child could not MOVE");
	ck_assert_int_eq(process_vm_readv(pid, &local, 1, &remote, 1, 0), (ssize_t)kf_page);
	ck_assert_uint_eq(copy[0], 7);
	ck_assert_uint_eq(copy[kf_page - 1], 7);
	ck_assert_int_eq(write(wait[1], "", 1), 1);
	ck_assert_int_eq(kf_wait_ok(pid), 0);
}
END_TEST

TCase *kf_tcase_remote(void)
{
	TCase *tcase = tcase_create("remote");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, unprivileged_process_gets_a_uffd_through_the_brokered_device);
	tcase_add_test(tcase, raw_thread_without_clone_files_can_move);
	tcase_add_test(tcase, process_vm_readv_of_a_staging_page_works);
	return tcase;
}
