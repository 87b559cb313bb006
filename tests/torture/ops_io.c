/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls and devices that read and write the memory instead of the processor: pipes,
 * files with and without the page cache, io_uring's registered buffers, vmsplice, a neighbour.
 * The other side is always the actor's bounce buffer, which nobody manages.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "control.h"
#include "fail.h"
#include "neighbour.h"
#include "ops.h"
#include "shadow.h"

#define IO_PAGES 16u

/* ---- both ends -------------------------------------------------------------------------- */

/* A run that can be read, or also written; never more than bounce holds. */
static bool run_for_io(struct actor *a, const struct op *op, bool writable, struct run *ret_run)
{
	uint32_t max = BOUNCE_BYTES / (uint32_t)ctl->page_size;

	return run_choose(a, op, max < IO_PAGES ? max : IO_PAGES, ret_run) &&
	       run_all(ret_run, writable ? page_is_writable : page_is_readable);
}

/* The run's bytes lie in bounce. */
static void check_bounce(struct actor *a, const struct run *run, const char *how)
{
	for (uint32_t i = 0; i < run->n; i++)
		shadow_check(a, run->region, run->first + i, a->bounce + i * ctl->page_size, how);
}

/* Whole new pages in bounce; the caller sees to it that they get into the run. */
static void new_bounce(struct actor *a, const struct run *run)
{
	for (uint32_t i = 0; i < run->n; i++) {
		struct page_shadow *page = &run->region->pages[run->first + i];

		(void)shadow_new_version(a, page, 0xff);
		shadow_render(page, 0xff, a->bounce + i * ctl->page_size);
	}
}

static void check_after(struct actor *a, const struct run *run, const char *how)
{
	for (uint32_t i = run->first; i < run->first + run->n; i++)
		page_check(a, run->region, i, how);
}

/* ---- pipes -------------------------------------------------------------------------------- */

static bool pipe_ready(struct actor *a)
{
	if (a->pipe[0] < 0 && pipe2(a->pipe, O_CLOEXEC) < 0)
		a->pipe[0] = -1;
	/* As much as a run, so that one thread can hold both ends. */
	return a->pipe[0] >= 0 && fcntl(a->pipe[0], F_GETPIPE_SZ) >= (int)BOUNCE_BYTES;
}

static void read_all(struct actor *a, int fd, char *to, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = read(fd, to + done, bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		MUST(a, n > 0);
		done += (size_t)n;
	}
}

static void write_all(struct actor *a, int fd, const char *from, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = write(fd, from + done, bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		MUST(a, n > 0);
		done += (size_t)n;
	}
}

static void op_pipe_write(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_io(a, op, false, &run) || !pipe_ready(a))
		return;
	write_all(a, a->pipe[1], run_addr(&run), run_bytes(&run));
	read_all(a, a->pipe[0], a->bounce, run_bytes(&run));
	check_bounce(a, &run, "a write into a pipe");
}

static void op_pipe_read(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_io(a, op, true, &run) || !pipe_ready(a))
		return;
	new_bounce(a, &run);
	write_all(a, a->pipe[1], a->bounce, run_bytes(&run));
	read_all(a, a->pipe[0], run_addr(&run), run_bytes(&run));
	check_after(a, &run, "a load after a read from a pipe");
}

/* The pipe holds the pages themselves: they must not change before they are read. */
static void op_vmsplice(struct actor *a, const struct op *op)
{
	struct run run;
	size_t done = 0;

	if (!run_for_io(a, op, false, &run) || !pipe_ready(a))
		return;
	while (done < run_bytes(&run)) {
		struct iovec piece = { .iov_base = run_addr(&run) + done,
				       .iov_len = run_bytes(&run) - done };
		ssize_t n = vmsplice(a->pipe[1], &piece, 1, 0);

		if (n < 0 && errno == EINTR)
			continue;
		MUST(a, n > 0);
		done += (size_t)n;
	}
	if (op->r[2] & 0x100)
		pages_out(a, run_addr(&run), run_bytes(&run));
	read_all(a, a->pipe[0], a->bounce, run_bytes(&run));
	check_bounce(a, &run, "a vmsplice into a pipe");
	check_after(a, &run, "a load after a vmsplice");
}

/* ---- files -------------------------------------------------------------------------------- */

static int open_once(int *fd, int flags)
{
	if (*fd == -1) {
		*fd = control_open_file(flags | O_CLOEXEC);
		if (*fd < 0)
			*fd = -2; /* not here, and not again */
	}
	return *fd >= 0 ? *fd : -1;
}

static void file_out(struct actor *a, int fd, const struct run *run, const char *how)
{
	MUST(a, pwrite(fd, run_addr(run), run_bytes(run), 0) == (ssize_t)run_bytes(run));
	MUST(a, pread(fd, a->bounce, run_bytes(run), 0) == (ssize_t)run_bytes(run));
	check_bounce(a, run, how);
}

static void op_file_write(struct actor *a, const struct op *op)
{
	struct run run;

	if (run_for_io(a, op, false, &run) && open_once(&a->file, 0) >= 0)
		file_out(a, a->file, &run, "a write to a file");
}

