/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memfd or a POSIX segment leaves only while nobody can reach it but through mappings that
 * are managed: with a descriptor open, or a name, it stays, and read(2), write(2) and
 * ftruncate(2) do what they always do.
 */
#include <sys/socket.h>

#include "prog.h"

#define LEN (16 * MIB)

static char *map_shared(int fd)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

/* It does not leave, however often it is asked. */
static void stays(const char *mem, const char *why)
{
	for (int i = 0; i < 5; i++)
		ask_away(mem, LEN);
	if (present_pages(mem, LEN) != LEN / page_bytes())
		prog_fail("%s: %zu of %zu pages are here", why, present_pages(mem, LEN),
			  LEN / page_bytes());
}

static void read_and_write(int fd, char *mem)
{
	char *copy = malloc(MIB);

	CHECK(copy && pread(fd, copy, MIB, (off_t)MIB) == (ssize_t)MIB);
	pattern_check_from(copy, MIB, 1, MIB);
	memset(copy, 7, MIB);
	CHECK(pwrite(fd, copy, MIB, (off_t)MIB) == (ssize_t)MIB);
	CHECK(memcmp(mem + MIB, copy, MIB) == 0);
	free(copy);
	CHECK(ftruncate(fd, (off_t)(LEN / 2)) == 0);
	CHECK(ftruncate(fd, (off_t)LEN) == 0);
	CHECK(is_zero(mem + LEN / 2, LEN / 2));
	pattern_check(mem, MIB, 1);
	pattern_check_from(mem + 2 * MIB, LEN / 2 - 2 * MIB, 1, 2 * MIB);
}

static void with_memfd(void)
{
	int fd = memfd_create("uhmm-test", MFD_CLOEXEC), extra;
	char *mem, *twin;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)LEN) == 0);
	mem = map_shared(fd);
	pattern_fill(mem, LEN, 1);
	stays(mem, "descriptor open");
	read_and_write(fd, mem);
	pattern_fill(mem, LEN, 1);
	twin = map_shared(fd);
	extra = dup(fd);
	close(fd);
	stays(mem, "second descriptor open");
	close(extra);
	send_away(mem, LEN);
	pattern_check(twin, LEN, 1);
	pattern_fill(twin, LEN, 2);
	send_away(twin, LEN);
	CHECK(munmap(twin, LEN) == 0);
	pattern_check(mem, LEN, 2);
	CHECK(munmap(mem, LEN) == 0);
}

/* A descriptor that is in no table, but on its way through a socket. */
static void with_descriptor_in_flight(void)
{
	int fd = memfd_create("uhmm-test", MFD_CLOEXEC), pair[2], got;
	char room[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room,
			      .msg_controllen = sizeof(room) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
	char *mem;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)LEN) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	mem = map_shared(fd);
	pattern_fill(mem, LEN, 3);
	*head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
				  .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(head), &fd, sizeof(fd));
	CHECK(sendmsg(pair[0], &msg, 0) == 1);
	close(fd);
	stays(mem, "descriptor in a socket");
	CHECK(recvmsg(pair[1], &msg, MSG_CMSG_CLOEXEC) == 1);
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	CHECK(pread(got, &byte, 1, 0) == 1 && byte == mem[0]);
	close(got);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 3);
	close(pair[0]);
	close(pair[1]);
	CHECK(munmap(mem, LEN) == 0);
}

static void with_name(void)
{
	char name[64];
	char *mem;
	int fd;

	snprintf(name, sizeof(name), "/uhmm-test-%d", getpid());
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0 && ftruncate(fd, (off_t)LEN) == 0);
	mem = map_shared(fd);
	pattern_fill(mem, LEN, 4);
	close(fd);
	stays(mem, "it has a name");
	CHECK(shm_unlink(name) == 0);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 4);
	CHECK(munmap(mem, LEN) == 0);
}

int main(void)
{
	with_memfd();
	with_descriptor_in_flight();
	with_name();
	return 0;
}
