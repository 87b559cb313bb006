/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm core`: for kernel.core_pattern. Saves the core dump that the kernel writes to its standard
 * input. Where a managed process had pages away the kernel writes zeros; so when it has written
 * all, they are brought home, read from the dying process and put in their place. One thread.
 *
 * Never here: a file that was there before, or one that others can read.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uhmm/wire.h>

#include "cli.h"
#include "client.h"
#include "move.h"

#define CORE_CHUNK 65536u

struct core {
	int fd;	    /* the dump's file */
	int mem_fd; /* the process's memory */
	size_t page;
};

static int write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

static int core_save(int from, int to)
{
	static char buf[CORE_CHUNK];
	int err = 0;

	while (!err) {
		ssize_t n = read(from, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		err = write_all(to, buf, (size_t)n);
	}
	return err;
}

static bool is_zero(const char *page, size_t len)
{
	return !page[0] && !memcmp(page, page + 1, len - 1);
}

/* [offset, offset + len) of the file is memory from addr on. A page that is zero there and not in
 * the process was away when the kernel read it. */
static int core_fill_chunk(const struct core *core, uint64_t offset, uint64_t addr, size_t len)
{
	static char saved[CORE_CHUNK], now[CORE_CHUNK];
	ssize_t got = pread(core->fd, saved, len, (off_t)offset);

	if (got < 0)
		return -errno;
	for (size_t at = 0; at + core->page <= (size_t)got; at += core->page) {
		if (!is_zero(saved + at, core->page) ||
		    pread(core->mem_fd, now, core->page, (off_t)(addr + at)) !=
			    (ssize_t)core->page ||
		    is_zero(now, core->page))
			continue;
		if (pwrite(core->fd, now, core->page, (off_t)(offset + at)) != (ssize_t)core->page)
			return -errno;
	}
	return 0;
}

static int core_fill_segment(const struct core *core, const Elf64_Phdr *segment)
{
	int err = 0;

	if (segment->p_type != PT_LOAD)
		return 0;
	for (uint64_t at = 0; !err && at < segment->p_filesz; at += CORE_CHUNK) {
		uint64_t left = segment->p_filesz - at;

		err = core_fill_chunk(core, segment->p_offset + at, segment->p_vaddr + at,
				      left < CORE_CHUNK ? left : CORE_CHUNK);
	}
	return err;
}

/* More segments than the header can say are counted in section 0. */
static int core_count_segments(const struct core *core, const Elf64_Ehdr *head, uint32_t *ret_n)
{
	Elf64_Shdr section;

	*ret_n = head->e_phnum;
	if (head->e_phnum != PN_XNUM)
		return 0;
	if (pread(core->fd, &section, sizeof(section), (off_t)head->e_shoff) != sizeof(section))
		return -EBADMSG;
	*ret_n = section.sh_info;
	return 0;
}

static int core_fill(const struct core *core)
{
	Elf64_Ehdr head;
	Elf64_Phdr segment;
	uint32_t n = 0;
	int err = 0;

	if (pread(core->fd, &head, sizeof(head), 0) != sizeof(head) ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_ident[EI_CLASS] != ELFCLASS64 ||
	    head.e_type != ET_CORE || head.e_phentsize != sizeof(segment))
		return -EBADMSG;
	err = core_count_segments(core, &head, &n);
	for (uint32_t i = 0; !err && i < n; i++) {
		off_t at = (off_t)(head.e_phoff + (uint64_t)i * sizeof(segment));

		if (pread(core->fd, &segment, sizeof(segment), at) != sizeof(segment))
			return -EBADMSG;
		err = core_fill_segment(core, &segment);
	}
	return err;
}

/* Most processes that crash are not managed, and then there is nothing to fill. */
static int core_bring_home(const struct cli_args *args, int32_t pid, bool *ret_managed)
{
	struct uhmm_msg_done done = { 0 };
	int err = client_ask(args->socket, UHMM_REQ_RESTORE, pid, 0, UHMM_REQ_FLAG_HOLD, NULL, &done);

	*ret_managed = err == 0 && done.error != -ESRCH;
	if (err == 0 && done.error && done.error != -ESRCH) {
		cli_error("core: process %" PRId32 " cannot be brought home: %s", pid,
			  strerror(-done.error));
		err = done.error;
	}
	return err;
}

static int core_complete(const struct cli_args *args, int32_t pid, int fd)
{
	struct core core = { .fd = fd, .mem_fd = -1, .page = (size_t)sysconf(_SC_PAGESIZE) };
	char path[64];
	bool managed;
	int err;

	/* Opened first: the number may be another process's later. */
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/mem", pid);
	core.mem_fd = open(path, O_RDONLY | O_CLOEXEC);
	err = core_bring_home(args, pid, &managed);
	if (!managed)
		goto out;
	if (core.mem_fd < 0 && err == 0)
		err = -ESRCH;
	if (err == 0)
		err = core_fill(&core);
	if (err < 0)
		cli_error("core: what process %" PRId32 " had away is missing: %s", pid,
			  strerror(-err));
out:
	if (core.mem_fd >= 0)
		(void)close(core.mem_fd);
	return err;
}

int core_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct cli_args args;
	int32_t pid;
	int status, fd, err;

	if (!cli_parse(cmd, 0, argc, argv, &args, &status))
		return status;
	status = move_operand_pid(cmd, &args, 2, &pid);
	if (status)
		return status;
	if (args.n_operands < 2)
		return cli_usage_error(cmd, "where to? A file is missing");
	fd = open(args.operands[1], O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		cli_error("core: %s: %m", args.operands[1]);
		return CLI_EXIT_FAIL;
	}
	err = core_save(STDIN_FILENO, fd);
	if (err < 0)
		cli_error("core: cannot save the dump in %s: %s", args.operands[1], strerror(-err));
	else
		err = core_complete(&args, pid, fd);
	if (close(fd) < 0 && err == 0)
		err = -errno;
	return err ? CLI_EXIT_FAIL : CLI_EXIT_OK;
}
