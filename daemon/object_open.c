/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether an object can be managed, and the way there. Runs on the object thread; reads /proc
 * of every process, and waits for workers, never with a lock held.
 *
 *   1. every process that maps it is enrolled; nobody has a descriptor; it has no name
 *   2. each mapper registers its mappings
 *   3. no thread is still in a fork that began before 2 (threads.c)
 *   4. no other process maps it now than at 2, or 2 and 3 again with all; several looks find
 *      no descriptor
 *
 * After 4 a new mapping can only come from a registered one, and says so. A descriptor cannot
 * come back: there is none, and none is on its way through a socket or held by an io_uring.
 * (/proc/PID/map_files could make one, for who has CAP_CHECKPOINT_RESTORE. And
 * remap_file_pages(2) maps pages of the object anew, in silence.)
 *
 * A look goes through /proc by ascending numbers, as a chain of children does. One that chooses
 * its own numbers (set_tid of clone3, which takes the same capability) can step behind it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "config.h"
#include "guard.h"
#include "log.h"
#include "object.h"
#include "quiesce.h"
#include "util/array.h"

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif
#ifndef F_SEAL_WRITE
#define F_SEAL_WRITE 0x0008
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Workers answer within a few steps of their loops; a beacon has to leave first. */
#define JOIN_PATIENCE_NS 300000000u
#define FORK_PATIENCE_NS 500000000u
#define PAUSE_USEC 2000
/* Children of children: it is tried again later. */
#define JOIN_LOOKS 8u
/* How often one look is tried. */
#define LOOK_TRIES 3u
/* How often, and how long apart, a descriptor is looked for at last. */
#define LOOKS 8u
#define LOOK_PAUSE_USEC 500u

/* ---- /proc --------------------------------------------------------------------------- */

/* What it means that something could not be opened: 0, there is nothing (any more); -EAGAIN, we do
 * not know. A daemon that is not root may not look at processes of other users: there it is
 * taken on trust that nobody sends them descriptors or changes users after a fork. */
static int judge_unopened(int error)
{
	return proc_has_gone(error) || error == EACCES || error == EPERM ? 0 : -EAGAIN;
}

static int read_small(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n < 0 ? (int)n : 0;
}

/* Call fn for each number in the directory; stops at the first that is not 0, and returns it.
 * -EAGAIN: it could not be read. */
static int each_number(const char *path, int (*fn)(void *arg, int number), void *arg)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return judge_unopened(errno);
	while (errno = 0, ret == 0 && (entry = readdir(dir))) {
		char *end;
		long number = strtol(entry->d_name, &end, 10);

		if (end != entry->d_name && *end == '\0')
			ret = fn(arg, (int)number);
	}
	if (ret == 0 && errno)
		ret = judge_unopened(errno);
	closedir(dir);
	return ret;
}

/* The next process after that number, as of now; 0: there is none. `pos` is the place in the
 * directory to look from, not after the one for that number. */
static int next_process(int proc_fd, off_t *pos, int after)
{
	char buf[512] __attribute__((aligned(8)));
	long n;

	while (lseek(proc_fd, *pos, SEEK_SET) >= 0 &&
	       (n = syscall(SYS_getdents64, proc_fd, buf, sizeof(buf))) >= 0) {
		if (n == 0)
			return 0;
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const void *)(buf + at);
			int number = atoi(entry->d_name);

			if (number > after)
				return number;
			*pos = entry->d_off;
			at += entry->d_reclen;
		}
	}
	return -EAGAIN;
}

/* As each_number, for /proc. A list of what is there is old when its end is come to: a child of one
 * that has ended meanwhile may have a number in between. So they are listed one by one. */
static int each_process(int (*fn)(void *arg, int pid), void *arg)
{
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), pid = 0, ret = 0;
	off_t pos = 0;

	if (fd < 0)
		return -EAGAIN;
	while (ret == 0 && (pid = next_process(fd, &pos, pid)) > 0)
		ret = fn(arg, pid);
	close(fd);
	return ret == 0 ? pid : ret;
}

/* The number that was last given to a process or thread; the next is higher, unless they wrap
 * around. */
static int read_last_pid(void)
{
	char text[128], *at;
	int err = read_small("/proc/loadavg", text, sizeof(text));

	at = err < 0 ? NULL : strrchr(text, ' ');
	return at ? atoi(at) : -EAGAIN;
}

