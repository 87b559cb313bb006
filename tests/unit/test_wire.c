/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"
#include "wire.h"

#define MIB (1ull << 20)

static struct uhmm_msg_hello hello(enum uhmm_role role)
{
	struct uhmm_msg_hello msg = {
		.h = { .type = UHMM_MSG_HELLO, .len = sizeof(msg) },
		.magic = UHMM_WIRE_MAGIC,
		.version = UHMM_WIRE_VERSION,
		.role = (uint32_t)role,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
	};

	if (role == UHMM_ROLE_CHILD || role == UHMM_ROLE_AGENT)
		msg.token[15] = 1;
	if (role == UHMM_ROLE_RUNNER)
		msg.group[0] = 1;
	return msg;
}

static struct uhmm_msg_enrol enrol(void)
{
	return (struct uhmm_msg_enrol){
		.h = { .type = UHMM_MSG_ENROL, .len = sizeof(struct uhmm_msg_enrol) },
		.staging_addr = 0x7f0000000000,
		.private_addr = 0x7f0010000000,
		.private_bytes = MIB,
		.ring_addr = 0x7f0020000000,
		.beacon_addr = 0x7f0030000000,
		.agent_tid = 77,
	};
}

static struct uhmm_msg_request request(enum uhmm_request what)
{
	return (struct uhmm_msg_request){
		.h = { .type = UHMM_MSG_REQUEST, .len = sizeof(struct uhmm_msg_request) },
		.request = (uint32_t)what,
		.pid = 1,
		.addr = 0x1000,
		.bytes = 4096,
	};
}

static struct uhmm_msg_child child(void)
{
	return (struct uhmm_msg_child){
		.h = { .type = UHMM_MSG_CHILD, .len = sizeof(struct uhmm_msg_child) },
		.token = { 1 },
	};
}

static struct wire_terms terms(enum uhmm_role role)
{
	return (struct wire_terms){
		.role = role,
		.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
		.ring_bytes = sizeof(struct uhmm_ring),
		.staging_bytes = 4 * MIB,
	};
}

/* A good message with one change, and what must be said of it. */
#define WRONG_HELLO(role, change, ...)                                        \
	do {                                                                  \
		struct uhmm_msg_hello msg = hello(role);                      \
		size_t n_fds = (role) == UHMM_ROLE_AGENT ? 1 : 0;             \
		change;                                                       \
		expect_wrong(&msg, msg.h.len, UHMM_MSG_HELLO, n_fds, __VA_ARGS__); \
	} while (0)
#define WRONG_REQUEST(what, change, ...)                                         \
	do {                                                                     \
		struct uhmm_msg_request msg = request(what);                     \
		change;                                                          \
		expect_wrong(&msg, msg.h.len, UHMM_MSG_REQUEST, 0, __VA_ARGS__); \
	} while (0)
#define WRONG_ENROL(role, n_fds, change, expected)                                           \
	do {                                                                                 \
		struct wire_terms t = terms(role);                                           \
		struct uhmm_msg_enrol msg = enrol();                                         \
		const char *why = "";                                                        \
		change;                                                                      \
		ck_assert_int_eq(wire_check(&msg, sizeof(msg), n_fds, UHMM_MSG_ENROL, &why), 0); \
		ck_assert_int_eq(wire_check_enrol(&msg, n_fds, &t, &why), -EPROTO);          \
		ck_assert_str_eq(why, expected);                                             \
	} while (0)

static void expect_wrong(const void *msg, size_t len, enum uhmm_msg_type type, size_t n_fds,
			 int error, const char *expected)
{
	const char *why = "nothing";
	char *copy = malloc(len);

	/* A copy of exactly this size, so that a read beyond it is seen. */
	memcpy(copy, msg, len);
	ck_assert_int_eq(wire_check(copy, len, n_fds, type, &why), error);
	ck_assert_str_eq(why, expected);
	free(copy);
}

static void expect_right(const void *msg, size_t len, enum uhmm_msg_type type, size_t n_fds)
{
	const char *why = "nothing";

	ck_assert_msg(wire_check(msg, len, n_fds, type, &why) == 0, "%s", why);
}

