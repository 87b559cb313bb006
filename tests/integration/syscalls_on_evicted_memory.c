/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls whose memory is away: the kernel faults the pages in by itself and
 * neither fails with EFAULT nor comes back short.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "prog.h"

#define LEN (8 * MIB)

static char *from, *into;

static void *write_all(void *arg)
{
	size_t done = 0;
	int fd = *(int *)arg;

	while (done < LEN) {
		ssize_t n = write(fd, from + done, LEN - done);

		CHECK(n > 0);
		done += (size_t)n;
	}
	return NULL;
}

/* Through a pipe or a socket, from away pages into away pages. */
static void through(int read_fd, int write_fd)
{
	pthread_t writer;
	size_t done = 0;

	send_away(from, LEN);
	send_away(into, LEN);
	CHECK(pthread_create(&writer, NULL, write_all, &write_fd) == 0);
	while (done < LEN) {
		ssize_t n = read(read_fd, into + done, LEN - done);

		CHECK(n > 0);
		done += (size_t)n;
	}
	CHECK(pthread_join(writer, NULL) == 0);
	pattern_check(into, LEN, 1);
	memset(into, 0x55, LEN);
	close(read_fd);
	close(write_fd);
}

static void through_file(void)
{
	FILE *file = tmpfile();
	struct iovec iov[4];

	CHECK(file);
	for (size_t i = 0; i < 4; i++) {
		iov[i].iov_base = from + i * (LEN / 4);
		iov[i].iov_len = LEN / 4;
	}
	send_away(from, LEN);
	CHECK(pwritev(fileno(file), iov, 4, 0) == (ssize_t)LEN);
	send_away(into, LEN);
	for (size_t i = 0; i < 4; i++)
		iov[i].iov_base = into + i * (LEN / 4);
	CHECK(preadv(fileno(file), iov, 4, 0) == (ssize_t)LEN);
	pattern_check(into, LEN, 1);
	fclose(file);
}

static void by_other_calls(void)
{
	struct iovec local = { into, LEN }, remote = { from, LEN };
	struct timespec *ts = (void *)(into + MIB);
	uint32_t *futex = (void *)(into + 2 * MIB);
	struct timespec *zero = (void *)(into + 3 * MIB);
	char *path = into + 4 * MIB + page_bytes() - 5; /* across two pages */

	send_away(from, LEN);
	memset(into, 0x55, LEN);
	send_away(into, LEN);
	CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)LEN);
	pattern_check(into, LEN, 1);
	*futex = 7;
	zero->tv_sec = 0, zero->tv_nsec = 1000;
	strcpy(path, "/proc/self/stat");
	send_away(into, LEN);
	CHECK(clock_gettime(CLOCK_MONOTONIC_RAW, ts) == 0);
	CHECK(syscall(SYS_futex, futex, FUTEX_WAIT, 7, zero, NULL, 0) == -1 && errno == ETIMEDOUT);
	CHECK(access(path, R_OK) == 0);
}

int main(void)
{
	int fds[2];

	from = map_private(LEN);
	into = map_private(LEN);
	pattern_fill(from, LEN, 1);
	memset(into, 0x55, LEN);
	CHECK(pipe(fds) == 0);
	through(fds[0], fds[1]);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	through(fds[0], fds[1]);
	through_file();
	by_other_calls();
	pattern_check(from, LEN, 1);
	return 0;
}
