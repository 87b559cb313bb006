/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clients that speak rubbish. `bad_clients SOCKET CASE` plays one of them and prints what
 * the daemon did; `bad_clients list` names them all. Status 0: the daemon dropped this
 * client (or, where the case says so, answered with an error) within ten seconds. Whether
 * it named the reason in its log is checked by survives_bad_clients, which runs this.
 */
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "prog.h"
#include "uhmm/wire.h"

#define TIMEOUT_MS 10000

static int sock;

struct packet {
	union {
		struct uhmm_msg h;
		struct uhmm_msg_welcome welcome;
		struct uhmm_msg_refuse refuse;
		struct uhmm_msg_done done;
		char bytes[UHMM_MSG_MAX];
	};
	int fds[UHMM_MSG_FDS_MAX];
	unsigned int n_fds;
};

static int socket_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK(strlen(path) < sizeof(addr.sun_path));
	strcpy(addr.sun_path, path);
	CHECK(connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	return fd;
}

static void send_packet(const void *packet, size_t len, const int *fds, unsigned int n_fds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)packet, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *cmsg;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	CHECK(sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)len);
}

/* 0: the daemon closed the connection. Fails when it says nothing in time. */
static size_t recv_packet(struct packet *packet)
{
	char control[CMSG_SPACE(UHMM_MSG_FDS_MAX * sizeof(int))];
	struct iovec iov = { packet->bytes, sizeof(packet->bytes) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct pollfd pollfd = { .fd = sock, .events = POLLIN };
	struct cmsghdr *cmsg;
	ssize_t n;

	if (poll(&pollfd, 1, TIMEOUT_MS) != 1)
		prog_fail("the daemon neither answers nor closes the connection");
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	packet->n_fds = 0;
	if (n <= 0)
		return 0;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
		packet->n_fds = (unsigned int)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(packet->fds, CMSG_DATA(cmsg), packet->n_fds * sizeof(int));
	}
	return (size_t)n;
}

/* A REFUSE at most, and then the end of the connection. */
static void expect_drop(void)
{
	struct packet packet;
	size_t n = recv_packet(&packet);

	if (n && packet.h.type == UHMM_MSG_REFUSE) {
		CHECK(n == sizeof(packet.refuse));
		CHECK(memchr(packet.refuse.text, 0, sizeof(packet.refuse.text)));
		CHECK(packet.refuse.text[0]);
		printf("refused (%s): %s\n", uhmm_reason_name(packet.refuse.reason),
		       packet.refuse.text);
		n = recv_packet(&packet);
	}
	if (n)
		prog_fail("the daemon answered with type %u", packet.h.type);
	printf("dropped\n");
}

static struct uhmm_msg_hello hello_of(enum uhmm_role role)
{
	return (struct uhmm_msg_hello){
		.h = { UHMM_MSG_HELLO, sizeof(struct uhmm_msg_hello) },
		.magic = UHMM_WIRE_MAGIC,
		.version = UHMM_WIRE_VERSION,
		.role = role,
		.page_size = (uint32_t)page_bytes(),
	};
}

static void say_hello(enum uhmm_role role)
{
	struct uhmm_msg_hello hello = hello_of(role);

	send_packet(&hello, sizeof(hello), NULL, 0);
}

static void bad_hello(struct uhmm_msg_hello hello, size_t len)
{
	send_packet(&hello, len, NULL, 0);
	expect_drop();
}

/* ---- before enrolment ------------------------------------------------------------------ */

static void short_header(void)
{
	send_packet("abc", 3, NULL, 0);
	expect_drop();
}

static void short_hello(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);

	hello.h.len = sizeof(hello) - 4;
	bad_hello(hello, sizeof(hello) - 4);
}

static void wrong_length(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_ADMIN);

	hello.h.len = 4096;
	bad_hello(hello, sizeof(hello));
}

static void oversized(void)
{
	static char big[UHMM_MSG_MAX + 4096];
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);

	hello.h.len = sizeof(big);
	memcpy(big, &hello, sizeof(hello));
	send_packet(big, sizeof(big), NULL, 0);
	expect_drop();
}

static void wrong_magic(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);

	hello.magic ^= 1;
	bad_hello(hello, sizeof(hello));
}

static void wrong_version(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);

	hello.version += 1;
	bad_hello(hello, sizeof(hello));
}