START_TEST(good_messages_pass)
{
	for (int role = UHMM_ROLE_PROGRAM; role <= UHMM_ROLE_AGENT; role++) {
		struct uhmm_msg_hello msg = hello((enum uhmm_role)role);

		expect_right(&msg, sizeof(msg), UHMM_MSG_HELLO, role == UHMM_ROLE_AGENT);
	}
	for (int what = UHMM_REQ_STATUS; what <= UHMM_REQ_MAPS; what++) {
		struct uhmm_msg_request msg = request((enum uhmm_request)what);

		expect_right(&msg, sizeof(msg), UHMM_MSG_REQUEST, 0);
	}
	struct uhmm_msg_enrol msg = enrol();
	struct wire_terms t = terms(UHMM_ROLE_PROGRAM);
	const char *why;

	expect_right(&msg, sizeof(msg), UHMM_MSG_ENROL, 1);
	ck_assert_int_eq(wire_check_enrol(&msg, 1, &t, &why), 0);
	t = terms(UHMM_ROLE_CHILD);
	ck_assert_int_eq(wire_check_enrol(&msg, 0, &t, &why), 0);
	t = terms(UHMM_ROLE_AGENT);
	ck_assert_int_eq(wire_check_enrol(&msg, 0, &t, &why), 0);
}
END_TEST

START_TEST(an_agent_shows_its_children_and_an_end_of_them)
{
	struct uhmm_msg_child msg = child();

	expect_right(&msg, sizeof(msg), UHMM_MSG_CHILD, 1);
	memset(msg.token, 0, sizeof(msg.token));
	expect_right(&msg, sizeof(msg), UHMM_MSG_CHILD, 0);
}
END_TEST