/* ---- descriptors --------------------------------------------------------------------- */

struct fd_search {
	dev_t dev;
	uint64_t ino;
	char table[64]; /* "/proc/PID/task/TID" */
	pid_t pid;
};

/* Does the fdinfo of a descriptor count some of these, or can it not be seen? */
static bool fdinfo_counts(const struct fd_search *search, int fd, const char *name)
{
	char path[96], text[4096], *at;
	int err;

	snprintf(path, sizeof(path), "%s/fdinfo/%d", search->table, fd);
	err = read_small(path, text, sizeof(text));
	if (err < 0)
		return !proc_has_gone(-err);
	at = strstr(text, name);
	return at && strtoul(at + strlen(name), NULL, 10) != 0;
}

/* Is this descriptor a way to the object, or may it hide one? */
static int fd_is_way(void *arg, int fd)
{
	const struct fd_search *search = arg;
	char path[96], link[64];
	struct statx st;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/fd/%d", search->table, fd);
	/* Of what is known: a file of a server that does not answer may be among them. Such
	 * file systems also refuse, for good; those of objects do not. */
	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &st) < 0)
		return errno == ENOMEM;
	if (makedev(st.stx_dev_major, st.stx_dev_minor) == search->dev && st.stx_ino == search->ino)
		return 1;
	if (S_ISSOCK(st.stx_mode))
		return fdinfo_counts(search, fd, "scm_fds:");
	if (S_ISREG(st.stx_mode) || S_ISDIR(st.stx_mode) || S_ISCHR(st.stx_mode))
		return 0;
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return !proc_has_gone(errno);
	link[n] = '\0';
	return strcmp(link, "anon_inode:[io_uring]") == 0 &&
	       fdinfo_counts(search, fd, "UserFiles:");
}

static int search_table(struct fd_search *search, pid_t tid)
{
	char path[80];

	snprintf(search->table, sizeof(search->table), "/proc/%d/task/%d", search->pid, tid);
	snprintf(path, sizeof(path), "%s/fd", search->table);
	return each_number(path, fd_is_way, search);
}

/* Is it an agent of ours? What its table holds we gave it. */
static bool is_agent(pid_t pid, pid_t tid)
{
	struct space *space = space_find_pid(pid);
	char path[64], name[32];
	bool agent = false;

	if (!space)
		return false;
	space_unref(space);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	agent = read_small(path, name, sizeof(name)) == 0 && strcmp(name, "uhmm-agent\n") == 0;
	return agent;
}

/* A thread with a table of its own. */
static int search_thread(void *arg, int tid)
{
	struct fd_search *search = arg;

	if (tid == search->pid ||
	    syscall(SYS_kcmp, search->pid, tid, KCMP_FILES, 0, 0) == 0 ||
	    is_agent(search->pid, tid))
		return 0;
	return search_table(search, tid);
}

static int search_process(void *arg, int pid)
{
	struct fd_search *search = arg;
	char path[64];

	if (pid == getpid() || pid == guard_pid())
		return 0;
	search->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	return search_table(search, pid) || each_number(path, search_thread, search);
}

/* In the process that maps it first: that is where one mostly is. */
static bool has_descriptor(const struct object *object, pid_t mapper)
{
	struct fd_search search = { .dev = object->dev, .ino = object->ino };

	return search_process(&search, mapper) || each_process(search_process, &search);
}

/* One that is passed on all the time may go from a table that a look has not come to yet to one
 * that it has seen. That it does so at each of several looks is not to be expected. */
static bool has_moving_descriptor(const struct object *object, pid_t mapper)
{
	for (unsigned int i = 0; i < LOOKS; i++) {
		usleep(LOOK_PAUSE_USEC + i * 777u);
		if (has_descriptor(object, mapper))
			return true;
	}
	return false;
}

/* ---- mappers ------------------------------------------------------------------------- */

struct mapper_search {
	const struct object *object;
	struct maps maps;
	pid_t pid; /* whose threads are looked at */
	int task_fd; /* of its /proc/PID/task */
	bool unsure; /* its mappings changed all the time: one may have been passed over */
	struct space **found;
	uint32_t n, cap;
};

