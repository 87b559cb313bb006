/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks at the threads of a program through its /proc/PID/task. Called by workers
 * (quiesce.c) and by the thread of shared objects; a threads set belongs to its caller.
 *
 * What may never happen here: to call a thread past because a file could not be read for a
 * reason other than that the thread has gone.
 */
#define _GNU_SOURCE
#include "threads.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/array.h"

/* Threads that end all the time may spoil so many listings. */
#define LIST_TRIES 16
/* The name of a function of the kernel, cut off. */
#define FUNCTION_MAX 128

void threads_deinit(struct threads *threads)
{
	free(threads->v);
	*threads = THREADS_NULL;
}

static ssize_t read_file_at(int dir_fd, const char *path, char *text, size_t size)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

static ssize_t read_task_file(int task_fd, pid_t tid, const char *name, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "%d/%s", tid, name);
	return read_file_at(task_fd, path, text, size);
}

/* Nanoseconds on a processor. 0, -ENOENT or -ESRCH (it has gone), or another errno. */
static int read_run_time(int task_fd, pid_t tid, uint64_t *ret_ns)
{
	char text[128];
	ssize_t n = read_task_file(task_fd, tid, "schedstat", text, sizeof(text));

	if (n <= 0)
		return n < 0 ? (int)n : -ESRCH;
	*ret_ns = strtoull(text, NULL, 10);
	return 0;
}

bool threads_read_call(int task_fd, pid_t tid, struct threads_call *ret_call)
{
	char text[256], *at;

	if (read_task_file(task_fd, tid, "syscall", text, sizeof(text)) <= 0)
		return false;
	ret_call->nr = strtol(text, &at, 10);
	if (at == text) /* "running" */
		return false;
	for (unsigned int i = 0; i < 6; i++)
		ret_call->args[i] = ret_call->nr < 0 ? 0 : strtoull(at, &at, 16);
	ret_call->sp = strtoull(at, NULL, 16);
	return true;
}

/* The letter for its state, or 0. */
static char read_state(int task_fd, pid_t tid)
{
	char text[512], *at;

	if (read_task_file(task_fd, tid, "stat", text, sizeof(text)) <= 0)
		return 0;
	at = strrchr(text, ')');
	return at && at[1] == ' ' ? at[2] : 0;
}

static bool read_function(int task_fd, pid_t tid, char text[FUNCTION_MAX])
{
	return read_task_file(task_fd, tid, "wchan", text, FUNCTION_MAX) > 0;
}

/* One that is about to sleep shows no function before it has left its processor. To ask for its
 * call waits until it has. */
bool threads_sleeps_in(int task_fd, pid_t tid, const char *function, struct threads_call *ret_call)
{
	char text[FUNCTION_MAX];
	bool shown = read_function(task_fd, tid, text);

	if (shown && strcmp(text, "0") == 0 && read_state(task_fd, tid) == 'D')
		shown = threads_read_call(task_fd, tid, ret_call) &&
			read_function(task_fd, tid, text);
	return shown && strncmp(text, function, strlen(function)) == 0 &&
	       threads_read_call(task_fd, tid, ret_call);
}

struct tids {
	pid_t *v;
	uint32_t n, cap;
};

static bool add_tid(struct tids *tids, pid_t tid)
{
	pid_t *v = array_room(tids->v, tids->n, &tids->cap, sizeof(*v));

	if (!v)
		return false;
	tids->v = v;
	tids->v[tids->n++] = tid;
	return true;
}

static bool list_once(int task_fd, struct tids *tids)
{
	char buf[4096] __attribute__((aligned(8)));
	long n;

	tids->n = 0;
	if (lseek(task_fd, 0, SEEK_SET) < 0)
		return false;
	while ((n = syscall(SYS_getdents64, task_fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const void *)(buf + at);
			pid_t tid = (pid_t)atoi(entry->d_name);

			at += entry->d_reclen;
			if (tid > 0 && !add_tid(tids, tid))
				return false;
		}
	}
	return n == 0;
}

/* The kernel goes on in its list by position, so a thread that ends meanwhile may hide another.
 * Then the next listing lacks it. New ones come last. */
static bool list_all(int task_fd, struct tids *ret_tids)
{
	struct tids before = { 0 };
	bool same = false, listed = list_once(task_fd, &before);

	for (int i = 0; i < LIST_TRIES && listed && !same; i++) {
		struct tids last;

		listed = list_once(task_fd, ret_tids);
		same = listed && ret_tids->n >= before.n &&
		       (before.n == 0 ||
			memcmp(ret_tids->v, before.v, before.n * sizeof(pid_t)) == 0);
		last = *ret_tids;
		if (!same) {
			*ret_tids = before;
			before = last;
		}
	}
	free(before.v);
	return same;
}