START_TEST(the_frame_must_fit)
{
	struct uhmm_msg_hello msg = hello(UHMM_ROLE_PROGRAM);
	char big[UHMM_MSG_MAX + 1] = "";

	expect_wrong(&msg, 0, UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message is shorter than its header");
	expect_wrong(&msg, 7, UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message is shorter than its header");
	expect_wrong(big, sizeof(big), UHMM_MSG_HELLO, 0, -EPROTO, "the message is too long");
	expect_wrong(&msg, sizeof(msg) - 1, UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message's length is not what it says");
	msg.h.len = sizeof(msg) + 1;
	expect_wrong(&msg, sizeof(msg), UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message's length is not what it says");
	msg.h.len = sizeof(msg) - 1;
	expect_wrong(&msg, sizeof(msg) - 1, UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message is shorter than its type says");
	msg.h.len = 12;
	expect_wrong(&msg, 12, UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message is shorter than its type says");
	memcpy(big, &msg, sizeof(msg));
	((struct uhmm_msg *)big)->len = sizeof(msg) + 8;
	expect_wrong(big, sizeof(msg) + 8, UHMM_MSG_HELLO, 0, -EPROTO,
		     "the message is longer than its type says");
}
END_TEST

START_TEST(only_the_expected_type_passes)
{
	struct uhmm_msg_request msg = request(UHMM_REQ_STATUS);
	struct uhmm_msg bell = { .type = UHMM_MSG_DOORBELL, .len = sizeof(bell) };
	const char *why = "the message is of another type than expected";

	expect_wrong(&msg, sizeof(msg), UHMM_MSG_HELLO, 0, -EPROTO, why);
	expect_wrong(&bell, sizeof(bell), UHMM_MSG_DOORBELL, 0, -EPROTO, why);
	msg.h.type = 0;
	expect_wrong(&msg, sizeof(msg), (enum uhmm_msg_type)0, 0, -EPROTO, why);
	msg.h.type = UINT32_MAX;
	expect_wrong(&msg, sizeof(msg), UHMM_MSG_REQUEST, 0, -EPROTO, why);
}
END_TEST

START_TEST(descriptors_come_only_where_they_must)
{
	struct uhmm_msg_hello a = hello(UHMM_ROLE_PROGRAM);
	struct uhmm_msg_request b = request(UHMM_REQ_STATUS);
	struct uhmm_msg_enrol c = enrol();
	struct uhmm_msg_hello d = hello(UHMM_ROLE_AGENT);
	struct uhmm_msg_child e = child();
	const char *why = "the message has descriptors that it should not have";

	expect_wrong(&a, sizeof(a), UHMM_MSG_HELLO, 1, -EPROTO, why);
	expect_wrong(&b, sizeof(b), UHMM_MSG_REQUEST, 1, -EPROTO, why);
	expect_wrong(&c, sizeof(c), UHMM_MSG_ENROL, 2, -EPROTO, why);
	expect_wrong(&d, sizeof(d), UHMM_MSG_HELLO, 2, -EPROTO, why);
	expect_wrong(&e, sizeof(e), UHMM_MSG_CHILD, 2, -EPROTO, why);
	expect_wrong(&d, sizeof(d), UHMM_MSG_HELLO, 0, -EPROTO, "the userfaultfd is missing");
	expect_wrong(&e, sizeof(e), UHMM_MSG_CHILD, 0, -EPROTO,
		     "the child's userfaultfd is missing");
	memset(e.token, 0, sizeof(e.token));
	expect_wrong(&e, sizeof(e), UHMM_MSG_CHILD, 1, -EPROTO, "a userfaultfd of no child");
	expect_wrong(&e, sizeof(e) - 1, UHMM_MSG_CHILD, 0, -EPROTO,
		     "the message's length is not what it says");
	e.h.len = sizeof(e) - 1;
	expect_wrong(&e, sizeof(e) - 1, UHMM_MSG_CHILD, 0, -EPROTO,
		     "the message is shorter than its type says");
}
END_TEST

START_TEST(a_wrong_hello_is_refused_with_its_reason)
{
	WRONG_HELLO(UHMM_ROLE_PROGRAM, msg.magic++, -EPROTO, "the magic number is wrong");
	WRONG_HELLO(UHMM_ROLE_PROGRAM, msg.role = 0, -EPROTO, "the role is unknown");
	WRONG_HELLO(UHMM_ROLE_PROGRAM, msg.role = 6, -EPROTO, "the role is unknown");
	WRONG_HELLO(UHMM_ROLE_PROGRAM, msg.page_size = 0, -EPROTO,
		    "the page size is not this machine's");
	WRONG_HELLO(UHMM_ROLE_PROGRAM, msg.token[3] = 1, -EPROTO, "this role has no token");
	WRONG_HELLO(UHMM_ROLE_CHILD, msg.token[15] = 0, -EPROTO, "the token is missing");
	WRONG_HELLO(UHMM_ROLE_AGENT, msg.token[15] = 0, -EPROTO, "the token is missing");
	WRONG_HELLO(UHMM_ROLE_AGENT, msg.group[0] = 1, -EPROTO, "this role has no group");
	WRONG_HELLO(UHMM_ROLE_AGENT, msg.host_target_bytes = 1, -EPROTO,
		    "this role has no host target");
	WRONG_HELLO(UHMM_ROLE_RUNNER, msg.group[0] = 0, -EPROTO, "the group is missing");
	WRONG_HELLO(UHMM_ROLE_ADMIN, msg.group[0] = 1, -EPROTO, "this role has no group");
	WRONG_HELLO(UHMM_ROLE_CHILD, msg.host_target_bytes = 1, -EPROTO,
		    "this role has no host target");
	WRONG_HELLO(UHMM_ROLE_ADMIN, msg.host_target_bytes = 1, -EPROTO,
		    "this role has no host target");
	WRONG_HELLO(UHMM_ROLE_PROGRAM,
		    (memset(msg.group, 0, sizeof(msg.group)), msg.host_target_bytes = 1), -EPROTO,
		    "a host target without a group");
}
END_TEST

START_TEST(another_version_is_known_by_its_first_words)
{
	struct uhmm_msg_hello msg = hello(UHMM_ROLE_PROGRAM);
	const char *why = "client and daemon speak different versions";

	msg.version++;
	expect_wrong(&msg, sizeof(msg), UHMM_MSG_HELLO, 0, -EPROTONOSUPPORT, why);
	msg.h.len = 16;
	expect_wrong(&msg, 16, UHMM_MSG_HELLO, 0, -EPROTONOSUPPORT, why);
}
END_TEST

START_TEST(a_wrong_request_is_refused_with_its_reason)
{
	const char *beyond = "the range is beyond user addresses";
	const char *flag = "a flag is unknown for this request";

	WRONG_REQUEST(UHMM_REQ_STATUS, msg.request = 0, -EPROTO, "the request is unknown");
	WRONG_REQUEST(UHMM_REQ_STATUS, msg.request = UHMM_REQ_MAPS + 1, -EPROTO,
		      "the request is unknown");
	WRONG_REQUEST(UHMM_REQ_EVICT, msg.pid = 0, -EPROTO, "the pid is not positive");
	WRONG_REQUEST(UHMM_REQ_RESTORE, msg.pid = -1, -EPROTO, "the pid is not positive");
	WRONG_REQUEST(UHMM_REQ_RESTORE, msg.flags = UHMM_REQ_FLAG_HOLD | UHMM_REQ_FLAG_RELEASE,
		      -EPROTO, "to hold and to release exclude each other");
	WRONG_REQUEST(UHMM_REQ_EVICT, msg.flags = UHMM_REQ_FLAG_RELEASE, -EPROTO, flag);
	WRONG_REQUEST(UHMM_REQ_MAPS, msg.pid = 0, -EPROTO, "the pid is not positive");
	WRONG_REQUEST(UHMM_REQ_MAPS, msg.flags = UHMM_REQ_FLAG_HOLD, -EPROTO, flag);
	WRONG_REQUEST(UHMM_REQ_QUERY, msg.bytes = 0, -EPROTO, "the range is empty");
	WRONG_REQUEST(UHMM_REQ_QUERY, msg.bytes = UINT64_MAX, -EPROTO, beyond);
	WRONG_REQUEST(UHMM_REQ_MIGRATE, msg.addr = UINT64_MAX - 4095, -EPROTO, beyond);
	WRONG_REQUEST(UHMM_REQ_MIGRATE, msg.addr = WIRE_ADDR_MAX - 4095, -EPROTO, beyond);
	WRONG_REQUEST(UHMM_REQ_STATUS, msg.flags = 1, -EPROTO, flag);
	WRONG_REQUEST(UHMM_REQ_RESTORE, msg.flags = UHMM_REQ_FLAG_HOME, -EPROTO, flag);
	WRONG_REQUEST(UHMM_REQ_MIGRATE, msg.flags = UHMM_REQ_FLAG_HOLD, -EPROTO, flag);
	WRONG_REQUEST(UHMM_REQ_STATUS, msg.reserved = 1, -EPROTO, "a reserved field is not zero");
}
END_TEST

START_TEST(a_wrong_enrol_is_refused_with_its_reason)
{
	struct uhmm_msg_enrol bad = enrol();

	bad.agent_tid = 0;
	expect_wrong(&bad, sizeof(bad), UHMM_MSG_ENROL, 1, -EPROTO,
		     "the agent's thread id is not positive");
	bad = enrol();
	bad.reserved = 1;
	expect_wrong(&bad, sizeof(bad), UHMM_MSG_ENROL, 1, -EPROTO,
		     "a reserved field is not zero");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 0, (void)0, "the userfaultfd is missing");
	WRONG_ENROL(UHMM_ROLE_CHILD, 1, (void)0, "this role brings no userfaultfd");
	WRONG_ENROL(UHMM_ROLE_AGENT, 1, (void)0, "this role brings no userfaultfd");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.staging_addr += MIB,
		    "staging is not aligned to 2 MiB");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.staging_addr = 0,
		    "staging is not at a user address");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.staging_addr = WIRE_ADDR_MAX - 2 * MIB,
		    "staging is not at a user address");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.staging_addr = 0xffff800000000000,
		    "staging is not at a user address");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.private_addr++,
		    "the private area is not page-aligned");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.private_addr = UINT64_MAX & ~0xfffull,
		    "the private area is not at a user address");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.private_bytes = 0,
		    "the private area's size is not sane");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.private_bytes = UINT64_MAX & ~0xfffull,
		    "the private area's size is not sane");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.private_bytes++,
		    "the private area's size is not sane");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.ring_addr += 8, "the ring is not page-aligned");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.ring_addr = 0, "the ring is not at a user address");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.beacon_addr += 8,
		    "the beacon is not page-aligned");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.beacon_addr = WIRE_ADDR_MAX,
		    "the beacon is not at a user address");
}
END_TEST

