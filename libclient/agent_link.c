/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packets in and out on the agent's thread. Freestanding: what agent.c says of itself is true
 * here, too.
 */
#include "agent_link.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

/* So often a wait looks at `go`. */
#define SLICE_MS 20L
/* The kernel lets a user have so many descriptors under way and no more; the daemon reads. */
#define CROWDED_NAP_MS 5L

union agent_control {
	struct cmsghdr h;
	unsigned char room[CMSG_SPACE(UHMM_MSG_FDS_MAX * sizeof(int))];
};

long agent_now_ms(void)
{
	struct timespec now;

	now.tv_sec = 0;
	now.tv_nsec = 0;
	(void)sys_call2(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void agent_nap(const struct uhmm_agent *agent, uint32_t told, long ms)
{
	struct timespec time;

	time.tv_sec = ms / 1000;
	time.tv_nsec = ms % 1000 * 1000000;
	(void)sys_call4(SYS_futex, (long)&agent->go, FUTEX_WAIT_PRIVATE, told,
			ms < 0 ? 0 : (long)&time);
}

static void take_descriptors(const struct msghdr *msg, const union agent_control *control,
			     int ret_fds[static 2])
{
	const int *fds = (const int *)(const void *)CMSG_DATA(&control->h);
	size_t n;

	ret_fds[0] = ret_fds[1] = -1;
	if (msg->msg_controllen < sizeof(control->h) || control->h.cmsg_type != SCM_RIGHTS)
		return;
	n = (control->h.cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < n; i++) {
		if (i < 2)
			ret_fds[i] = fds[i];
		else
			sys_close(fds[i]);
	}
}

long agent_recv(int sock, union agent_packet *packet, int ret_fds[static 2])
{
	union agent_control control;
	struct iovec iov;
	struct msghdr msg;
	long n;

	iov.iov_base = packet;
	iov.iov_len = sizeof(*packet);
	msg.msg_name = NULL;
	msg.msg_namelen = 0;
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	msg.msg_control = &control;
	msg.msg_controllen = sizeof(control);
	msg.msg_flags = 0;
	ret_fds[0] = ret_fds[1] = -1;
	n = sys_call3(SYS_recvmsg, sock, (long)&msg, MSG_CMSG_CLOEXEC);
	if (n > 0)
		take_descriptors(&msg, &control, ret_fds);
	return n;
}

long agent_connect(const struct uhmm_agent *agent)
{
	struct timeval slice;
	long err, sock = sys_call3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return sock;
	slice.tv_sec = 0;
	slice.tv_usec = SLICE_MS * 1000;
	/* Bounds connect as well, which waits while the daemon's backlog is full. */
	err = sys_call6(SYS_setsockopt, sock, SOL_SOCKET, SO_SNDTIMEO, (long)&slice, sizeof(slice),
			0);
	if (err == 0)
		err = sys_call3(SYS_connect, sock, (long)&agent->daemon, sizeof(agent->daemon));
	if (err == 0)
		return sock;
	sys_close((int)sock);
	return err;
}

/* 0: go on waiting. */
static long is_over(const struct uhmm_agent *agent, long until_ms)
{
	if (agent_told(agent) != AGENT_GO_RUN)
		return -ECANCELED;
	return agent_now_ms() >= until_ms ? -ETIMEDOUT : 0;
}

static long send_once(int sock, struct iovec *iov, union agent_control *control)
{
	struct msghdr msg;

	msg.msg_name = NULL;
	msg.msg_namelen = 0;
	msg.msg_iov = iov;
	msg.msg_iovlen = 1;
	msg.msg_control = control;
	msg.msg_controllen = control ? CMSG_SPACE(sizeof(int)) : 0;
	msg.msg_flags = 0;
	return sys_call3(SYS_sendmsg, sock, (long)&msg, MSG_NOSIGNAL);
}

long agent_send(const struct uhmm_agent *agent, int sock, const void *packet, int pass_fd,
		long until_ms)
{
	union agent_control control;
	struct iovec iov;
	long n, over;

	iov.iov_base = (void *)(uintptr_t)packet;
	iov.iov_len = ((const struct uhmm_msg *)packet)->len;
	control.h.cmsg_level = SOL_SOCKET;
	control.h.cmsg_type = SCM_RIGHTS;
	control.h.cmsg_len = CMSG_LEN(sizeof(int));
	*(int *)(void *)CMSG_DATA(&control.h) = pass_fd;
	for (;;) {
		n = send_once(sock, &iov, pass_fd >= 0 ? &control : NULL);
		if (n != -EINTR && n != -EAGAIN && n != -ETOOMANYREFS)
			return n < 0 ? n : 0;
		over = is_over(agent, until_ms);
		if (over < 0)
			return over;
		if (n == -ETOOMANYREFS)
			agent_nap(agent, AGENT_GO_RUN, CROWDED_NAP_MS);
	}
}

long agent_await(const struct uhmm_agent *agent, int sock, long until_ms)
{
	struct timespec slice;
	struct pollfd pfd;
	long n, over;

	do {
		slice.tv_sec = 0;
		slice.tv_nsec = SLICE_MS * 1000000;
		pfd.fd = sock;
		pfd.events = POLLIN;
		pfd.revents = 0;
		n = sys_call6(SYS_ppoll, (long)&pfd, 1, (long)&slice, 0, 8, 0);
		if (n > 0)
			return 0;
		if (n < 0 && n != -EINTR)
			return n;
		over = is_over(agent, until_ms);
	} while (over == 0);
	return over;
}
