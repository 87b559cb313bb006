/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io_uring as a readiness loop. Polls are one-shot and armed again after the callback, so a
 * callback that leaves data unread is called again. The kernel owns a source while its poll
 * is out: memory is given back only when the completion of the removed poll has arrived.
 */
#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* user_data of what is not a source. */
#define LOOP_TICK 1u
#define LOOP_IGNORE 2u

static struct io_uring_sqe *loop_sqe(struct loop *loop)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

	if (!sqe) {
		(void)io_uring_submit(&loop->ring);
		sqe = io_uring_get_sqe(&loop->ring);
	}
	return sqe;
}

static int loop_arm_tick(struct loop *loop)
{
	struct io_uring_sqe *sqe = loop_sqe(loop);

	if (!sqe)
		return -EBUSY;
	loop->tick_time.tv_sec = (long long)(loop->tick_ns / 1000000000u);
	loop->tick_time.tv_nsec = (long long)(loop->tick_ns % 1000000000u);
	io_uring_prep_timeout(sqe, &loop->tick_time, 0, 0);
	io_uring_sqe_set_data64(sqe, LOOP_TICK);
	return 0;
}

static int loop_arm(struct loop *loop, struct loop_source *source)
{
	struct io_uring_sqe *sqe = loop_sqe(loop);

	if (!sqe)
		return -EBUSY;
	io_uring_prep_poll_add(sqe, source->fd, POLLIN | POLLHUP | POLLRDHUP);
	io_uring_sqe_set_data(sqe, source);
	source->armed = true;
	return 0;
}

int loop_init(struct loop *loop, uint64_t tick_ns, void (*tick)(void *data), void *data)
{
	int err;

	memset(loop, 0, sizeof(*loop));
	err = io_uring_queue_init(256, &loop->ring, IORING_SETUP_CLAMP);
	if (err < 0)
		return err;
	loop->tick_ns = tick_ns;
	loop->tick = tick;
	loop->tick_data = data;
	return loop_arm_tick(loop);
}

void loop_deinit(struct loop *loop)
{
	io_uring_queue_exit(&loop->ring);
}

int loop_add(struct loop *loop, struct loop_source *source, int fd,
	     void (*fn)(struct loop_source *source))
{
	source->fd = fd;
	source->fn = fn;
	source->removed = false;
	source->gone = NULL;
	return loop_arm(loop, source);
}

void loop_remove(struct loop *loop, struct loop_source *source,
		 void (*gone)(struct loop_source *source))
{
	struct io_uring_sqe *sqe;

	source->removed = true;
	source->gone = gone;
	if (!source->armed) {
		/* Its own callback is running, or it was never added. */
		return;
	}
	sqe = loop_sqe(loop);
	if (sqe) {
		io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)source);
		io_uring_sqe_set_data64(sqe, LOOP_IGNORE);
	}
}

static void loop_complete(struct loop *loop, struct io_uring_cqe *cqe)
{
	struct loop_source *source;

	if (cqe->user_data == LOOP_IGNORE)
		return;
	if (cqe->user_data == LOOP_TICK) {
		loop->tick(loop->tick_data);
		(void)loop_arm_tick(loop);
		return;
	}
	source = io_uring_cqe_get_data(cqe);
	source->armed = false;
	if (!source->removed)
		source->fn(source);
	if (source->removed) {
		if (source->gone)
			source->gone(source);
		return;
	}
	(void)loop_arm(loop, source);
}

int loop_run(struct loop *loop)
{
	while (!loop->stop) {
		struct io_uring_cqe *cqe;
		int err = io_uring_submit_and_wait(&loop->ring, 1);

		if (err < 0 && err != -EINTR && err != -EAGAIN && err != -EBUSY)
			return err;
		while (!loop->stop && io_uring_peek_cqe(&loop->ring, &cqe) == 0) {
			struct io_uring_cqe copy = *cqe;

			io_uring_cqe_seen(&loop->ring, cqe);
			loop_complete(loop, &copy);
		}
	}
	return 0;
}
