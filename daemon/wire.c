/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wire: owns nothing; called by control on its thread, and to send by any thread.
 *
 * Never here: a field that is read before the packet's length says that it is there, a
 * descriptor that stays open after an error, or a wait for a client that does not read
 * or write (but by the caller's own flags).
 */
#include "wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STAGING_ALIGN (2ull << 20)
/* The agent's stack and data; generous. */
#define PRIVATE_BYTES_MAX (64ull << 20)

static int wire_bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EPROTO;
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
	uint8_t any = 0;

	while (n > 0)
		any |= bytes[--n];
	return any == 0;
}

/* The fixed size of what a client may send; 0 for everything else. */
static size_t wire_size(enum uhmm_msg_type type)
{
	switch (type) {
	case UHMM_MSG_HELLO:
		return sizeof(struct uhmm_msg_hello);
	case UHMM_MSG_ENROL:
		return sizeof(struct uhmm_msg_enrol);
	case UHMM_MSG_REQUEST:
		return sizeof(struct uhmm_msg_request);
	case UHMM_MSG_CHILD:
		return sizeof(struct uhmm_msg_child);
	case UHMM_MSG_WELCOME:
	case UHMM_MSG_REFUSE:
	case UHMM_MSG_READY:
	case UHMM_MSG_DOORBELL:
	case UHMM_MSG_SLOTS:
	case UHMM_MSG_MEMORY:
	case UHMM_MSG_QUIT:
	case UHMM_MSG_OBJECT:
	case UHMM_MSG_TEXT:
	case UHMM_MSG_DONE:
		return 0;
	}
	return 0;
}

/* Another version may have another size, but begins with the same three words. */
static int check_version(const void *buf, size_t len, const char **ret_why)
{
	struct uhmm_msg_hello hello = { .version = 0 };

	if (len < offsetof(struct uhmm_msg_hello, role))
		return wire_bad(ret_why, "the message is shorter than its type says");
	memcpy(&hello, buf, offsetof(struct uhmm_msg_hello, role));
	if (hello.magic != UHMM_WIRE_MAGIC)
		return wire_bad(ret_why, "the magic number is wrong");
	if (hello.version == UHMM_WIRE_VERSION)
		return 0;
	*ret_why = "client and daemon speak different versions";
	return -EPROTONOSUPPORT;
}

static int check_hello(const struct uhmm_msg_hello *msg, size_t n_fds, const char **ret_why)
{
	bool has_token = !is_zero(msg->token, sizeof(msg->token));
	bool has_group = !is_zero(msg->group, sizeof(msg->group));

	if (msg->role < UHMM_ROLE_PROGRAM || msg->role > UHMM_ROLE_AGENT)
		return wire_bad(ret_why, "the role is unknown");
	if (msg->page_size != (uint32_t)sysconf(_SC_PAGESIZE))
		return wire_bad(ret_why, "the page size is not this machine's");
	if (has_token != (msg->role == UHMM_ROLE_CHILD || msg->role == UHMM_ROLE_AGENT))
		return wire_bad(ret_why, has_token ? "this role has no token"
						   : "the token is missing");
	if (msg->role == UHMM_ROLE_RUNNER && !has_group)
		return wire_bad(ret_why, "the group is missing");
	if ((msg->role == UHMM_ROLE_ADMIN || msg->role == UHMM_ROLE_AGENT) && has_group)
		return wire_bad(ret_why, "this role has no group");
	if (msg->role != UHMM_ROLE_RUNNER && msg->role != UHMM_ROLE_PROGRAM &&
	    msg->host_target_bytes != 0)
		return wire_bad(ret_why, "this role has no host target");
	if (msg->host_target_bytes != 0 && !has_group)
		return wire_bad(ret_why, "a host target without a group");
	if (msg->role == UHMM_ROLE_AGENT)
		return n_fds == 1 ? 0 : wire_bad(ret_why, "the userfaultfd is missing");
	if (n_fds != 0)
		return wire_bad(ret_why, "the message has descriptors that it should not have");
	return 0;
}

static int check_request_range(const struct uhmm_msg_request *msg, const char **ret_why)
{
	if (msg->bytes == 0)
		return wire_bad(ret_why, "the range is empty");
	if (msg->addr >= WIRE_ADDR_MAX || msg->bytes > WIRE_ADDR_MAX - msg->addr)
		return wire_bad(ret_why, "the range is beyond user addresses");
	return 0;
}

