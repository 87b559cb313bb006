/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The socket to the daemon. Called by enrolment (constructor, fork handler, wrappers) and by
 * the API, on the thread that wants something; the agent has code of its own. Nothing here
 * waits for longer than its caller says, allocates, or sets errno.
 */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include "sys.h"

long link_now_ms(void)
{
	struct timespec now = { 0, 0 };

	(void)sys_call2(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int link_connect(const char *path, long timeout_ms)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const struct timeval timeout = {
		.tv_sec = timeout_ms / 1000,
		.tv_usec = timeout_ms % 1000 * 1000,
	};
	size_t len = strlen(path);
	long sock, err;

	if (len == 0 || len >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, len);
	sock = sys_call3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return (int)sock;
	/* Bounds connect as well, which waits while the daemon's backlog is full. */
	err = sys_call6(SYS_setsockopt, sock, SOL_SOCKET, SO_SNDTIMEO, (long)&timeout,
			sizeof(timeout), 0);
	if (err == 0)
		err = sys_call3(SYS_connect, sock, (long)&addr, sizeof(addr));
	if (err < 0) {
		sys_close((int)sock);
		return (int)err;
	}
	return (int)sock;
}

union link_control {
	struct cmsghdr h;
	unsigned char room[CMSG_SPACE(UHMM_MSG_FDS_MAX * sizeof(int))];
};

int link_send(int sock, uint32_t type, void *packet, size_t bytes, int pass_fd)
{
	struct uhmm_msg *h = packet;
	struct iovec iov = { .iov_base = packet, .iov_len = bytes };
	union link_control control;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	long n;

	h->type = type;
	h->len = (uint32_t)bytes;
	if (pass_fd >= 0) {
		memset(&control, 0, sizeof(control));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		control.h.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.h), &pass_fd, sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int));
	}
	do {
		n = sys_call3(SYS_sendmsg, sock, (long)&msg, MSG_NOSIGNAL);
	} while (n == -EINTR);
	if (n == -EPIPE || n == -ECONNRESET)
		return -ENOTCONN;
	if (n == -EAGAIN)
		return -ETIMEDOUT;
	return n < 0 ? (int)n : 0;
}

static int wait_readable(int sock, long timeout_ms)
{
	struct pollfd pfd = { .fd = sock, .events = POLLIN };
	struct timespec timeout = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000,
	};
	/* The kernel counts the rest down in `timeout`, also over a signal. */
	struct timespec *bound = timeout_ms == LINK_FOREVER ? NULL : &timeout;
	long n;

	do {
		n = sys_call6(SYS_ppoll, (long)&pfd, 1, (long)bound, 0, 8, 0);
	} while (n == -EINTR);
	if (n == 0)
		return -ETIMEDOUT;
	return n < 0 ? (int)n : 0;
}

static void take_descriptors(const struct msghdr *msg, const union link_control *control,
			     int fds[static UHMM_MSG_FDS_MAX], unsigned int *ret_n_fds)
{
	size_t n;

	*ret_n_fds = 0;
	if (msg->msg_controllen < sizeof(control->h) || control->h.cmsg_level != SOL_SOCKET ||
	    control->h.cmsg_type != SCM_RIGHTS)
		return;
	n = (control->h.cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(&control->h), n * sizeof(int));
	*ret_n_fds = (unsigned int)n;
}

long link_recv(int sock, void *packet, size_t room, int fds[static UHMM_MSG_FDS_MAX],
	       unsigned int *ret_n_fds, long timeout_ms)
{
	struct iovec iov = { .iov_base = packet, .iov_len = room };
	union link_control control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	const struct uhmm_msg *h = packet;
	int err = wait_readable(sock, timeout_ms);
	long n;

	*ret_n_fds = 0;
	if (err)
		return err;
	n = sys_call3(SYS_recvmsg, sock, (long)&msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n == 0 || n == -ECONNRESET)
		return -ENOTCONN;
	if (n < 0)
		return n;
	take_descriptors(&msg, &control, fds, ret_n_fds);
	if (n < (long)sizeof(*h) || h->len != (unsigned long)n ||
	    (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		for (unsigned int i = 0; i < *ret_n_fds; i++)
			sys_close(fds[i]);
		*ret_n_fds = 0;
		return -EPROTO;
	}
	return n;
}
