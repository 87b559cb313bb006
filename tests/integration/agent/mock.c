/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See mock.h. Runs on the test's one thread.
 */
#include "mock.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/uapi.h"

#define must(condition) ck_assert_msg((condition), "%s: %s", #condition, strerror(errno))

static bool readable(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

static void await(int fd, const char *what)
{
	ck_assert_msg(readable(fd, MOCK_WAIT_MS), "waited in vain for %s", what);
}

/* --- the socket ---------------------------------------------------------------------- */

void mock_listen_again(struct mock *mock)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)unlink(mock->socket_path);
	mock->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	must(mock->listener >= 0);
	strcpy(addr.sun_path, mock->socket_path);
	must(bind(mock->listener, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	must(chmod(mock->socket_path, 0777) == 0);
	must(listen(mock->listener, 16) == 0);
}

void mock_stop_listening(struct mock *mock)
{
	close(mock->listener);
	mock->listener = -1;
}

void mock_open(struct mock *mock)
{
	strcpy(mock->dir, "/tmp/uhmm-agent-XXXXXX");
	must(mkdtemp(mock->dir));
	/* Programs of other users come too. */
	must(chmod(mock->dir, 0755) == 0);
	snprintf(mock->socket_path, sizeof(mock->socket_path), "%s/sock", mock->dir);
	mock_listen_again(mock);
	mock->device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	must(mock->device >= 0);
}

void mock_close(struct mock *mock)
{
	close(mock->listener);
	close(mock->device);
	unlink(mock->socket_path);
	rmdir(mock->dir);
}

union control {
	struct cmsghdr h;
	unsigned char room[CMSG_SPACE(8 * sizeof(int))];
};

void mock_send(int sock, uint32_t type, void *packet, size_t bytes, const int *fds, size_t n_fds)
{
	struct uhmm_msg *h = packet;
	struct iovec iov = { .iov_base = packet, .iov_len = bytes };
	union control control = { .room = { 0 } };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	h->type = type;
	h->len = (uint32_t)bytes;
	if (n_fds) {
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		control.h.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.h), fds, n_fds * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	must(sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)bytes);
}

size_t mock_recv(int sock, void *packet, size_t room, int *fds, size_t *ret_n_fds)
{
	struct iovec iov = { .iov_base = packet, .iov_len = room };
	union control control = { .room = { 0 } };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c;
	ssize_t n;

	await(sock, "a packet");
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	must(n >= 0);
	*ret_n_fds = 0;
	c = CMSG_FIRSTHDR(&msg);
	if (c) {
		*ret_n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *ret_n_fds * sizeof(int));
	}
	if (n > 0)
		ck_assert_uint_eq(((struct uhmm_msg *)packet)->len, (size_t)n);
	return (size_t)n;
}

bool mock_sees_eof(int sock)
{
	char byte;

	return readable(sock, MOCK_WAIT_MS) && recv(sock, &byte, 1, 0) == 0;
}

bool mock_has_client(const struct mock *mock, int ms)
{
	return readable(mock->listener, ms);
}

/* --- enrolment ----------------------------------------------------------------------- */

int mock_accept_only(const struct mock *mock)
{
	int sock;

	await(mock->listener, "a client");
	sock = accept4(mock->listener, NULL, NULL, SOCK_CLOEXEC);
	must(sock >= 0);
	return sock;
}

/* Until it says that these were all. */
static void hear_children(struct space *space)
{
	static const uint8_t none[UHMM_TOKEN_BYTES];
	struct uhmm_msg_child msg;
	size_t n_fds;
	int fds[8];

	for (;;) {
		ck_assert_uint_eq(mock_recv(space->sock, &msg, sizeof(msg), fds, &n_fds),
				  sizeof(msg));
		ck_assert_uint_eq(msg.h.type, UHMM_MSG_CHILD);
		if (memcmp(msg.token, none, sizeof(none)) == 0)
			break;
		ck_assert_uint_eq(n_fds, 1);
		ck_assert_uint_lt(space->n_children, UHMM_CHILDREN_MAX);
		memcpy(space->children[space->n_children].token, msg.token, sizeof(msg.token));
		space->children[space->n_children++].uffd = fds[0];
	}
	ck_assert_uint_eq(n_fds, 0);
}

void mock_accept(const struct mock *mock, struct space *space, enum uhmm_role role)
{
	mock_hear_hello(space, mock_accept_only(mock), role);
}

