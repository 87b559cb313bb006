/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The proof of a pass, after its protection: a page that was pinned before, for a device to
 * write, would take the bytes along when it leaves the object. A pin taken later had to fault.
 * Pins cannot be seen; who can hold one can: a thread in a system call that may, and rings and
 * devices that do I/O on their own. On the object thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "object_pass.h"

#define PROVE_PATIENCE_NS 300000000u

/* Asleep where no page of memory can be pinned for a device to write. Anything that is not in
 * this list counts as if it could. */
static bool never_pins(long nr)
{
	static const int calls[] = {
		SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_poll, SYS_ppoll,
		SYS_select, SYS_pselect6, SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2,
		SYS_futex, SYS_nanosleep, SYS_clock_nanosleep, SYS_wait4, SYS_waitid, SYS_pause,
		SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_accept, SYS_accept4, SYS_connect,
		SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
		SYS_flock, SYS_fcntl, SYS_fsync, SYS_fdatasync, SYS_msync, SYS_semop,
		SYS_semtimedop, SYS_msgrcv, SYS_msgsnd, SYS_mq_timedreceive, SYS_mq_timedsend,
		SYS_madvise, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_brk, SYS_clone,
		SYS_clone3, SYS_fork, SYS_vfork, SYS_execve, SYS_exit, SYS_exit_group, SYS_openat,
		SYS_close, SYS_sched_yield, SYS_restart_syscall,
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (nr == calls[i])
			return true;
	return false;
}

/* Is the descriptor that this thread reads from one for direct I/O? */
static bool reads_direct(int task_fd, pid_t tid, uint64_t fd)
{
	char path[64], text[512], *at;
	ssize_t n = -1;
	int info;

	snprintf(path, sizeof(path), "%d/fdinfo/%llu", tid, (unsigned long long)fd);
	info = openat(task_fd, path, O_RDONLY | O_CLOEXEC);
	if (info >= 0) {
		n = read(info, text, sizeof(text) - 1);
		close(info);
	}
	if (n <= 0)
		return true;
	text[n] = '\0';
	at = strstr(text, "flags:");
	return !at || strtoul(at + 6, NULL, 8) & O_DIRECT;
}

static bool cannot_pin(int task_fd, pid_t tid, const struct threads_call *call)
{
	if (call->nr < 0 || never_pins(call->nr))
		return true;
	if (call->nr == SYS_read || call->nr == SYS_readv || call->nr == SYS_pread64 ||
	    call->nr == SYS_preadv || call->nr == SYS_preadv2)
		return !reads_direct(task_fd, tid, call->args[0]);
	return false;
}

/* Does what is open here take memory, to let a device write to it behind a thread's back? */
static bool link_pins(const char *link)
{
	static const char *const prefixes[] = {
		"anon_inode:[io_uring]",
		"/dmabuf:",
		"/dev/infiniband/",
		"/dev/iommu",
		"/dev/nvidia",
		"/dev/sg",
		"/dev/udmabuf",
		"/dev/vfio/",
		"/dev/vhost",
		"/dev/video",
	};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(link, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

/* Its memory stays pinned when none of its rings are mapped any more. */
static bool is_xdp_socket(const char *table, const char *name, const char *link)
{
	char path[96], protocol[16];
	ssize_t n;

	if (strncmp(link, "socket:[", 8) != 0)
		return false;
	snprintf(path, sizeof(path), "%s/%.16s", table, name);
	n = getxattr(path, "system.sockprotoname", protocol, sizeof(protocol));
	if (n < 0) /* a longer name; a kernel without names; it has been closed */
		return errno != ERANGE && errno != ENODATA && errno != EOPNOTSUPP &&
		       !proc_has_gone(errno);
	return n == 4 && memcmp(protocol, "XDP", 4) == 0;
}

static bool entry_pins(int table_fd, const char *table, const char *name)
{
	char link[64];
	ssize_t n = readlinkat(table_fd, name, link, sizeof(link) - 1);

	if (n < 0) /* "." and ".." are no links */
		return errno != EINVAL && !proc_has_gone(errno);
	link[n] = '\0';
	return link_pins(link) || is_xdp_socket(table, name, link);
}

/* Is there a way in this table of descriptors to let a device write behind a thread's back? */
static bool table_pins(const char *path)
{
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir(path);

	if (!dir)
		return !proc_has_gone(errno);
	while (errno = 0, !found && (entry = readdir(dir)))
		found = entry_pins(dirfd(dir), path, entry->d_name);
	if (errno && !proc_has_gone(errno))
		found = true;
	closedir(dir);
	return found;
}

/* A thread with a table of its own; also when the first thread has ended, and its table. */
static bool own_table_is_free(void *arg, int task_fd, pid_t tid)
{
	const struct space *space = arg;
	char path[64];

	(void)task_fd;
	if (tid == space_pid(space) || syscall(SYS_kcmp, space_pid(space), tid, KCMP_FILES, 0, 0) == 0)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/fd", space_pid(space), tid);
	return !table_pins(path);
}

/* Does the program have a way to let a device write to its memory behind its back? */
static bool pins_behind(struct space *space, const struct maps *maps, int task_fd)
{
	char path[64];

	for (size_t i = 0; i < maps->n; i++)
		if (maps->v[i].pins_memory)
			return true;
	snprintf(path, sizeof(path), "/proc/%d/fd", space_pid(space));
	return !pass_is_gone(space) &&
	       (table_pins(path) || !threads_each(task_fd, own_table_is_free, space));
}

static int prove_threads(const struct space *space, int task_fd)
{
	uint64_t until_ns = clock_now_ns() + PROVE_PATIENCE_NS;
	struct threads threads = THREADS_NULL;
	int err = 0;

	if (!threads_note(&threads, task_fd))
		err = pass_is_gone(space) ? 0 : -EAGAIN;
	while (err == 0 && !threads_are_past(&threads, cannot_pin)) {
		usleep(PASS_PAUSE_USEC);
		if (clock_now_ns() > until_ns)
			err = pass_is_gone(space) ? 0 : -EBUSY;
	}
	threads_deinit(&threads);
	return err;
}

static int prove_here(struct space *space)
{
	int task_fd = openat(space->task_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;
	struct maps maps = MAPS_NULL;

	if (task_fd < 0)
		return proc_has_gone(errno) || pass_is_gone(space) ? 0 : -EAGAIN;
	err = maps_read(&maps, space->maps_fd) < 0 && !pass_is_gone(space) ? -EAGAIN : 0;
	if (err == 0 && pins_behind(space, &maps, task_fd))
		err = -EBUSY;
	if (err == 0)
		err = prove_threads(space, task_fd);
	maps_deinit(&maps);
	close(task_fd);
	return err;
}

int pass_prove(struct pass *pass)
{
	int err = 0;

	for (uint32_t i = 0; i < pass->n_mappers && err == 0; i++)
		err = prove_here(pass->mappers[i]);
	__atomic_store_n(&pass->object->reason,
			 err == -EBUSY ? UHMM_REASON_DIRECT_IO : UHMM_REASON_NONE,
			 __ATOMIC_RELAXED);
	return err;
}