static int check_request(const struct uhmm_msg_request *msg, const char **ret_why)
{
	uint32_t flags = 0;
	int r = 0;

	switch ((enum uhmm_request)msg->request) {
	case UHMM_REQ_STATUS:
	case UHMM_REQ_REPORT:
	case UHMM_REQ_TIERS:
		break;
	case UHMM_REQ_AGENT_QUIT:
		flags = UHMM_REQ_FLAG_HOME;
		break;
	case UHMM_REQ_RESTORE:
		flags = UHMM_REQ_FLAG_HOLD | UHMM_REQ_FLAG_RELEASE;
		if ((msg->flags & flags) == flags)
			return wire_bad(ret_why, "to hold and to release exclude each other");
		__attribute__((fallthrough));
	case UHMM_REQ_EVICT:
	case UHMM_REQ_MAPS:
		if (msg->pid <= 0)
			return wire_bad(ret_why, "the pid is not positive");
		break;
	case UHMM_REQ_MIGRATE:
		flags = UHMM_REQ_FLAG_HOME;
		r = check_request_range(msg, ret_why);
		break;
	case UHMM_REQ_QUERY:
		r = check_request_range(msg, ret_why);
		break;
	default:
		return wire_bad(ret_why, "the request is unknown");
	}
	if (r == 0 && (msg->flags & ~flags) != 0)
		return wire_bad(ret_why, "a flag is unknown for this request");
	if (r == 0 && msg->reserved != 0)
		return wire_bad(ret_why, "a reserved field is not zero");
	return r;
}

static int check_child(const struct uhmm_msg_child *msg, size_t n_fds, const char **ret_why)
{
	bool has_token = !is_zero(msg->token, sizeof(msg->token));

	if (has_token == (n_fds == 1))
		return 0;
	return wire_bad(ret_why, has_token ? "the child's userfaultfd is missing"
					   : "a userfaultfd of no child");
}

/* How many descriptors may come with it; the body may say that it must have them. */
static size_t wire_fds_max(enum uhmm_msg_type type)
{
	return type == UHMM_MSG_REQUEST ? 0 : 1;
}

static int check_body(const void *buf, size_t n_fds, enum uhmm_msg_type type,
		      const char **ret_why)
{
	union {
		struct uhmm_msg_hello hello;
		struct uhmm_msg_enrol enrol;
		struct uhmm_msg_request request;
		struct uhmm_msg_child child;
	} msg;

	memcpy(&msg, buf, wire_size(type));
	if (type == UHMM_MSG_HELLO)
		return check_hello(&msg.hello, n_fds, ret_why);
	if (type == UHMM_MSG_CHILD)
		return check_child(&msg.child, n_fds, ret_why);
	if (type == UHMM_MSG_REQUEST)
		return check_request(&msg.request, ret_why);
	if (msg.enrol.agent_tid <= 0)
		return wire_bad(ret_why, "the agent's thread id is not positive");
	if (msg.enrol.reserved != 0)
		return wire_bad(ret_why, "a reserved field is not zero");
	return 0;
}

int wire_check(const void *buf, size_t len, size_t n_fds, enum uhmm_msg_type expected,
	       const char **ret_why)
{
	struct uhmm_msg head;
	int r = 0;

	if (len < sizeof(head))
		return wire_bad(ret_why, "the message is shorter than its header");
	if (len > UHMM_MSG_MAX)
		return wire_bad(ret_why, "the message is too long");
	memcpy(&head, buf, sizeof(head));
	if (head.len != len)
		return wire_bad(ret_why, "the message's length is not what it says");
	if (wire_size(expected) == 0 || head.type != (uint32_t)expected)
		return wire_bad(ret_why, "the message is of another type than expected");
	if (expected == UHMM_MSG_HELLO)
		r = check_version(buf, len, ret_why);
	if (r < 0)
		return r;
	if (len < wire_size(expected))
		return wire_bad(ret_why, "the message is shorter than its type says");
	if (len > wire_size(expected))
		return wire_bad(ret_why, "the message is longer than its type says");
	if (n_fds > wire_fds_max(expected))
		return wire_bad(ret_why, "the message has descriptors that it should not have");
	return check_body(buf, n_fds, expected, ret_why);
}

struct area {
	const char *misaligned, *outside; /* what to say */
	uint64_t addr, bytes, align;
};

static int check_area(const struct area *area, const char **ret_why)
{
	if (area->addr % area->align != 0)
		return wire_bad(ret_why, area->misaligned);
	if (area->addr == 0 || area->addr >= WIRE_ADDR_MAX ||
	    area->bytes > WIRE_ADDR_MAX - area->addr)
		return wire_bad(ret_why, area->outside);
	return 0;
}