static int mapper_append(struct mapper_search *search, struct space *space)
{
	struct space **found =
		array_room(search->found, search->n, &search->cap, sizeof(struct space *));

	if (!found)
		return -ENOMEM;
	search->found = found;
	search->found[search->n++] = space;
	return 0;
}

static bool maps_object(const struct maps *maps, const struct object *object)
{
	for (size_t i = 0; i < maps->n; i++)
		if (maps->v[i].dev == object->dev && maps->v[i].ino == object->ino)
			return true;
	return false;
}

/* 1: read, and it maps something; 0: it maps nothing, or has gone; -EAGAIN: we do not know. */
static int read_maps(struct maps *maps, const char *path, int task_fd, bool *ret_unsure)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;

	maps->n = 0;
	*ret_unsure = false;
	if (fd < 0)
		return judge_unopened(errno);
	err = maps_read_whole(maps, fd, task_fd);
	close(fd);
	*ret_unsure = err == -EAGAIN;
	return err < 0 && err != -EAGAIN ? -EAGAIN : maps->n != 0;
}

static int read_maps_of_thread(void *arg, int tid)
{
	struct mapper_search *search = arg;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/maps", search->pid, tid);
	return read_maps(&search->maps, path, search->task_fd, &search->unsure);
}

/* A process whose first thread has ended goes on, and shows what it maps only in the others. */
static int read_maps_of_process(struct mapper_search *search, int pid)
{
	char path[64], tasks[64];
	int err;

	search->pid = pid;
	search->maps.n = 0;
	snprintf(tasks, sizeof(tasks), "/proc/%d/task", pid);
	search->task_fd = open(tasks, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (search->task_fd < 0)
		return judge_unopened(errno);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	err = read_maps(&search->maps, path, search->task_fd, &search->unsure);
	if (err == 0)
		err = each_number(tasks, read_maps_of_thread, search);
	close(search->task_fd);
	return err < 0 ? err : 0;
}

static bool is_managed(int pid)
{
	struct space *space = space_find_pid(pid);

	space_unref(space);
	return space != NULL;
}

/* Does this process map the object? Then it must be a space of ours. A stranger whose mappings
 * never hold still would keep us from all objects: it is not to be expected that its only one is
 * passed over by each of several readings. */
static int look_at_process(void *arg, int pid)
{
	struct mapper_search *search = arg;
	struct space *space;
	int err = read_maps_of_process(search, pid);

	if (err < 0)
		return err;
	if (!maps_object(&search->maps, search->object))
		return search->unsure && is_managed(pid) ? -EAGAIN : 0;
	space = space_find_pid(pid);
	if (!space)
		return -EXDEV;
	err = mapper_append(search, space);
	if (err < 0)
		space_unref(space);
	return err;
}

static void forget_mappers(struct mapper_search *search)
{
	object_mappers_free(search->found, search->n);
	search->found = NULL;
	search->n = search->cap = 0;
}

/* Nobody maps it: it was mapped a moment ago, so that somebody has been missed, or is ending.
 * Numbers have wrapped around: somebody's child may be where we have looked already. */
static int look_at_all(struct mapper_search *search)
{
	int before = read_last_pid(), err = each_process(look_at_process, search), after;

	if (err < 0)
		return err;
	after = read_last_pid();
	return search->n == 0 || before < 0 || after < before ? -EAGAIN : 0;
}

static int find_mappers(struct mapper_search *search)
{
	int err = -EAGAIN;

	search->maps = MAPS_NULL;
	for (unsigned int i = 0; i < LOOK_TRIES && err == -EAGAIN; i++) {
		forget_mappers(search);
		err = look_at_all(search);
	}
	maps_deinit(&search->maps);
	return err;
}

/* ---- joining ------------------------------------------------------------------------- */

static int join(struct object *object, struct space *space)
{
	uint64_t until_ns = clock_now_ns() + JOIN_PATIENCE_NS;
	int err;

	if (__atomic_load_n(&space->hold, __ATOMIC_RELAXED) ||
	    __atomic_load_n(&space->quitting, __ATOMIC_RELAXED))
		return -EAGAIN;
	while ((err = object_ask(space, object, MAIL_OBJECT_JOIN, NULL)) == -EAGAIN &&
	       clock_now_ns() < until_ns)
		usleep(PAUSE_USEC);
	return err;
}

static int join_all(struct object *object, const struct mapper_search *search)
{
	int err = 0;

	for (uint32_t i = 0; i < search->n && err == 0; i++) {
		err = join(object, search->found[i]);
		/* It has ended, or has become another program, since we saw it. */
		if (err == -ESRCH || err == -ENOENT)
			err = -EAGAIN;
	}
	return err;
}

/* Also not in a madvise that began when nothing was registered, and says nothing. */
static bool is_not_forking(int task_fd, pid_t tid, const struct threads_call *call)
{
	(void)task_fd;
	(void)tid;
	return call->nr != SYS_clone && call->nr != SYS_clone3 && call->nr != SYS_fork &&
	       call->nr != SYS_vfork && !quiesce_gives_up(call);
}

/* A fork that copied the mappings before they were registered has shown its child by now. */
static int prove_no_fork(const struct mapper_search *search)
{
	uint64_t until_ns = clock_now_ns() + FORK_PATIENCE_NS;
	int err = 0;

	for (uint32_t i = 0; i < search->n && err == 0; i++) {
		struct threads threads = THREADS_NULL;
		int task_fd = openat(search->found[i]->task_fd, ".",
				     O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (task_fd < 0 && proc_has_gone(errno))
			continue;
		if (task_fd < 0 || !threads_note(&threads, task_fd))
			err = space_get_state(search->found[i]) == SPACE_DEAD ? 0 : -EAGAIN;
		while (err == 0 && !threads_are_past(&threads, is_not_forking)) {
			usleep(PAUSE_USEC);
			if (clock_now_ns() > until_ns)
				err = -EAGAIN;
		}
		threads_deinit(&threads);
		if (task_fd >= 0)
			close(task_fd);
	}
	return err;
}

static bool is_found(const struct mapper_search *search, const struct space *space)
{
	uint32_t i = 0;

	while (i < search->n && search->found[i] != space)
		i++;
	return i < search->n;
}

static bool all_are_found(const struct mapper_search *search, const struct mapper_search *of)
{
	uint32_t i = 0;

	while (i < of->n && is_found(search, of->found[i]))
		i++;
	return i == of->n;
}

/* A child that was forked before its parent had joined is found by the next look, and may have
 * children of its own that are not. So it goes on until a look finds nobody new. */
static int join_everybody(struct object *object)
{
	struct mapper_search joined = { .object = object };
	bool all = false;
	int err = 0;

	for (unsigned int i = 0; i < JOIN_LOOKS && !all && err == 0; i++) {
		struct mapper_search now = { .object = object };

		err = find_mappers(&now);
		if (err == 0)
			err = join_all(object, &now);
		all = all_are_found(&joined, &now);
		if (err == 0 && !all)
			err = prove_no_fork(&now);
		forget_mappers(&joined);
		joined = now;
	}
	forget_mappers(&joined);
	return err == 0 && !all ? -EAGAIN : err;
}

/* ---- opening ------------------------------------------------------------------------- */

struct opening {
	const struct mapping *m;
	int fd;
};

static int open_mapped_by(void *arg, int tid)
{
	struct opening *opening = arg;
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", tid,
		 (unsigned long long)opening->m->start, (unsigned long long)opening->m->end);
	opening->fd = open(path, O_RDWR | O_CLOEXEC);
	if (opening->fd < 0)
		opening->fd = -errno;
	return opening->fd >= 0;
}

int object_open_mapped(const struct space *space, const struct mapping *m)
{
	struct opening opening = { .m = m, .fd = -ENOENT };
	char path[64];

	if (open_mapped_by(&opening, space_pid(space)) || opening.fd != -ENOENT)
		return opening.fd;
	/* Its first thread may have ended: then the others show what is mapped. */
	snprintf(path, sizeof(path), "/proc/%d/task", space_pid(space));
	(void)each_number(path, open_mapped_by, &opening);
	return opening.fd;
}

/* What speaks against it, whoever maps it; NONE: nothing. */
static enum uhmm_reason judge_object(const struct object *object, const struct mapping *m, int fd,
				     pid_t mapper)
{
	struct statfs fs;
	struct stat st;
	int seals;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 || st.st_dev != object->dev ||
	    st.st_ino != object->ino)
		return UHMM_REASON_SHARED;
	if (fs.f_type == HUGETLBFS_MAGIC)
		return UHMM_REASON_HUGETLB;
	if (fs.f_type != TMPFS_MAGIC)
		return UHMM_REASON_FILE;
	if (st.st_nlink)
		return UHMM_REASON_NAMED;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals > 0 && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return UHMM_REASON_READONLY;
	if (!m->is_zero_device && has_descriptor(object, mapper))
		return UHMM_REASON_FD_OPEN;
	return UHMM_REASON_NONE;
}