bool threads_each(int task_fd, bool (*fn)(void *arg, int task_fd, pid_t tid), void *arg)
{
	struct tids tids = { 0 };
	bool all = list_all(task_fd, &tids);

	for (uint32_t i = 0; i < tids.n && all; i++)
		all = fn(arg, task_fd, tids.v[i]);
	free(tids.v);
	return all;
}

/* proc counts threads as links, two more than there are. */
uint32_t threads_count(int task_fd)
{
	struct stat st;

	return fstat(task_fd, &st) == 0 && st.st_nlink > 2 ? (uint32_t)st.st_nlink - 2 : 0;
}

static bool read_mapped_pages(void *arg, int task_fd, pid_t tid)
{
	uint64_t *pages = arg;
	char text[128];

	if (read_task_file(task_fd, tid, "statm", text, sizeof(text)) > 0)
		*pages = strtoull(text, NULL, 10);
	return *pages == 0;
}

/* The first thread stands for all; where it has ended it shows none, and another does. */
uint64_t threads_mapped_pages(int task_fd)
{
	uint64_t pages = 0;
	char text[128];

	if (read_file_at(task_fd, "../statm", text, sizeof(text)) > 0)
		pages = strtoull(text, NULL, 10);
	if (pages == 0)
		(void)threads_each(task_fd, read_mapped_pages, &pages);
	return pages;
}

/* What the thread is called in the innermost of the pid namespaces that it is in; 0: gone. */
static pid_t read_own_tid(int task_fd, pid_t tid)
{
	char text[4096], *at, *end;

	if (read_task_file(task_fd, tid, "status", text, sizeof(text)) <= 0)
		return 0;
	at = strstr(text, "\nNSpid:");
	end = at ? strchr(at + 1, '\n') : NULL;
	if (!end)
		return 0;
	*end = '\0';
	return (pid_t)atoi(strrchr(at, '\t') + 1);
}

struct search {
	pid_t own_tid, found;
};

static bool search_thread(void *arg, int task_fd, pid_t tid)
{
	struct search *search = arg;

	if (read_own_tid(task_fd, tid) == search->own_tid)
		search->found = tid;
	return search->found == 0;
}

pid_t threads_find(int task_fd, pid_t own_tid)
{
	struct search search = { .own_tid = own_tid };

	if (read_own_tid(task_fd, own_tid) == own_tid)
		return own_tid;
	(void)threads_each(task_fd, search_thread, &search);
	return search.found;
}

static bool note_thread(void *arg, int task_fd, pid_t tid)
{
	struct threads *threads = arg;
	struct threads_entry *v;
	uint64_t ns = 0;
	int err = read_run_time(task_fd, tid, &ns);

	if (err < 0)
		return err == -ENOENT || err == -ESRCH;
	v = array_room(threads->v, threads->n, &threads->cap, sizeof(*v));
	if (!v)
		return false;
	threads->v = v;
	threads->v[threads->n++] = (struct threads_entry){ .tid = tid, .run_ns = ns };
	return true;
}

bool threads_note(struct threads *threads, int task_fd)
{
	threads->n = 0;
	threads->task_fd = task_fd;
	return threads_each(task_fd, note_thread, threads);
}

/* Stopped by a signal or a debugger: that happens on the way into a system call and out of it,
 * never within, whatever call it shows, and it may stay so for ever. */
static bool is_stopped(int task_fd, pid_t tid)
{
	char state = read_state(task_fd, tid);

	return state == 'T' || state == 't';
}

bool threads_sleeps(int task_fd, pid_t tid)
{
	char state = read_state(task_fd, tid);

	return state != 0 && state != 'R';
}

static bool thread_is_past(const struct threads *threads, const struct threads_entry *entry,
			   threads_judge judge)
{
	struct threads_call call;
	uint64_t ns = 0;
	int err = read_run_time(threads->task_fd, entry->tid, &ns);

	if (err < 0)
		return err == -ENOENT || err == -ESRCH;
	return ns - entry->run_ns >= threads->run_ns ||
	       (threads_read_call(threads->task_fd, entry->tid, &call) &&
		judge(threads->task_fd, entry->tid, &call)) ||
	       is_stopped(threads->task_fd, entry->tid);
}

bool threads_are_past(struct threads *threads, threads_judge judge)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < threads->n; i++)
		if (!thread_is_past(threads, &threads->v[i], judge))
			threads->v[kept++] = threads->v[i];
	threads->n = kept;
	return kept == 0;
}