static void wrong_page_size(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);

	hello.page_size = 12345;
	bad_hello(hello, sizeof(hello));
}

static void unknown_role(void)
{
	bad_hello(hello_of((enum uhmm_role)77), sizeof(struct uhmm_msg_hello));
}

static void unknown_type(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);

	hello.h.type = 12345;
	bad_hello(hello, sizeof(hello));
}

static void unknown_token(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_CHILD);

	memset(hello.token, 0x5a, sizeof(hello.token));
	bad_hello(hello, sizeof(hello));
}

static void hello_with_fds(void)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_PROGRAM);
	const int fds[16] = { 0 };

	send_packet(&hello, sizeof(hello), fds, 16);
	expect_drop();
}

static void enrol_first(void)
{
	struct uhmm_msg_enrol enrol = { .h = { UHMM_MSG_ENROL, sizeof(enrol) } };

	send_packet(&enrol, sizeof(enrol), NULL, 0);
	expect_drop();
}

static void second_hello(void)
{
	say_hello(UHMM_ROLE_ADMIN);
	say_hello(UHMM_ROLE_ADMIN);
	expect_drop();
}

/* ---- enrolment ---------------------------------------------------------------------------- */

/* What an honest client would send; each case spoils one thing. */
struct offer {
	struct uhmm_msg_enrol enrol;
	uint8_t token[UHMM_TOKEN_BYTES];
	int uffd;
	size_t staging_bytes;
};

static void welcome(struct packet *packet)
{
	say_hello(UHMM_ROLE_PROGRAM);
	if (!recv_packet(packet) || packet->h.type != UHMM_MSG_WELCOME || packet->n_fds != 3)
		prog_fail("no welcome for an honest HELLO");
}

static struct offer offer_make(void)
{
	struct packet packet;
	struct offer offer = { .enrol.h = { UHMM_MSG_ENROL, sizeof(offer.enrol) } };
	size_t align = 2 * MIB, page = page_bytes();
	uintptr_t staging;