START_TEST(areas_must_be_apart)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.beacon_addr = msg.staging_addr + 4 * MIB - page,
		    "two areas overlap");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.beacon_addr = msg.private_addr,
		    "two areas overlap");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.ring_addr = msg.private_addr - page,
		    "two areas overlap");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.beacon_addr = msg.ring_addr, "two areas overlap");
	WRONG_ENROL(UHMM_ROLE_PROGRAM, 1, msg.private_addr = msg.staging_addr + MIB,
		    "two areas overlap");
	struct uhmm_msg_enrol touching = enrol();
	struct wire_terms t = terms(UHMM_ROLE_PROGRAM);
	const char *why = "nothing";

	touching.beacon_addr = touching.staging_addr - page;
	touching.private_addr = touching.staging_addr + 4 * MIB;
	ck_assert_msg(wire_check_enrol(&touching, 1, &t, &why) == 0, "%s", why);
}
END_TEST

START_TEST(random_bytes_never_pass_by_accident)
{
	static const enum uhmm_msg_type types[] = { UHMM_MSG_HELLO, UHMM_MSG_ENROL,
						    UHMM_MSG_REQUEST, UHMM_MSG_CHILD };
	uint64_t seed = fixture_seed();

	for (int i = 0; i < 200000; i++) {
		enum uhmm_msg_type type = types[fixture_random(&seed) % 4];
		size_t len = fixture_random(&seed) % 128, k;
		const char *why = NULL;
		unsigned char *buf = malloc(len + 1);
		int r;

		for (k = 0; k < len; k++)
			buf[k] = (unsigned char)fixture_random(&seed);
		if (len >= sizeof(struct uhmm_msg) && i % 4 != 0)
			memcpy(buf, &(struct uhmm_msg){ (uint32_t)type, (uint32_t)len },
			       sizeof(struct uhmm_msg));
		r = wire_check(buf, len, 0, type, &why);
		/* Only a REQUEST that happens to be sound may pass, and an ENROL's checks are
		 * not over here. */
		fixture_must(r == 0 || why != NULL, "no reason");
		fixture_must(r < 0 || len == sizeof(struct uhmm_msg_request) ||
				     len == sizeof(struct uhmm_msg_enrol), "length %zu", len);
		free(buf);
	}
}
END_TEST