/* What a successor needs to find the records again. */
static void publish_records(const struct object *object)
{
	struct arena_object *unit = &object->family->arena.header->object;

	unit->dev = object->dev;
	unit->ino = object->ino;
	unit->number = object->number;
	unit->store = object->store->unit->index;
	arena_publish(&unit->root, object->map.root);
}

static int prepare_records(struct object *object, const struct daemon_env *env)
{
	int err;

	if (object->family)
		return 0;
	err = family_new(registry_new_id(), env->config->state_dir, env->config->max_arena_bytes,
			 &object->family);
	if (err < 0) {
		object->family = NULL;
		return err;
	}
	err = pagemap_init(&object->map, object->family);
	if (err == 0)
		err = family_add_store(object->family, env->tier, object->number, &object->store);
	if (err < 0) {
		pagemap_deinit(&object->map);
		object->family = family_unref(object->family);
		return err;
	}
	publish_records(object);
	return 0;
}

static enum uhmm_reason reason_of(int err)
{
	switch (err) {
	case -EXDEV:
		return UHMM_REASON_FOREIGN;
	case -ENOTCONN:
		return UHMM_REASON_NO_AGENT;
	case -EBUSY:
		return UHMM_REASON_APP_UFFD;
	case -ENOTSUP:
		return UHMM_REASON_FILE;
	case -EACCES:
		return UHMM_REASON_READONLY;
	default:
		return UHMM_REASON_SHARED; /* not now: it is tried again */
	}
}

