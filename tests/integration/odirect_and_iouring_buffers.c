/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that a device writes to: O_DIRECT reads into pages that leave at the
 * same time, and registered io_uring buffers, which are pinned: their pages stay,
 * and the bytes that the device put there are the bytes that the program sees.
 */
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

#include "prog.h"

#define LEN (16 * MIB)
#define ROUNDS 12

static char *into;
static atomic_bool stop;

static int make_file(const char *dir, const char *bytes)
{
	char path[4096];
	int plain, direct;

	CHECK(snprintf(path, sizeof(path), "%s/odirect.XXXXXX", dir) < (int)sizeof(path));
	plain = mkstemp(path);
	CHECK(plain >= 0);
	CHECK(write(plain, bytes, LEN) == (ssize_t)LEN);
	CHECK(fsync(plain) == 0);
	close(plain);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	unlink(path);
	if (direct < 0)
		prog_skip("no O_DIRECT here: set TMPDIR to a directory on a disk");
	return direct;
}

static void *evict_run(void *arg)
{
	struct uhmm *handle = handle_open();

	while (!atomic_load(&stop))
		nudge_away(handle, into, LEN);
	uhmm_close(handle);
	return arg;
}

static void read_direct(int fd)
{
	for (int round = 0; round < ROUNDS; round++) {
		memset(into, round, LEN);
		for (size_t at = 0; at < LEN; at += MIB)
			CHECK(pread(fd, into + at, MIB, (off_t)at) == (ssize_t)MIB);
		pattern_check(into, LEN, 1);
		for (size_t at = 0; at < LEN; at += MIB)
			CHECK(pwrite(fd, into + at, MIB, (off_t)at) == (ssize_t)MIB);
	}
}

static void read_fixed(int fd)
{
	struct iovec iov = { into, LEN };
	struct io_uring ring;
	struct io_uring_cqe *cqe;

	if (io_uring_queue_init(4, &ring, 0))
		prog_skip("no io_uring: look at /proc/sys/kernel/io_uring_disabled");
	memset(into, 0x55, LEN);
	CHECK(io_uring_register_buffers(&ring, &iov, 1) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		usleep(2000); /* let the evictor have a go at it */
		CHECK(present_pages(into, LEN) == LEN / page_bytes());
		memset(into, round, LEN);
		for (size_t at = 0; at < LEN; at += 4 * MIB) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			io_uring_prep_read_fixed(sqe, fd, into + at, 4 * MIB, at, 0);
			CHECK(io_uring_submit_and_wait(&ring, 1) == 1);
			CHECK(io_uring_wait_cqe(&ring, &cqe) == 0);
			CHECK(cqe->res == (int)(4 * MIB));
			io_uring_cqe_seen(&ring, cqe);
		}
		pattern_check(into, LEN, 1);
	}
	CHECK(io_uring_unregister_buffers(&ring) == 0);
	io_uring_queue_exit(&ring);
}

int main(void)
{
	const char *dir = getenv("TMPDIR");
	char *bytes = map_private(LEN);
	pthread_t evictor;
	int fd;

	into = map_private(LEN);
	pattern_fill(bytes, LEN, 1);
	fd = make_file(dir ? dir : "/var/tmp", bytes);
	if (managed())
		CHECK(pthread_create(&evictor, NULL, evict_run, NULL) == 0);
	read_direct(fd);
	read_fixed(fd);
	atomic_store(&stop, true);
	if (managed())
		CHECK(pthread_join(evictor, NULL) == 0);
	send_away(into, LEN);
	pattern_check(into, LEN, 1);
	return 0;
}