void mock_hear_hello(struct space *space, int sock, enum uhmm_role role)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	size_t n_fds;
	int fds[8];

	memset(space, 0, sizeof(*space));
	space->uffd = space->ring_fd = space->event_fd = space->slot_fd = -1;
	space->sock = sock;
	must(getsockopt(space->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0);
	space->peer = cred.pid;
	ck_assert_uint_eq(mock_recv(space->sock, &space->hello, sizeof(space->hello), fds, &n_fds),
			  sizeof(space->hello));
	ck_assert_uint_eq(n_fds, role == UHMM_ROLE_AGENT ? 1 : 0);
	ck_assert_uint_eq(space->hello.h.type, UHMM_MSG_HELLO);
	ck_assert_uint_eq(space->hello.magic, UHMM_WIRE_MAGIC);
	ck_assert_uint_eq(space->hello.version, UHMM_WIRE_VERSION);
	ck_assert_uint_eq(space->hello.page_size, (uint32_t)getpagesize());
	ck_assert_uint_eq(space->hello.role, role);
	if (role != UHMM_ROLE_AGENT)
		return;
	space->uffd = fds[0];
	hear_children(space);
}

void mock_welcome(const struct mock *mock, struct space *space)
{
	struct uhmm_msg_welcome welcome = {
		.space_id = 1,
		.ring_bytes = sizeof(struct uhmm_ring),
		.staging_chunk_bytes = MOCK_CHUNK_BYTES,
		.n_staging_chunks = MOCK_CHUNKS,
	};
	int fds[3];

	memset(space->token, 0x5a, sizeof(space->token));
	memcpy(welcome.token, space->token, sizeof(welcome.token));
	space->ring_fd = memfd_create("ring", MFD_CLOEXEC);
	must(ftruncate(space->ring_fd, sizeof(struct uhmm_ring)) == 0);
	space->ring = mmap(NULL, sizeof(struct uhmm_ring), PROT_READ | PROT_WRITE, MAP_SHARED,
			   space->ring_fd, 0);
	must(space->ring != MAP_FAILED);
	space->ring->magic = UHMM_WIRE_MAGIC;
	space->event_fd = eventfd(0, EFD_CLOEXEC);
	must(space->event_fd >= 0);
	fds[0] = space->hello.role == UHMM_ROLE_CHILD ? space->uffd : mock->device;
	fds[1] = space->ring_fd;
	fds[2] = space->event_fd;
	/* An agent has its userfaultfd. */
	if (space->hello.role == UHMM_ROLE_AGENT)
		mock_send(space->sock, UHMM_MSG_WELCOME, &welcome, sizeof(welcome), fds + 1, 2);
	else
		mock_send(space->sock, UHMM_MSG_WELCOME, &welcome, sizeof(welcome), fds, 3);
}

void mock_take_enrol(struct space *space, bool api)
{
	struct uffdio_api arg = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
			    UFFD_FEATURE_MOVE,
	};
	size_t n_fds;
	int fds[8];

	ck_assert_uint_eq(mock_recv(space->sock, &space->enrol, sizeof(space->enrol), fds, &n_fds),
			  sizeof(space->enrol));
	ck_assert_uint_eq(space->enrol.h.type, UHMM_MSG_ENROL);
	ck_assert_uint_eq(space->enrol.staging_addr % (2u << 20), 0);
	ck_assert_uint_eq(space->ring->agent_state, UHMM_AGENT_READY);
	if (space->hello.role != UHMM_ROLE_PROGRAM) {
		ck_assert_uint_eq(n_fds, 0);
		return;
	}
	ck_assert_uint_eq(n_fds, 1);
	space->uffd = fds[0];
	if (api)
		must(ioctl(space->uffd, UFFDIO_API, &arg) == 0);
}

static void give_memory(const struct space *space)
{
	struct uhmm_msg memory;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", space->peer);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	mock_send(space->sock, UHMM_MSG_MEMORY, &memory, sizeof(memory), &fd, 1);
	close(fd);
}

void mock_ready_without_memory(struct space *space)
{
	struct uhmm_msg ready;

	mock_send(space->sock, UHMM_MSG_READY, &ready, sizeof(ready), NULL, 0);
}

void mock_ready(struct space *space)
{
	mock_ready_without_memory(space);
	give_memory(space);
}

void mock_enrol(const struct mock *mock, struct space *space)
{
	mock_accept(mock, space, UHMM_ROLE_PROGRAM);
	mock_welcome(mock, space);
	mock_take_enrol(space, true);
	mock_ready(space);
}

void space_deinit(struct space *space)
{
	close(space->sock);
	close(space->uffd);
	close(space->ring_fd);
	close(space->event_fd);
	if (space->slot_fd >= 0)
		close(space->slot_fd);
	if (space->ring)
		munmap(space->ring, sizeof(*space->ring));
}

