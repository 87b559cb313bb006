/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plumbing of the kernel-fact tests: userfaultfds, page maps, threads and children.
 *
 * Used by all tests of this folder, from the test's own thread unless said otherwise.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernel_facts.h"
#include "uffd.h"

size_t kf_page;

static int kf_open_uffd(void)
{
	int device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	int uffd;

	if (device < 0)
		return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	(void)close(device);
	return uffd;
}

int kf_api(int uffd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	return ioctl(uffd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

int kf_open_ok(uint64_t features)
{
	uint64_t known = 0;
	uint64_t missing;
	int uffd = kf_open_uffd();

	ck_assert_msg(uffd >= 0, "no userfaultfd: %s", strerror(errno));
	ck_assert_int_eq(uffd_probe(&known, &missing), 0);
	for (uint64_t bit = 1; bit; bit <<= 1)
		ck_assert_msg(!(features & bit) || (known & bit), "this kernel has no %s",
			      uffd_feature_name(bit));
	ck_assert_int_eq(kf_api(uffd, features), 0);
	return uffd;
}

int kf_open_move_ok(uint64_t features)
{
	return kf_open_ok(features | UFFD_FEATURE_MOVE);
}

unsigned char *kf_map_ok(size_t n_pages)
{
	unsigned char *map = mmap(NULL, n_pages * kf_page, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	/* Fails only where the kernel has no huge pages at all. */
	(void)madvise(map, n_pages * kf_page, MADV_NOHUGEPAGE);
	return map;
}

int kf_register(int uffd, const void *addr, size_t bytes, uint64_t mode)
{
	struct uffdio_register arg = { .range = { (uintptr_t)addr, bytes }, .mode = mode };

	return ioctl(uffd, UFFDIO_REGISTER, &arg) < 0 ? -errno : 0;
}

void kf_register_ok(int uffd, const void *addr, size_t bytes, uint64_t mode)
{
	ck_assert_int_eq(kf_register(uffd, addr, bytes, mode), 0);
}

int kf_unregister(int uffd, const void *addr, size_t bytes)
{
	struct uffdio_range arg = { (uintptr_t)addr, bytes };

	return ioctl(uffd, UFFDIO_UNREGISTER, &arg) < 0 ? -errno : 0;
}

int kf_move(int uffd, const void *dst, const void *src, size_t bytes)
{
	struct uffdio_move arg = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = bytes };

	return ioctl(uffd, UFFDIO_MOVE, &arg) < 0 ? -errno : 0;
}

int kf_fill(int uffd, const void *addr, unsigned char value, uint64_t mode)
{
	static unsigned char page[65536]; /* the largest page that Linux has */
	struct uffdio_copy arg = {
		.dst = (uintptr_t)addr, .src = (uintptr_t)page, .len = kf_page, .mode = mode
	};

	memset(page, value, kf_page);
	return ioctl(uffd, UFFDIO_COPY, &arg) < 0 ? -errno : 0;
}

int kf_mark(int uffd, const void *addr, size_t bytes)
{
	struct uffdio_writeprotect arg = { .range = { (uintptr_t)addr, bytes },
					   .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &arg) < 0 ? -errno : 0;
}

int kf_wake(int uffd, const void *addr, size_t bytes)
{
	struct uffdio_range arg = { (uintptr_t)addr, bytes };

	return ioctl(uffd, UFFDIO_WAKE, &arg) < 0 ? -errno : 0;
}

bool kf_has_message(int uffd, int timeout_ms)
{
	struct pollfd pollfd = { .fd = uffd, .events = POLLIN };

	return poll(&pollfd, 1, timeout_ms) == 1 && (pollfd.revents & POLLIN);
}

struct uffd_msg kf_read_ok(int uffd)
{
	struct uffd_msg msg = { .event = 0 };

	ck_assert_msg(kf_has_message(uffd, KF_PATIENCE_MS), "no message came");
	ck_assert_int_eq(read(uffd, &msg, sizeof(msg)), (ssize_t)sizeof(msg));
	return msg;
}

struct uffd_msg kf_read_fault_ok(int uffd, const void *addr)
{
	struct uffd_msg msg = kf_read_ok(uffd);

	ck_assert_uint_eq(msg.event, UFFD_EVENT_PAGEFAULT);
	ck_assert_uint_eq(msg.arg.pagefault.address & ~(kf_page - 1), (uintptr_t)addr);
	return msg;
}

uint64_t kf_pagemap_ok(pid_t pid, const void *addr)
{
	char path[64];
	uint64_t entry = 0;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", pid ? pid : getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &entry, 8, (off_t)((uintptr_t)addr / kf_page * 8)), 8);
	(void)close(fd);
	return entry;
}

bool kf_is_marked(pid_t pid, const void *addr)
{
	uint64_t entry = kf_pagemap_ok(pid, addr);

	return (entry & UHMM_PAGEMAP_UFFD_WP) && !(entry & UHMM_PAGEMAP_PRESENT);
}

bool kf_is_present(const void *addr)
{
	return kf_pagemap_ok(0, addr) & UHMM_PAGEMAP_PRESENT;
}

bool kf_is_empty(pid_t pid, const void *addr)
{
	/* Not all bits: a kernel may say "soft-dirty" of a hole, too. */
	return !(kf_pagemap_ok(pid, addr) &
		 (UHMM_PAGEMAP_PRESENT | UHMM_PAGEMAP_SWAPPED | UHMM_PAGEMAP_UFFD_WP));
}

void kf_thread_start(struct kf_thread *thread, void *(*fn)(void *), void *arg)
{
	ck_assert_int_eq(pthread_create(&thread->thread, NULL, fn, arg), 0);
}

bool kf_thread_done(struct kf_thread *thread, int timeout_ms)
{
	struct timespec until;
	long nsec;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	nsec = until.tv_nsec + (timeout_ms % 1000) * 1000000l;
	until.tv_sec += timeout_ms / 1000 + nsec / 1000000000l;
	until.tv_nsec = nsec % 1000000000l;
	return pthread_timedjoin_np(thread->thread, NULL, &until) == 0;
}

static void *kf_touch_run(void *arg)
{
	struct kf_touch *touch = arg;

	touch->value = *touch->addr;
	return NULL;
}

void kf_touch_start(struct kf_touch *touch, const void *addr)
{
	touch->addr = addr;
	kf_thread_start(&touch->thread, kf_touch_run, touch);
}

bool kf_touch_done(struct kf_touch *touch, int timeout_ms)
{
	return kf_thread_done(&touch->thread, timeout_ms);
}

void kf_touch_ends_ok(struct kf_touch *touch, unsigned char value)
{
	ck_assert_msg(kf_touch_done(touch, KF_PATIENCE_MS), "the touch does not come back");
	ck_assert_uint_eq(touch->value, value);
}

static void *kf_advise_run(void *arg)
{
	struct kf_advise *advise = arg;

	advise->error = madvise(advise->addr, advise->bytes, advise->advice) < 0 ? -errno : 0;
	return NULL;
}

void kf_advise_start(struct kf_advise *advise, void *addr, size_t bytes, int advice)
{
	*advise = (struct kf_advise){ .addr = addr, .bytes = bytes, .advice = advice };
	kf_thread_start(&advise->thread, kf_advise_run, advise);
}

static void *kf_remap_run(void *arg)
{
	struct kf_remap *remap = arg;

	(void)mremap(remap->from, remap->bytes, remap->bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
		     remap->to);
	return NULL;
}

void kf_remap_start(struct kf_remap *remap, unsigned char *from, unsigned char *to, size_t bytes)
{
	*remap = (struct kf_remap){ .from = from, .to = to, .bytes = bytes };
	kf_thread_start(&remap->thread, kf_remap_run, remap);
}

static void *kf_fork_run(void *arg)
{
	struct kf_fork *forker = arg;
	pid_t pid = fork();

	if (pid == 0)
		_exit(forker->fn(forker->arg));
	forker->pid = pid;
	return NULL;
}

void kf_fork_start(struct kf_fork *forker, int (*fn)(void *), void *arg)
{
	*forker = (struct kf_fork){ .fn = fn, .arg = arg };
	kf_thread_start(&forker->thread, kf_fork_run, forker);
}

/* The C library's clone() by its other name: ThreadSanitizer replaces the first by one that
 * makes processes only. */
int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);

pid_t kf_bare_thread_ok(int (*fn)(void *), void *arg, int flags, void *clear_tid)
{
	const size_t stack_pages = 16;
	unsigned char *stack = kf_map_ok(stack_pages);
	pid_t tid = __clone(fn, stack + stack_pages * kf_page,
			    flags | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, arg,
			    NULL, NULL, clear_tid);

	ck_assert_int_gt(tid, 0);
	return tid;
}

pid_t kf_child(int (*fn)(void *), void *arg)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(fn(arg));
	return pid;
}

int kf_child_waits(void *arg)
{
	char byte;

	return read(*(int *)arg, &byte, 1) == 1 ? 0 : 1;
}

int kf_wait_ok(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

union kf_fd_control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static struct msghdr kf_fd_message(union kf_fd_control *control, struct iovec *iov)
{
	return (struct msghdr){ .msg_iov = iov,
				.msg_iovlen = 1,
				.msg_control = control,
				.msg_controllen = sizeof(*control) };
}

void kf_send_fd_ok(int socket, int fd)
{
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	union kf_fd_control control = { .bytes = { 0 } };
	struct msghdr msg = kf_fd_message(&control, &iov);
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	ck_assert_int_eq(sendmsg(socket, &msg, 0), 1);
}

int kf_recv_fd(int socket)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	union kf_fd_control control = { .bytes = { 0 } };
	struct msghdr msg = kf_fd_message(&control, &iov);
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(socket, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -ECONNRESET;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}