/* Both lie within user addresses, so no end wraps. */
static bool areas_meet(const struct area *a, const struct area *b)
{
	return a->addr < b->addr + b->bytes && b->addr < a->addr + a->bytes;
}

static uint64_t round_up(uint64_t bytes, uint64_t to)
{
	return (bytes + to - 1) / to * to;
}

int wire_check_enrol(const struct uhmm_msg_enrol *msg, size_t n_fds,
		     const struct wire_terms *terms, const char **ret_why)
{
	const uint64_t page = terms->page_bytes;
	const struct area areas[] = {
		{ "staging is not aligned to 2 MiB", "staging is not at a user address",
		  msg->staging_addr, terms->staging_bytes, STAGING_ALIGN },
		{ "the private area is not page-aligned", "the private area is not at a user address",
		  msg->private_addr, msg->private_bytes, page },
		{ "the ring is not page-aligned", "the ring is not at a user address",
		  msg->ring_addr, round_up(terms->ring_bytes, page), page },
		{ "the beacon is not page-aligned", "the beacon is not at a user address",
		  msg->beacon_addr, page, page },
	};
	const size_t n_areas = sizeof(areas) / sizeof(areas[0]);
	size_t i, k;

	if (n_fds != (terms->role == UHMM_ROLE_PROGRAM ? 1u : 0u))
		return wire_bad(ret_why, terms->role == UHMM_ROLE_PROGRAM
						 ? "the userfaultfd is missing"
						 : "this role brings no userfaultfd");
	if (msg->private_bytes == 0 || msg->private_bytes % page != 0 ||
	    msg->private_bytes > PRIVATE_BYTES_MAX)
		return wire_bad(ret_why, "the private area's size is not sane");
	for (i = 0; i < n_areas; i++) {
		int r = check_area(&areas[i], ret_why);

		if (r < 0)
			return r;
		for (k = 0; k < i; k++) {
			if (areas_meet(&areas[i], &areas[k]))
				return wire_bad(ret_why, "two areas overlap");
		}
	}
	return 0;
}

/* Room for the descriptors of one message. What is told to the kernel is CMSG_LEN, not
 * CMSG_SPACE: it would fill the padding with one descriptor more. */
union wire_control {
	char bytes[CMSG_SPACE(UHMM_MSG_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

static void close_fds(const int *fds, size_t n)
{
	while (n > 0)
		(void)close(fds[--n]);
}

/* What does not fit `fds` cannot be here, and would not stay open if it were. */
static size_t take_fds(struct msghdr *msg, int *fds)
{
	struct cmsghdr *head;
	size_t n = 0, i;

	for (head = CMSG_FIRSTHDR(msg); head != NULL; head = CMSG_NXTHDR(msg, head)) {
		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		for (i = 0; i < (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(fd));
			if (n < UHMM_MSG_FDS_MAX)
				fds[n++] = fd;
			else
				(void)close(fd);
		}
	}
	return n;
}

int wire_recv(int sock, void *buf, size_t cap, size_t *ret_len, int *fds, size_t *ret_n_fds)
{
	union wire_control control;
	struct iovec iov = { .iov_base = buf, .iov_len = cap };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = CMSG_LEN(UHMM_MSG_FDS_MAX * sizeof(int)) };
	size_t n_fds;
	ssize_t len;

	do {
		len = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (len < 0 && errno == EINTR);
	if (len < 0)
		return -errno;
	n_fds = take_fds(&msg, fds);
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		close_fds(fds, n_fds);
		return (msg.msg_flags & MSG_TRUNC) != 0 ? -EMSGSIZE : -ETOOMANYREFS;
	}
	/* An empty packet looks like the end, and nobody looks for descriptors there. */
	if (len == 0) {
		close_fds(fds, n_fds);
		n_fds = 0;
	}
	*ret_len = (size_t)len;
	*ret_n_fds = n_fds;
	return 0;
}

int wire_send(int sock, const void *msg, size_t len, const int *fds, size_t n_fds, int flags)
{
	union wire_control control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = len };
	struct msghdr head = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	if (n_fds > UHMM_MSG_FDS_MAX)
		return -EINVAL;
	if (n_fds > 0) {
		memset(&control, 0, sizeof(control));
		head.msg_control = &control;
		head.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
	}
	do {
		sent = sendmsg(sock, &head, flags | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	return (size_t)sent == len ? 0 : -EIO;
}