	welcome(&packet);
	memcpy(offer.token, packet.welcome.token, sizeof(offer.token));
	offer.uffd = ioctl(packet.fds[0], USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	CHECK(offer.uffd >= 0);
	offer.staging_bytes = (size_t)packet.welcome.staging_chunk_bytes *
			      packet.welcome.n_staging_chunks;
	staging = (uintptr_t)map_private(offer.staging_bytes + align);
	offer.enrol.staging_addr = (staging + align - 1) & ~(uint64_t)(align - 1);
	offer.enrol.private_bytes = 64 * 1024;
	offer.enrol.private_addr = (uintptr_t)map_private(offer.enrol.private_bytes);
	offer.enrol.beacon_addr = (uintptr_t)map_private(page);
	*(uint32_t *)(uintptr_t)offer.enrol.beacon_addr = UHMM_BEACON_HERE;
	offer.enrol.ring_addr = (uintptr_t)mmap(NULL, packet.welcome.ring_bytes,
						PROT_READ | PROT_WRITE, MAP_SHARED, packet.fds[1],
						0);
	CHECK(offer.enrol.ring_addr != (uintptr_t)MAP_FAILED);
	madvise((void *)(uintptr_t)offer.enrol.staging_addr, offer.staging_bytes, MADV_DONTFORK);
	madvise((void *)(uintptr_t)offer.enrol.private_addr, offer.enrol.private_bytes,
		MADV_DONTFORK);
	offer.enrol.agent_tid = gettid();
	return offer;
}

static void offer_send(const struct offer *offer)
{
	send_packet(&offer->enrol, sizeof(offer->enrol), &offer->uffd, 1);
}

static void enrol_without_fd(void)
{
	struct offer offer = offer_make();

	send_packet(&offer.enrol, sizeof(offer.enrol), NULL, 0);
	expect_drop();
}

static void enrol_two_fds(void)
{
	struct offer offer = offer_make();
	const int fds[2] = { offer.uffd, offer.uffd };

	send_packet(&offer.enrol, sizeof(offer.enrol), fds, 2);
	expect_drop();
}

static void enrol_dev_null(void)
{
	struct offer offer = offer_make();

	offer.uffd = open("/dev/null", O_RDWR | O_CLOEXEC);
	offer_send(&offer);
	expect_drop();
}

/* A userfaultfd, but of another process: what it moved would be that one's memory. */
static void enrol_foreign_uffd(void)
{
	struct offer offer = offer_make();
	int pair[2], device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	char control[CMSG_SPACE(sizeof(int))], byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	pid_t pid;

	CHECK(device >= 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	pid = fork();
	if (pid == 0) {
		int theirs = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);

		sock = pair[1];
		send_packet("", 1, &theirs, 1);
		pause();
	}
	CHECK(pid > 0);
	CHECK(recvmsg(pair[0], &msg, MSG_CMSG_CLOEXEC) == 1);
	memcpy(&offer.uffd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	offer_send(&offer);
	expect_drop();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* One that has had its UFFDIO_API already: its features are not the daemon's. */
static void enrol_used_uffd(void)
{
	struct offer offer = offer_make();
	struct uffdio_api api = { .api = UFFD_API };

	CHECK(ioctl(offer.uffd, UFFDIO_API, &api) == 0);
	offer_send(&offer);
	expect_drop();
}

static void enrol_unaligned(void)
{
	struct offer offer = offer_make();

	offer.enrol.staging_addr += 8;
	offer_send(&offer);
	expect_drop();
}

static void enrol_overlapping(void)
{
	struct offer offer = offer_make();

	offer.enrol.private_addr = offer.enrol.staging_addr + page_bytes();
	offer_send(&offer);
	expect_drop();
}

static void enrol_unmapped(void)
{
	struct offer offer = offer_make();

	CHECK(munmap((void *)(uintptr_t)offer.enrol.staging_addr, offer.staging_bytes) == 0);
	offer_send(&offer);
	expect_drop();
}

static void enrol_wrapping(void)
{
	struct offer offer = offer_make();

	offer.enrol.private_bytes = ~(uint64_t)0 & ~(uint64_t)(page_bytes() - 1);
	offer_send(&offer);
	expect_drop();
}

static void enrol_twice(void)
{
	struct offer offer = offer_make();
	struct packet packet;

	offer_send(&offer);
	if (!recv_packet(&packet) || packet.h.type != UHMM_MSG_READY)
		prog_fail("an honest ENROL was not accepted");
	offer_send(&offer);
	expect_drop();
}

/* ---- requests ------------------------------------------------------------------------------ */

static struct uhmm_msg_request request_of(uint32_t what)
{
	return (struct uhmm_msg_request){
		.h = { UHMM_MSG_REQUEST, sizeof(struct uhmm_msg_request) },
		.request = what,
	};
}

static void expect_error(struct uhmm_msg_request request)
{
	struct packet packet;

	say_hello(UHMM_ROLE_ADMIN);
	send_packet(&request, sizeof(request), NULL, 0);
	if (!recv_packet(&packet)) {
		printf("dropped\n");
		return;
	}
	CHECK(packet.h.type == UHMM_MSG_DONE);
	CHECK(packet.done.error < 0);
	printf("error: %s: %s\n", strerror(-packet.done.error), packet.done.text);
}

static void unknown_request(void)
{
	expect_error(request_of(4711));
}

static void evict_nobody(void)
{
	struct uhmm_msg_request request = request_of(UHMM_REQ_EVICT);

	request.pid = 0x7ffffff0;
	expect_error(request);
}

static void migrate_nothing(void)
{
	struct uhmm_msg_request request = request_of(UHMM_REQ_MIGRATE);

	request.addr = ~(uint64_t)0 - 4095;
	request.bytes = ~(uint64_t)0;
	expect_error(request);
}

static void query_everything(void)
{
	struct uhmm_msg_request request = request_of(UHMM_REQ_QUERY);

	request.bytes = (uint64_t)1 << 47;
	expect_error(request);
}

/* Asks and asks and never reads an answer. */
static void stops_reading(void)
{
	struct uhmm_msg_request request = request_of(UHMM_REQ_STATUS);
	struct pollfd pollfd = { .fd = sock, .events = 0 };
	double end = now_sec() + 10;

	say_hello(UHMM_ROLE_ADMIN);
	while (now_sec() < end) {
		if (send(sock, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
		    errno != EAGAIN)
			break;
		if (poll(&pollfd, 1, 1) == 1 && pollfd.revents & POLLHUP)
			break;
	}
	/* Dropped, or held back by its own full socket: both leave the daemon alone. */
	printf("dropped or held back\n");
}

/* Becomes managed, and goes on as a client that asks. */
static void enrol_and_ask(struct offer *offer)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	struct packet packet;

	offer_send(offer);
	CHECK(recv_packet(&packet) && packet.h.type == UHMM_MSG_READY);
	CHECK(getpeername(sock, (struct sockaddr *)&addr, &len) == 0);
	sock = socket_connect(addr.sun_path);
	say_hello(UHMM_ROLE_ADMIN);
}

/* Asks for more than its worker can answer: each question holds 16 MiB of the daemon's. */
static void asks_too_much(void)
{
	struct uhmm_msg_request request = request_of(UHMM_REQ_QUERY);
	struct offer offer = offer_make();
	struct packet packet;

	enrol_and_ask(&offer);
	request.addr = (uint64_t)1 << 40;
	request.bytes = ((uint64_t)16 << 20) * page_bytes();
	for (unsigned int i = 0; i < 100; i++)
		send_packet(&request, sizeof(request), NULL, 0);
	do {
		if (!recv_packet(&packet))
			prog_fail("hung up, and no question was refused");
	} while (packet.h.type != UHMM_MSG_DONE || packet.done.error == 0);
	CHECK(packet.done.error == -EAGAIN);
}

static void restore_me(void)
{
	struct uhmm_msg_request request = request_of(UHMM_REQ_RESTORE);
	struct packet packet;

	request.pid = getpid();
	send_packet(&request, sizeof(request), NULL, 0);
	CHECK(recv_packet(&packet) == sizeof(packet.done) && packet.h.type == UHMM_MSG_DONE);
}

/* Makes the daemon's reads of its userfaultfd wait, and poll fail: the flag is one that both
 * share. The daemon serves on. */
static void makes_reads_wait(void)
{
	struct uffdio_register range = { .range.len = page_bytes(),
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct offer offer = offer_make();
	char *page = map_private(page_bytes());

	enrol_and_ask(&offer);
	restore_me();
	range.range.start = (uintptr_t)page;
	CHECK(ioctl(offer.uffd, UFFDIO_REGISTER, &range) == 0);
	CHECK(fcntl(offer.uffd, F_SETFL, 0) == 0);
	alarm(TIMEOUT_MS / 1000);
	for (unsigned int i = 0; i < 10; i++) {
		CHECK(madvise(page, page_bytes(), MADV_DONTNEED) == 0);
		restore_me();
	}
}

/* ---- agents that come back ---------------------------------------------------------------- */

/* Enrols, and loses its agent. */
static struct offer offer_lose(void)
{
	struct offer offer = offer_make();
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	struct packet packet;

	offer_send(&offer);
	CHECK(recv_packet(&packet) && packet.h.type == UHMM_MSG_READY);
	CHECK(getpeername(sock, (struct sockaddr *)&addr, &len) == 0);
	close(sock);
	usleep(200000);
	sock = socket_connect(addr.sun_path);
	return offer;
}

static void say_hello_again(const struct offer *offer, int uffd)
{
	struct uhmm_msg_hello hello = hello_of(UHMM_ROLE_AGENT);

	memcpy(hello.token, offer->token, sizeof(hello.token));
	send_packet(&hello, sizeof(hello), &uffd, 1);
}

static void show_child(int fd)
{
	struct uhmm_msg_child child = { .h = { UHMM_MSG_CHILD, sizeof(child) } };

	memset(child.token, 0x5a, sizeof(child.token));
	send_packet(&child, sizeof(child), &fd, 1);
}

static void returns_with_a_pipe(void)
{
	struct offer offer = offer_lose();
	int ends[2];

	CHECK(pipe(ends) == 0);
	say_hello_again(&offer, ends[0]);
	expect_drop();
}

/* It would be read as if the kernel spoke, descriptors of the daemon's own included. */
static void returns_with_a_pipe_as_child(void)
{
	struct offer offer = offer_lose();
	int ends[2];

	CHECK(pipe(ends) == 0);
	say_hello_again(&offer, offer.uffd);
	show_child(ends[0]);
	expect_drop();
}

/* One that nobody has told what it is to report: it would be looked at for ever. */
static void returns_with_a_fresh_uffd_as_child(void)
{
	struct offer offer = offer_lose();
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	CHECK(device >= 0);
	say_hello_again(&offer, offer.uffd);
	show_child(ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
	expect_drop();
}

static void returns_with_too_many_children(void)
{
	struct offer offer = offer_lose();

	say_hello_again(&offer, offer.uffd);
	for (unsigned int i = 0; i <= UHMM_CHILDREN_MAX; i++)
		show_child(offer.uffd);
	expect_drop();
}

/* ---- those that go away, or never say anything -------------------------------------------- */

static void leaves_at_once(void)
{
}

static void leaves_after_hello(void)
{
	say_hello(UHMM_ROLE_PROGRAM);
}

static void leaves_after_welcome(void)
{
	struct packet packet;

	welcome(&packet);
}

static void leaves_after_enrol(void)
{
	struct offer offer = offer_make();

	offer_send(&offer);
}

static void hundred_say_nothing(void)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int fds[100];

	CHECK(getpeername(sock, (struct sockaddr *)&addr, &len) == 0);
	for (size_t i = 0; i < 100; i++)
		fds[i] = socket_connect(addr.sun_path);
	usleep(500000);
	for (size_t i = 0; i < 100; i++)
		close(fds[i]);
}

static const struct bad_case {
	const char *name;
	void (*run)(void);
	bool quiet; /* it leaves by itself, or only asks for something that cannot be */
} cases[] = {
	{ "short_header", short_header, false },
	{ "short_hello", short_hello, false },
	{ "wrong_length", wrong_length, false },
	{ "oversized", oversized, false },
	{ "wrong_magic", wrong_magic, false },
	{ "wrong_version", wrong_version, false },
	{ "wrong_page_size", wrong_page_size, false },
	{ "unknown_role", unknown_role, false },
	{ "unknown_type", unknown_type, false },
	{ "unknown_token", unknown_token, false },
	{ "hello_with_fds", hello_with_fds, false },
	{ "enrol_first", enrol_first, false },
	{ "second_hello", second_hello, false },
	{ "enrol_without_fd", enrol_without_fd, false },
	{ "enrol_two_fds", enrol_two_fds, false },
	{ "enrol_dev_null", enrol_dev_null, false },
	{ "enrol_foreign_uffd", enrol_foreign_uffd, false },
	{ "enrol_used_uffd", enrol_used_uffd, false },
	{ "enrol_unaligned", enrol_unaligned, false },
	{ "enrol_overlapping", enrol_overlapping, false },
	{ "enrol_unmapped", enrol_unmapped, false },
	{ "enrol_wrapping", enrol_wrapping, false },
	{ "enrol_twice", enrol_twice, false },
	{ "unknown_request", unknown_request, false },
	{ "evict_nobody", evict_nobody, true },
	{ "migrate_nothing", migrate_nothing, true },
	{ "query_everything", query_everything, true },
	{ "stops_reading", stops_reading, true },
	{ "asks_too_much", asks_too_much, true },
	{ "makes_reads_wait", makes_reads_wait, true },
	{ "returns_with_a_pipe", returns_with_a_pipe, false },
	{ "returns_with_a_pipe_as_child", returns_with_a_pipe_as_child, false },
	{ "returns_with_a_fresh_uffd_as_child", returns_with_a_fresh_uffd_as_child, false },
	{ "returns_with_too_many_children", returns_with_too_many_children, false },
	{ "leaves_at_once", leaves_at_once, true },
	{ "leaves_after_hello", leaves_after_hello, true },
	{ "leaves_after_welcome", leaves_after_welcome, true },
	{ "leaves_after_enrol", leaves_after_enrol, true },
	{ "hundred_say_nothing", hundred_say_nothing, true },
};
#define N_CASES (sizeof(cases) / sizeof(cases[0]))

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "list") == 0) {
		for (size_t i = 0; i < N_CASES; i++)
			printf("%s %s\n", cases[i].name, cases[i].quiet ? "quiet" : "logged");
		return 0;
	}
	for (size_t i = 0; argc == 3 && i < N_CASES; i++) {
		if (strcmp(cases[i].name, argv[2]))
			continue;
		sock = socket_connect(argv[1]);
		cases[i].run();
		return 0;
	}
	fprintf(stderr, "usage: bad_clients list | SOCKET CASE\n");
	return 2;
}
