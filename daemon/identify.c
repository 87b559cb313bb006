/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whose memory is a forked child's? The FORK event brings a userfaultfd and no pid, and a
 * fault names a thread by its number in a pid namespace that we may not be in. So the memory
 * itself is asked: the beacon page is write-protected and released again through the
 * userfaultfd, in a pattern that nobody else knows, and the process whose pagemap shows that
 * pattern is the one. That leaves the page as it was, hole or not.
 *
 * Called by the space's worker, for a space whose process has not enrolled by itself. The first
 * try is cheap; looking over all of /proc is done at growing intervals. Nothing that was opened
 * for a process that is not the one stays open.
 */
#define _GNU_SOURCE
#include "identify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "comeback.h"
#include "log.h"
#include "uffd.h"

/* Steps of the pattern: one bit of the space's token each. */
#define PROOF_STEPS 32u
/* Between two looks over /proc. */
#define SCAN_MIN_NS 10000000u
#define SCAN_MAX_NS 1000000000u

static bool proof_step(const struct space *space, int pagemap_fd, bool protect)
{
	uint64_t entry, addr = space->layout.beacon_addr;
	enum uffd_result result = protect ? uffd_mark(space->uffd, addr, space->page_size)
					  : uffd_unmark(space->uffd, addr, space->page_size);

	return result == UFFD_OK &&
	       pread(pagemap_fd, &entry, sizeof(entry),
		     (off_t)(space_pgidx(space, addr) * sizeof(entry))) == sizeof(entry) &&
	       !!(entry & UHMM_PAGEMAP_UFFD_WP) == protect;
}

static bool is_ours(const struct space *space, int pagemap_fd)
{
	bool ours = true;

	for (uint32_t i = 0; i < PROOF_STEPS && ours; i++)
		ours = proof_step(space, pagemap_fd, space->token[i / 8] >> (i % 8) & 1);
	/* Protected it must not stay. */
	return uffd_unmark(space->uffd, space->layout.beacon_addr, space->page_size) == UFFD_OK &&
	       ours;
}

/* Of the process that status_fd is about. */
static pid_t tgid_of(int status_fd)
{
	char text[4096], *at;
	ssize_t n = pread(status_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = '\0';
	at = strstr(text, "\nTgid:");
	return at ? atoi(at + 6) : -1;
}

/* Open what is needed, and make sure that it was still the same. */
static bool open_ours(struct space *space, pid_t id)
{
	return space_open_proc(space, id) == 0 && is_ours(space, space->pagemap_fd);
}

/* `tid` is a thread of it. It may end before the process does, so the process's own files are
 * better, unless its first thread has ended: then they are empty. */
static bool take_process(struct space *space, pid_t tid)
{
	pid_t pid = open_ours(space, tid) ? tgid_of(space->status_fd) : -1;

	if (pid > 0 && pid != tid && !open_ours(space, pid) && !open_ours(space, tid))
		pid = -1;
	if (pid <= 0) {
		space_close_proc(space);
		return false;
	}
	__atomic_store_n(&space->pid, pid, __ATOMIC_RELAXED);
	space->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	__atomic_store_n(&space->identified, true, __ATOMIC_RELEASE);
	if (space->registered.n == 0)
		comeback_find_registered(space);
	log_debug("space %llu: is the memory of pid %d", (unsigned long long)space->id, pid);
	return true;
}

/* -ESRCH: it has no memory (any more). */
static int try_thread(struct space *space, pid_t tid)
{
	char path[64];
	uint64_t entry;
	int fd, ret;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ESRCH;
	if (pread(fd, &entry, sizeof(entry), 0) != sizeof(entry))
		ret = -ESRCH;
	else
		ret = is_ours(space, fd);
	close(fd);
	return ret > 0 ? take_process(space, tid) : ret;
}

/* A leader that has ended has no memory any more; its other threads have. */
static bool try_process(struct space *space, pid_t pid)
{
	int found = try_thread(space, pid);
	struct dirent *entry;
	char path[64];
	DIR *task;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	task = found == -ESRCH ? opendir(path) : NULL;
	if (!task)
		return found > 0;
	while (found == -ESRCH && (entry = readdir(task)))
		if (atoi(entry->d_name) > 0)
			found = try_thread(space, atoi(entry->d_name));
	closedir(task);
	return found > 0;
}

static bool look_over_all(struct space *space)
{
	struct dirent *entry;
	DIR *proc = opendir("/proc");
	bool found = false;

	if (!proc)
		return false;
	while (!found && (entry = readdir(proc)))
		if (atoi(entry->d_name) > 0)
			found = try_process(space, atoi(entry->d_name));
	closedir(proc);
	return found;
}

bool identify_by_fault(struct space *space, uint32_t tid)
{
	uint64_t now_ns = clock_now_ns();
	bool found;

	if (now_ns < space->identify_next_ns)
		return false;
	found = try_thread(space, (pid_t)tid) > 0 || look_over_all(space);
	if (space->identify_pause_ns < SCAN_MAX_NS)
		space->identify_pause_ns = space->identify_pause_ns ? 2 * space->identify_pause_ns
								    : SCAN_MIN_NS;
	space->identify_next_ns = clock_now_ns() + space->identify_pause_ns;
	return found;
}