void mock_answer_agent_quit(const struct mock *mock, struct space *space, int error)
{
	struct uhmm_msg_quit quit = { .reason = UHMM_REASON_NONE };
	struct uhmm_msg_done done = { .error = error };
	struct uhmm_msg_request request;
	struct space admin;
	size_t n_fds;
	int fds[8];

	mock_accept(mock, &admin, UHMM_ROLE_ADMIN);
	ck_assert_int_eq(admin.peer, space->peer);
	ck_assert_uint_eq(mock_recv(admin.sock, &request, sizeof(request), fds, &n_fds),
			  sizeof(request));
	ck_assert_uint_eq(request.h.type, UHMM_MSG_REQUEST);
	ck_assert_uint_eq(request.request, UHMM_REQ_AGENT_QUIT);
	space->quit_flags = request.flags;
	if (error == 0)
		mock_send(space->sock, UHMM_MSG_QUIT, &quit, sizeof(quit), NULL, 0);
	mock_send(admin.sock, UHMM_MSG_DONE, &done, sizeof(done), NULL, 0);
	close(admin.sock);
}

void mock_serve_agent_quit(const struct mock *mock, struct space *space)
{
	mock_answer_agent_quit(mock, space, 0);
}

/* --- faults -------------------------------------------------------------------------- */

int mock_register(const struct space *space, uint64_t addr, uint64_t bytes)
{
	struct uffdio_register arg = {
		.range = { .start = addr, .len = bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(space->uffd, UFFDIO_REGISTER, &arg);
}

void mock_unregister(const struct space *space, uint64_t addr, uint64_t bytes)
{
	struct uffdio_range arg = { .start = addr, .len = bytes };

	must(ioctl(space->uffd, UFFDIO_UNREGISTER, &arg) == 0);
}

void mock_copy(int uffd, uint64_t addr, const void *page, size_t bytes)
{
	struct uffdio_copy arg = {
		.dst = addr,
		.src = (uint64_t)(uintptr_t)page,
		.len = bytes,
	};

	must(ioctl(uffd, UFFDIO_COPY, &arg) == 0);
}

uint64_t mock_next_event(int uffd, unsigned int kind)
{
	struct uffd_msg msg;

	await(uffd, "a userfaultfd message");
	must(read(uffd, &msg, sizeof(msg)) == sizeof(msg));
	ck_assert_uint_eq(msg.event, kind);
	switch (kind) {
	case UFFD_EVENT_PAGEFAULT:
		return msg.arg.pagefault.address & ~((uint64_t)getpagesize() - 1);
	case UFFD_EVENT_FORK:
		return msg.arg.fork.ufd;
	default:
		return msg.arg.remove.start;
	}
}

/* --- commands ------------------------------------------------------------------------ */

uint64_t space_chunk(const struct space *space, unsigned int box)
{
	return space->enrol.staging_addr + (uint64_t)box * MOCK_CHUNK_BYTES;
}

void space_give_slot_file(const struct mock *mock, struct space *space)
{
	struct uhmm_msg slots;
	char path[128];
	int fd;

	/* On tmpfs as the real one, and as the real one: the agent may write, not read. */
	snprintf(path, sizeof(path), "/dev/shm/%s.slots", strrchr(mock->dir, '/') + 1);
	space->slot_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(space->slot_fd >= 0);
	must(ftruncate(space->slot_fd, 64 << 20) == 0);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd >= 0);
	unlink(path);
	mock_send(space->sock, UHMM_MSG_SLOTS, &slots, sizeof(slots), &fd, 1);
	close(fd);
}

struct uhmm_run *space_add_run(struct space *space, unsigned int box, uint64_t home,
			       uint32_t staging_page, uint32_t n_pages, uint64_t off)
{
	struct uhmm_run *run = &space->ring->boxes[box].runs[space->ring->boxes[box].n_runs++];

	run->home_addr = home;
	run->staging_page = staging_page;
	run->n_pages = n_pages;
	run->store_off = off;
	run->result = 12345;
	return run;
}

void space_command(struct space *space, unsigned int box, uint32_t ops)
{
	struct uhmm_ring_box *b = &space->ring->boxes[box];
	struct uhmm_msg doorbell;

	b->ops = ops;
	b->status = 12345;
	__atomic_store_n(&b->seq, b->seq + 1, __ATOMIC_RELEASE);
	mock_send(space->sock, UHMM_MSG_DOORBELL, &doorbell, sizeof(doorbell), NULL, 0);
}

bool space_is_done(struct space *space, unsigned int box, int ms)
{
	struct uhmm_ring_box *b = &space->ring->boxes[box];
	uint64_t count;

	while (__atomic_load_n(&b->done, __ATOMIC_ACQUIRE) != b->seq) {
		if (!readable(space->event_fd, ms))
			return false;
		must(read(space->event_fd, &count, sizeof(count)) == sizeof(count));
	}
	return true;
}

int space_finish(struct space *space, unsigned int box)
{
	ck_assert_msg(space_is_done(space, box, MOCK_WAIT_MS), "the agent does not answer");
	space->ring->boxes[box].n_runs = 0;
	return space->ring->boxes[box].status;
}