/* In pieces that begin and end anywhere. */
static void op_file_read(struct actor *a, const struct op *op)
{
	struct iovec pieces[3];
	struct run run;
	size_t one, two;

	if (!run_for_io(a, op, true, &run) || open_once(&a->file, 0) < 0)
		return;
	new_bounce(a, &run);
	MUST(a, pwrite(a->file, a->bounce, run_bytes(&run), 0) == (ssize_t)run_bytes(&run));
	one = op->r[1] % run_bytes(&run);
	two = one + op->r[2] % (run_bytes(&run) - one);
	pieces[0] = (struct iovec){ run_addr(&run), one };
	pieces[1] = (struct iovec){ run_addr(&run) + one, two - one };
	pieces[2] = (struct iovec){ run_addr(&run) + two, run_bytes(&run) - two };
	MUST(a, preadv(a->file, pieces, 3, 0) == (ssize_t)run_bytes(&run));
	check_after(a, &run, "a load after a readv from a file");
}

static void op_direct_write(struct actor *a, const struct op *op)
{
	struct run run;

	if (run_for_io(a, op, false, &run) && open_once(&a->direct, O_DIRECT) >= 0)
		file_out(a, a->direct, &run, "an O_DIRECT write");
}

static void op_direct_read(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_io(a, op, true, &run) || open_once(&a->direct, O_DIRECT) < 0)
		return;
	new_bounce(a, &run);
	MUST(a, pwrite(a->direct, a->bounce, run_bytes(&run), 0) == (ssize_t)run_bytes(&run));
	MUST(a, pread(a->direct, run_addr(&run), run_bytes(&run), 0) == (ssize_t)run_bytes(&run));
	check_after(a, &run, "a load after an O_DIRECT read");
}

/* ---- io_uring --------------------------------------------------------------------------------- */

/* One request, to its end; its result. */
static int ring_do(struct actor *a, struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int result;

	MUST(a, io_uring_submit(ring) == 1);
	do
		result = io_uring_wait_cqe(ring, &cqe);
	while (result == -EINTR);
	if (result == 0) {
		result = cqe->res;
		io_uring_cqe_seen(ring, cqe);
	}
	return result;
}

static void ring_run(struct actor *a, struct io_uring *ring, const struct run *run, bool write)
{
	unsigned int bytes = (unsigned int)run_bytes(run);
	struct io_uring_sqe *sqe;
	int result;

	/* Registered memory is pinned: it must stay, and what is stored meanwhile is seen. */
	for (uint32_t i = run->first; write && i < run->first + run->n; i++)
		page_store(a, run->region, i, 1);
	if (run_is_private(run))
		pages_out(a, run_addr(run), run_bytes(run));
	if (!write) {
		new_bounce(a, run);
		MUST(a, pwrite(a->file, a->bounce, bytes, 0) == (ssize_t)bytes);
	}
	sqe = io_uring_get_sqe(ring);
	if (write)
		io_uring_prep_write_fixed(sqe, a->file, run_addr(run), bytes, 0, 0);
	else
		io_uring_prep_read_fixed(sqe, a->file, run_addr(run), bytes, 0, 0);
	result = ring_do(a, ring);
	if (result != (int)bytes)
		fail(a, "io_uring moved %d of %u bytes", result, bytes);
	if (write) {
		MUST(a, pread(a->file, a->bounce, bytes, 0) == (ssize_t)bytes);
		check_bounce(a, run, "a write of an io_uring buffer");
	}
	check_after(a, run, "a load after io_uring");
}

static void op_uring(struct actor *a, const struct op *op)
{
	struct iovec buffer;
	struct io_uring ring;
	struct run run;

	/* To be registered it must be writable, whatever it is used for. A process that has left
	 * its pid namespace cannot have the kernel's helper threads. */
	if (a->foreign || !run_for_io(a, op, true, &run) || open_once(&a->file, 0) < 0 ||
	    io_uring_queue_init(2, &ring, 0) < 0)
		return;
	buffer = (struct iovec){ .iov_base = run_addr(&run), .iov_len = run_bytes(&run) };
	/* Without privilege there may be no locked memory for it. */
	if (io_uring_register_buffers(&ring, &buffer, 1) == 0)
		ring_run(a, &ring, &run, op->r[2] & 0x100);
	io_uring_queue_exit(&ring);
}

/* ---- the neighbour --------------------------------------------------------------------------- */

static void op_neighbour_read(struct actor *a, const struct op *op)
{
	struct run run;

	if (a->foreign || !run_for_io(a, op, false, &run))
		return;
	errno = (int)-neighbour_ask(a, run_addr(&run), run_bytes(&run), false);
	MUST(a, a->ask.result == (int64_t)run_bytes(&run));
	check_bounce(a, &run, "a neighbour's process_vm_readv");
}

static void op_neighbour_write(struct actor *a, const struct op *op)
{
	struct run run;

	if (a->foreign || !run_for_io(a, op, true, &run))
		return;
	new_bounce(a, &run);
	errno = (int)-neighbour_ask(a, run_addr(&run), run_bytes(&run), true);
	MUST(a, a->ask.result == (int64_t)run_bytes(&run));
	check_after(a, &run, "a load after a neighbour's process_vm_writev");
}

const struct op_kind ops_io[] = {
	{ "pipe-write", "io", 12, op_pipe_write },
	{ "pipe-read", "io", 12, op_pipe_read },
	{ "vmsplice", "io", 8, op_vmsplice },
	{ "file-write", "io", 6, op_file_write },
	{ "file-read", "io", 6, op_file_read },
	{ "direct-write", "io", 3, op_direct_write },
	{ "direct-read", "io", 3, op_direct_read },
	{ "uring", "io", 3, op_uring },
	{ "neighbour-read", "io", 6, op_neighbour_read },
	{ "neighbour-write", "io", 6, op_neighbour_write },
	{ NULL, NULL, 0, NULL },
};
