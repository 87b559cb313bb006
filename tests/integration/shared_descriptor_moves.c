/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two processes hand the one descriptor of a memfd to and fro: whoever looks at one table after
 * the other may find it in none. Each that has it reads what is there.
 */
#include <sys/socket.h>

#include "prog.h"

#define LEN (8 * MIB)
#define SECONDS 5.0
#define PAUSE_USEC 1000

union room {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* The other side may have ended: then so do we. */
static void hand_over(int sock, int fd)
{
	union room room = { .head = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
				      .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec iov = { "", 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &room,
			      .msg_controllen = sizeof(room) };

	memcpy(CMSG_DATA(&room.head), &fd, sizeof(fd));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != 1)
		_exit(0);
	close(fd);
}

static int take_over(int sock)
{
	union room room;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &room,
			      .msg_controllen = sizeof(room) };
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		_exit(0);
	memcpy(&fd, CMSG_DATA(&room.head), sizeof(fd));
	return fd;
}

static void play(int sock, int fd)
{
	uint64_t *page = malloc(page_bytes());
	double until = now_sec() + SECONDS;

	CHECK(page);
	for (size_t at = 0; now_sec() < until; at = (at + page_bytes()) % LEN) {
		if (fd < 0)
			fd = take_over(sock);
		CHECK(pread(fd, page, page_bytes(), (off_t)at) == (ssize_t)page_bytes());
		if (!pattern_holds(page, page_bytes(), 1, at))
			prog_fail("page %zu was read wrong: %s", at / page_bytes(),
				  is_zero(page, page_bytes()) ? "zero" : "other bytes");
		usleep(PAUSE_USEC);
		hand_over(sock, fd);
		fd = -1;
	}
	_exit(0);
}

int main(void)
{
	int fd = memfd_create("uhmm-test", MFD_CLOEXEC), pair[2], status, n = 0;
	pid_t pids[2];
	char *mem;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)LEN) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(mem != MAP_FAILED);
	pattern_fill(mem, LEN, 1);
	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			close(pair[!i]);
			if (i)
				close(fd);
			play(pair[i], i ? -1 : fd);
		}
		CHECK(pids[i] > 0);
	}
	close(fd);
	close(pair[0]);
	close(pair[1]);
	while (n < 2) {
		ask_away(mem, LEN);
		usleep(1000);
		while (waitpid(-1, &status, WNOHANG) > 0) {
			CHECK(status == 0);
			n++;
		}
	}
	send_away(mem, LEN);
	pattern_check(mem, LEN, 1);
	return 0;
}