/* --- packets and descriptors ------------------------------------------------------- */

static int pair[2];

static void setup_pair(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* Send n descriptors, however many, as a client that does not use wire_send would. */
static void send_fds(size_t n, size_t len)
{
	union {
		char bytes[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control = { .align = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { .iov_base = (char[]){ "hello" }, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = CMSG_SPACE(n * sizeof(int)) };

	control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
	for (size_t i = 0; i < n; i++)
		((int *)CMSG_DATA(&control.align))[i] = STDERR_FILENO;
	ck_assert_int_eq(sendmsg(pair[0], &msg, 0), (ssize_t)len);
}

START_TEST(a_packet_arrives_with_its_descriptors)
{
	int fds[UHMM_MSG_FDS_MAX], sent[3] = { 2, 2, 2 };
	size_t len, n_fds;
	char buf[100];

	ck_assert_int_eq(wire_send(pair[0], "hello", 6, sent, 3, 0), 0);
	ck_assert_int_eq(wire_recv(pair[1], buf, sizeof(buf), &len, fds, &n_fds), 0);
	ck_assert_uint_eq(len, 6);
	ck_assert_str_eq(buf, "hello");
	ck_assert_uint_eq(n_fds, 3);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
}
END_TEST

START_TEST(too_many_descriptors_leave_none_open)
{
	int fds[UHMM_MSG_FDS_MAX], before = count_fds();
	size_t len, n_fds;
	char buf[100];

	for (size_t n = UHMM_MSG_FDS_MAX + 1; n <= 16; n++) {
		send_fds(n, 5);
		ck_assert_int_eq(wire_recv(pair[1], buf, sizeof(buf), &len, fds, &n_fds),
				 -ETOOMANYREFS);
		ck_assert_int_eq(count_fds(), before);
	}
}
END_TEST

START_TEST(a_packet_too_long_leaves_no_descriptor_open)
{
	int fds[UHMM_MSG_FDS_MAX], before = count_fds();
	size_t len, n_fds;
	char buf[4];

	send_fds(2, 5);
	ck_assert_int_eq(wire_recv(pair[1], buf, sizeof(buf), &len, fds, &n_fds), -EMSGSIZE);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(an_empty_packet_leaves_no_descriptor_open)
{
	int fds[UHMM_MSG_FDS_MAX], before = count_fds();
	size_t len = 9, n_fds = 9;
	char buf[100];

	send_fds(2, 0);
	ck_assert_int_eq(wire_recv(pair[1], buf, sizeof(buf), &len, fds, &n_fds), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert_uint_eq(n_fds, 0);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(the_end_is_an_empty_packet)
{
	int fds[UHMM_MSG_FDS_MAX];
	size_t len = 9, n_fds = 9;
	char buf[4];

	ck_assert_int_eq(wire_recv(pair[1], buf, sizeof(buf), &len, fds, &n_fds), -EAGAIN);
	close(pair[0]);
	ck_assert_int_eq(wire_recv(pair[1], buf, sizeof(buf), &len, fds, &n_fds), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert_uint_eq(n_fds, 0);
	ck_assert_int_eq(wire_send(pair[1], "x", 1, NULL, 0, 0), -EPIPE);
}
END_TEST

START_TEST(a_client_that_does_not_read_stops_nobody)
{
	char buf[1000] = "";
	int r = 0;

	for (int i = 0; i < 100000 && r == 0; i++)
		r = wire_send(pair[0], buf, sizeof(buf), NULL, 0, MSG_DONTWAIT);
	ck_assert_int_eq(r, -EAGAIN);
	ck_assert_int_eq(wire_send(pair[0], buf, 1, (int[9]){ 0 }, 4, 0), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wire");
	TCase *checks = tcase_create("checks"), *packets = tcase_create("packets");

	tcase_add_test(checks, good_messages_pass);
	tcase_add_test(checks, an_agent_shows_its_children_and_an_end_of_them);
	tcase_add_test(checks, the_frame_must_fit);
	tcase_add_test(checks, only_the_expected_type_passes);
	tcase_add_test(checks, descriptors_come_only_where_they_must);
	tcase_add_test(checks, a_wrong_hello_is_refused_with_its_reason);
	tcase_add_test(checks, another_version_is_known_by_its_first_words);
	tcase_add_test(checks, a_wrong_request_is_refused_with_its_reason);
	tcase_add_test(checks, a_wrong_enrol_is_refused_with_its_reason);
	tcase_add_test(checks, areas_must_be_apart);
	tcase_add_test(checks, random_bytes_never_pass_by_accident);
	suite_add_tcase(suite, checks);
	tcase_add_checked_fixture(packets, setup_pair, NULL);
	tcase_add_test(packets, a_packet_arrives_with_its_descriptors);
	tcase_add_test(packets, too_many_descriptors_leave_none_open);
	tcase_add_test(packets, a_packet_too_long_leaves_no_descriptor_open);
	tcase_add_test(packets, an_empty_packet_leaves_no_descriptor_open);
	tcase_add_test(packets, the_end_is_an_empty_packet);
	tcase_add_test(packets, a_client_that_does_not_read_stops_nobody);
	suite_add_tcase(suite, packets);
	return fixture_main(suite);
}