int object_open(struct object *object, struct space *space, const struct mapping *m,
		const struct daemon_env *env)
{
	enum uhmm_reason reason = UHMM_REASON_NO_ROOM;
	int fd = object_open_mapped(space, m), err = -EBUSY;

	if (fd < 0) {
		__atomic_store_n(&object->reason, UHMM_REASON_READONLY, __ATOMIC_RELAXED);
		return -EBUSY;
	}
	reason = judge_object(object, m, fd, space_pid(space));
	if (reason == UHMM_REASON_NONE && object->fd < 0) {
		object->fd = fd;
		fd = -1;
	}
	if (fd >= 0)
		close(fd);
	if (reason == UHMM_REASON_NONE) {
		err = prepare_records(object, env);
		reason = UHMM_REASON_NO_ROOM;
	}
	if (err == 0) {
		err = join_everybody(object);
		reason = err ? reason_of(err) : UHMM_REASON_NONE;
	}
	if (err == 0 && !m->is_zero_device && has_moving_descriptor(object, space_pid(space))) {
		err = -EBUSY;
		reason = UHMM_REASON_FD_OPEN;
	}
	object_lock(object);
	object->open = err == 0;
	object_stamp(object);
	object_unlock(object);
	__atomic_store_n(&object->reason, reason, __ATOMIC_RELAXED);
	if (err < 0)
		object_close(object);
	else
		log_debug("shared memory (inode %llu): open", (unsigned long long)object->ino);
	return err < 0 ? -EBUSY : 0;
}

void object_close(struct object *object)
{
	struct space **mappers;
	uint64_t gen;
	uint32_t n;

	object_lock(object);
	object->open = object->family && (object->map.n_away || object->map.n_poisoned);
	object_unlock(object);
	if (object->open)
		return;
	mappers = object_mappers(object, &n, &gen);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t until_ns = clock_now_ns() + JOIN_PATIENCE_NS;

		while (object_ask(mappers[i], object, MAIL_OBJECT_LEAVE, NULL) == -EAGAIN &&
		       clock_now_ns() < until_ns)
			usleep(PAUSE_USEC);
	}
	object_mappers_free(mappers, n);
}
