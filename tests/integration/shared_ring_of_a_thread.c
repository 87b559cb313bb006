/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An io_uring in a table of descriptors that only one thread has, and whose rings are not mapped:
 * it can let a device write to shared memory all the same, so that nothing of it leaves.
 */
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include "prog.h"

/* Within the target, so that nothing leaves before there is a ring. */
#define LEN (8 * MIB)

static pthread_barrier_t barrier;
static bool made;

static void *with_ring(void *arg)
{
	struct io_uring_params params = { 0 };
	long ring;

	(void)arg;
	CHECK(unshare(CLONE_FILES) == 0);
	ring = syscall(SYS_io_uring_setup, 4, &params);
	made = ring >= 0;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	if (made)
		close((int)ring);
	return NULL;
}

int main(void)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	CHECK(mem != MAP_FAILED && pthread_barrier_init(&barrier, NULL, 2) == 0);
	pattern_fill(mem, LEN, 1);
	CHECK(pthread_create(&thread, NULL, with_ring, NULL) == 0);
	pthread_barrier_wait(&barrier);
	if (!made)
		prog_skip("no io_uring here");
	for (int i = 0; i < 5; i++)
		ask_away(mem, LEN);
	CHECK(present_pages(mem, LEN) == LEN / page_bytes());
	pthread_barrier_wait(&barrier);
	CHECK(pthread_join(thread, NULL) == 0);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 1);
	return 0;
}
