/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages of an open object leave, a pass at a time. Runs on the object thread.
 *
 *   pick     what the object has, from the hand on; records LEAVING, slots taken
 *   protect  every mapping of these pages, in every mapper, write-protected; the kernel's
 *            pagemap says so. A store from now on is a message, and takes the page back
 *   prove    no thread is in a system call that may have pinned a page before: the pin of a
 *            direct read would go on writing into a page that has left
 *   copy     an agent of a mapper reads the object and writes the slots, so that they are
 *            charged to its cgroup; for other tiers the daemon does
 *   punch    under the lock, with no madvise and no fork under way: what is still LEAVING
 *            becomes a hole, and STORED
 *
 * A page that is wanted meanwhile simply ceases to be LEAVING. Each slot carries a reference
 * of the pass beside the record's until the agent has answered. If this thread stops anywhere,
 * the object still has every byte until its punch, and the slot has it after.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "object.h"
#include "pinned.h"
#include "store_slots.h"
#include "tier.h"
#include "uffd.h"

/* Pages of one pass: the proof costs tens of milliseconds, whatever their number. */
#define PASS_PAGES 8192u
#define PROTECT_TRIES 20
#define PROVE_PATIENCE_NS 300000000u
#define PAUSE_USEC 2000
#define SCAN_REGIONS 8u

/* How a pass ends. */
enum pass_end { PASS_DONE, PASS_STUCK };

struct pass {
	struct object *object;
	struct space **mappers;
	uint32_t n_mappers;
	uint64_t gen;
	uint32_t n_pages;
	uint64_t *page; /* of the object, ascending */
	uint64_t *slot;
	struct object_copy *copy;
	uint64_t left; /* pages that have left */
};

/* ---- pick -------------------------------------------------------------------------------------- */

/* May this page leave? Spares a referenced one once. */
static bool wants(struct object *object, uint64_t page, bool any)
{
	struct page_rec rec = pagemap_get(&object->map, page);

	if (page_rec_state(rec) != PAGE_RESIDENT)
		return false;
	if (!(rec.v & PAGE_REC_REFERENCED))
		return true;
	(void)pagemap_set(&object->map, page, (struct page_rec){ 0 });
	return any;
}

/* Pages that the object has in [from, end), from `from` on. Returns where it stopped. */
static uint64_t pick(struct pass *pass, uint64_t from, uint64_t end, uint64_t want, bool any)
{
	struct object *object = pass->object;
	uint64_t at = from;

	pthread_mutex_lock(&object->lock);
	while (at < end && pass->n_pages < want) {
		off_t data = lseek(object->fd, (off_t)(at << object->page_shift), SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(object->fd, data, SEEK_HOLE);
		uint64_t stop;

		if (data < 0 || hole < 0) {
			at = end;
			break;
		}
		at = (uint64_t)data >> object->page_shift;
		stop = ((uint64_t)hole + object->page_size - 1) >> object->page_shift;
		for (; at < stop && at < end && pass->n_pages < want; at++)
			if (wants(object, at, any))
				pass->page[pass->n_pages++] = at;
	}
	pthread_mutex_unlock(&object->lock);
	return at;
}

static bool mark_leaving(struct pass *pass)
{
	struct object *object = pass->object;
	uint32_t store = object->store->unit->index, i = 0;

	pthread_mutex_lock(&object->lock);
	for (; i < pass->n_pages; i++) {
		int err;

		pthread_mutex_lock(&object->family->lock);
		err = family_slot_ref(object->family, store, pass->slot[i]);
		pthread_mutex_unlock(&object->family->lock);
		if (err == 0)
			err = pagemap_set(&object->map, pass->page[i],
					  page_rec_make(PAGE_LEAVING, store, pass->slot[i]));
		if (err == 0)
			continue;
		pthread_mutex_lock(&object->family->lock);
		family_slot_unref(object->family, store, pass->slot[i]);
		pthread_mutex_unlock(&object->family->lock);
		break;
	}
	pthread_mutex_unlock(&object->lock);
	return i == pass->n_pages;
}

/* The record of page i, if it is still this pass's. With the lock held. */
static bool is_leaving(const struct pass *pass, uint32_t i, struct page_rec *ret_rec)
{
	*ret_rec = pagemap_get(&pass->object->map, pass->page[i]);
	return page_rec_state(*ret_rec) == PAGE_LEAVING &&
	       page_rec_slot(*ret_rec) == pass->slot[i];
}

/* What has not left stays. It may be write-protected still: a store will tell. */
static void take_back(struct pass *pass)
{
	struct page_rec rec;

	pthread_mutex_lock(&pass->object->lock);
	for (uint32_t i = 0; i < pass->n_pages; i++)
		if (is_leaving(pass, i, &rec))
			(void)pagemap_set(&pass->object->map, pass->page[i],
					  page_rec_move(rec, PAGE_RESIDENT));
	pthread_mutex_unlock(&pass->object->lock);
}

static void release_slots(struct pass *pass)
{
	struct family *family = pass->object->family;

	pthread_mutex_lock(&family->lock);
	for (uint32_t i = 0; i < pass->n_pages; i++)
		family_slot_unref(family, pass->object->store->unit->index, pass->slot[i]);
	pthread_mutex_unlock(&family->lock);
}

/* ---- protect ------------------------------------------------------------------------------------ */

static void forget_mappers(struct pass *pass)
{
	object_mappers_free(pass->mappers, pass->n_mappers);
	pass->mappers = NULL;
	pass->n_mappers = 0;
}

static bool is_gone(const struct space *space)
{
	return space_get_state(space) == SPACE_DEAD;
}

static bool maps_here(const struct pass *pass, const struct mapping *m)
{
	return m->shared && m->dev == pass->object->dev && m->ino == pass->object->ino;
}

/* Index of the first page of the pass at or after this page of the object. */
static uint32_t first_at(const struct pass *pass, uint64_t page)
{
	uint32_t lo = 0, hi = pass->n_pages;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (pass->page[mid] < page)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Pages i.. of the pass that follow one another, before page `end` of the object. */
static uint32_t run_of(const struct pass *pass, uint32_t i, uint64_t end)
{
	uint32_t n = 1;

	while (i + n < pass->n_pages && pass->page[i + n] == pass->page[i] + n &&
	       pass->page[i + n] < end)
		n++;
	return n;
}

/* A write-protection that met nothing that has changed since its worker looked. */
static int protect_run(const struct pass *pass, struct space *space, uint64_t addr, uint32_t n)
{
	switch (uffd_mark(space->uffd, addr, (uint64_t)n << pass->object->page_shift)) {
	case UFFD_OK:
		return 0;
	case UFFD_GONE:
		space->gone = true;
		return 0;
	case UFFD_AGAIN:
	case UFFD_EXISTS:
	case UFFD_NO_VMA:
	case UFFD_NO_MEM:
	case UFFD_ERROR:
		break;
	}
	return -EAGAIN;
}

/* Is there a page in the run that could be stored to without a message? A store that was let
 * through took its page back: only what is still LEAVING counts. */
static int check_run(const struct pass *pass, struct space *space, uint64_t addr, uint32_t i,
		     uint32_t n)
{
	struct page_region regions[SCAN_REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = addr,
		.end = addr + ((uint64_t)n << pass->object->page_shift),
		.vec = (uintptr_t)regions,
		.vec_len = SCAN_REGIONS,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_PRESENT,
	};
	int found = ioctl(space->pagemap_fd, PAGEMAP_SCAN, &arg), err = 0;
	struct page_rec rec;

	if (found <= 0)
		return found == 0 || space->gone ? 0 : -EAGAIN;
	if (found == (int)SCAN_REGIONS)
		return -EAGAIN;
	pthread_mutex_lock(&pass->object->lock);
	for (int r = 0; r < found; r++)
		for (uint64_t at = regions[r].start; at < regions[r].end; at += space->page_size)
			if (is_leaving(pass, i + (uint32_t)((at - addr) >> space->page_shift),
				       &rec))
				err = -EAGAIN;
	pthread_mutex_unlock(&pass->object->lock);
	return err;
}

static int protect_mapping(const struct pass *pass, struct space *space, const struct mapping *m)
{
	unsigned int shift = pass->object->page_shift;
	uint64_t first = m->offset >> shift, end = first + ((m->end - m->start) >> shift);
	int err = 0;

	/* Locked memory is a promise to the program. */
	if (m->reason == UHMM_REASON_LOCKED)
		return -EPERM;
	for (uint32_t i = first_at(pass, first);
	     err == 0 && i < pass->n_pages && pass->page[i] < end;) {
		uint64_t addr = m->start + ((pass->page[i] - first) << shift);
		uint32_t n = run_of(pass, i, end);

		err = protect_run(pass, space, addr, n);
		if (err == 0)
			err = check_run(pass, space, addr, i, n);
		i += n;
	}
	return err;
}

/* Runs on the worker, which alone reads events: the mappings that it sees are registered, so
 * whatever changes one of them meanwhile leaves an event unread, and write-protecting fails. */
int object_protect(struct space *space, const void *arg)
{
	const struct pass *pass = arg;
	int err;

	/* A child that we know no process of yet: nobody knows where it maps what. */
	if (space->n_events || !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    space->hold || space->quitting || uffd_settled(space->uffd) != UFFD_OK)
		return -EAGAIN;
	err = maps_read(&space->maps, space->maps_fd);
	if (err == 0 && stats_get(&space->locked_kb))
		err = maps_apply_smaps(&space->maps, space->smaps_fd);
	space->maps_read_ns = 0; /* without pick.c's own verdicts: it reads them again */
	for (size_t i = 0; i < space->maps.n && err == 0; i++)
		if (maps_here(pass, &space->maps.v[i]))
			err = protect_mapping(pass, space, &space->maps.v[i]);
	return err;
}

/* Everything that was read of this space has been applied. */
static bool has_applied(const struct space *space)
{
	return is_gone(space) || !__atomic_load_n(&space->reading, __ATOMIC_SEQ_CST);
}

/* With the lock held: nobody maps it who did not when the pass looked. */
static bool same_mappers(const struct pass *pass)
{
	for (uint32_t i = 0; i < pass->n_mappers; i++)
		if (!has_applied(pass->mappers[i]))
			return false;
	return pass->object->gen == pass->gen && !pass->object->broken;
}

/*
 * A mapping that is made after its origin was protected inherits that (fork), or has no page
 * in it (mremap), and then the first touch is a message. One that was made by a fork before is
 * a mapper's by now, unless that event is not applied.
 */
static int protect_once(struct pass *pass)
{
	int err = 0;

	forget_mappers(pass);
	pass->mappers = object_mappers(pass->object, &pass->n_mappers, &pass->gen);
	if (!pass->mappers)
		return -ENOENT;
	for (uint32_t i = 0; i < pass->n_mappers && err == 0; i++) {
		err = object_ask(pass->mappers[i], pass->object, MAIL_OBJECT_PROTECT, pass);
		if (err == -ESRCH)
			err = 0; /* it has ended */
	}
	pthread_mutex_lock(&pass->object->lock);
	if (err == 0 && !same_mappers(pass))
		err = -EAGAIN;
	pthread_mutex_unlock(&pass->object->lock);
	return err;
}

static int protect(struct pass *pass)
{
	int err = -EAGAIN;

	for (int i = 0; i < PROTECT_TRIES && err == -EAGAIN; i++) {
		err = protect_once(pass);
		if (err == -EAGAIN)
			usleep(PAUSE_USEC);
	}
	return err;
}

/* ---- prove -------------------------------------------------------------------------------------- */

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

/* Does the program have a way to let a device write to its memory behind its back? */
static bool pins_behind(const struct space *space, const struct maps *maps)
{
	char path[64], link[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	for (size_t i = 0; i < maps->n; i++)
		if (maps->v[i].is_io_uring)
			return true;
	snprintf(path, sizeof(path), "/proc/%d/fd", space->pid);
	dir = opendir(path);
	if (!dir)
		return !is_gone(space) && errno != ENOENT;
	while (!found && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		found = strcmp(link, "anon_inode:[io_uring]") == 0 ||
			strncmp(link, "/dev/infiniband/", 16) == 0 ||
			strncmp(link, "/dev/vfio/", 10) == 0 || strncmp(link, "/dev/nvidia", 11) == 0;
	}
	closedir(dir);
	return found;
}

static int prove_mapper(const struct space *space)
{
	uint64_t until_ns = clock_now_ns() + PROVE_PATIENCE_NS;
	struct threads threads = THREADS_NULL;
	int task_fd = openat(space->task_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (task_fd < 0)
		return 0; /* it has ended */
	if (!threads_note(&threads, task_fd))
		err = is_gone(space) ? 0 : -EAGAIN;
	while (err == 0 && !threads_are_past(&threads, cannot_pin)) {
		usleep(PAUSE_USEC);
		if (clock_now_ns() > until_ns)
			err = is_gone(space) ? 0 : -EBUSY;
	}
	threads_deinit(&threads);
	close(task_fd);
	return err;
}

/* The nodes of robust mutexes that somebody holds stay: an exiting thread walks them when its
 * faults are not delivered any more. After the protection: a lock taken since was a store. */
static int keep_pinned(struct pass *pass, struct space *space, const struct maps *maps)
{
	int task_fd = openat(space->task_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct pinned pinned = { .v = NULL };
	struct page_rec rec;
	int err = 0;

	if (task_fd < 0)
		return 0;
	if (pinned_collect(&pinned, task_fd, space->mem_fd, pass->object->page_shift) < 0)
		err = is_gone(space) ? 0 : -EAGAIN;
	close(task_fd);
	pthread_mutex_lock(&pass->object->lock);
	for (uint32_t i = 0; i < pinned.n && err == 0; i++) {
		uint64_t addr = pinned.v[i] << pass->object->page_shift;
		const struct mapping *m = maps_find(maps, addr);
		uint64_t page;
		uint32_t k;

		if (!m || !maps_here(pass, m))
			continue;
		page = (addr - m->start + m->offset) >> pass->object->page_shift;
		k = first_at(pass, page);
		if (k < pass->n_pages && pass->page[k] == page && is_leaving(pass, k, &rec))
			(void)pagemap_set(&pass->object->map, page,
					  page_rec_move(rec, PAGE_RESIDENT));
	}
	pthread_mutex_unlock(&pass->object->lock);
	pinned_deinit(&pinned);
	return err;
}

static int prove_here(struct pass *pass, struct space *space)
{
	struct maps maps = MAPS_NULL;
	int err = maps_read(&maps, space->maps_fd) < 0 && !is_gone(space) ? -EAGAIN : 0;

	if (err == 0 && pins_behind(space, &maps))
		err = -EBUSY;
	if (err == 0)
		err = prove_mapper(space);
	if (err == 0)
		err = keep_pinned(pass, space, &maps);
	maps_deinit(&maps);
	return err;
}

static int prove(struct pass *pass)
{
	int err = 0;

	for (uint32_t i = 0; i < pass->n_mappers && err == 0; i++)
		err = prove_here(pass, pass->mappers[i]);
	__atomic_store_n(&pass->object->reason,
			 err == -EBUSY ? UHMM_REASON_DIRECT_IO : UHMM_REASON_NONE,
			 __ATOMIC_RELAXED);
	return err;
}

/* ---- copy --------------------------------------------------------------------------------------- */

/* Runs of pages [from, to) of the pass that are still leaving. Returns where it stopped. */
static uint32_t make_runs(struct pass *pass, uint32_t from)
{
	struct object *object = pass->object;
	struct object_copy *copy = pass->copy;
	uint64_t size = object->page_size;
	struct page_rec rec;
	uint32_t i = from;

	copy->n_runs = 0;
	pthread_mutex_lock(&object->lock);
	for (; i < pass->n_pages; i++) {
		struct uhmm_run *last = copy->n_runs ? &copy->runs[copy->n_runs - 1] : NULL;

		if (!is_leaving(pass, i, &rec))
			continue;
		if (last && last->home_addr + last->n_pages * size == pass->page[i] * size &&
		    last->store_off + last->n_pages * size == pass->slot[i] * size) {
			last->n_pages++;
			continue;
		}
		if (copy->n_runs == UHMM_RING_RUNS)
			break;
		copy->runs[copy->n_runs++] = (struct uhmm_run){
			.home_addr = pass->page[i] * size,
			.store_off = pass->slot[i] * size,
			.n_pages = 1,
		};
	}
	pthread_mutex_unlock(&object->lock);
	return i;
}

/* What a run of the copy did not bring to its slot stays. */
static void drop_failed_runs(struct pass *pass)
{
	struct page_rec rec;

	pthread_mutex_lock(&pass->object->lock);
	for (uint32_t r = 0; r < pass->copy->n_runs; r++) {
		const struct uhmm_run *run = &pass->copy->runs[r];
		uint64_t page = run->home_addr >> pass->object->page_shift;
		uint32_t i = first_at(pass, page);

		for (uint32_t k = 0; run->result != 0 && k < run->n_pages; k++)
			if (is_leaving(pass, i + k, &rec))
				(void)pagemap_set(&pass->object->map, page + k,
						  page_rec_move(rec, PAGE_RESIDENT));
	}
	pthread_mutex_unlock(&pass->object->lock);
}

/* For a tier that no agent writes. */
static void copy_by_daemon(struct pass *pass)
{
	const struct store *store = pass->object->store;
	uint64_t size = pass->object->page_size;
	char *page = aligned_alloc(size, size);

	for (uint32_t r = 0; r < pass->copy->n_runs; r++) {
		struct uhmm_run *run = &pass->copy->runs[r];

		run->result = page ? 0 : -ENOMEM;
		for (uint32_t k = 0; k < run->n_pages && run->result == 0; k++) {
			off_t at = (off_t)(run->home_addr + k * size);

			run->result = pread(pass->object->fd, page, size, at) == (ssize_t)size ?
					      store->tier->ops->write(store->backend_store,
								      run->store_off / size + k, 1,
								      page) :
					      -EIO;
		}
		if (run->result)
			stats_add(&store->tier->n_errors, 1);
	}
	free(page);
}

static enum pass_end copy_by_agent(struct pass *pass)
{
	int err = -EBUSY;

	for (uint32_t i = 0; i < pass->n_mappers && err == -EBUSY; i++)
		if (space_has_agent(pass->mappers[i]))
			err = object_ask_copy(pass->mappers[i], pass->object, &pass->copy);
	/* An agent that does not answer may write the slots at any time from now on. */
	if (!pass->copy || err == -ENOTCONN)
		return PASS_STUCK;
	for (uint32_t r = 0; err < 0 && r < pass->copy->n_runs; r++)
		pass->copy->runs[r].result = err;
	return PASS_DONE;
}

static enum pass_end copy_some(struct pass *pass)
{
	if (pass->object->store->tier->ops->flags & UHMM_BACKEND_NATIVE_CHARGE) {
		if (copy_by_agent(pass) == PASS_STUCK)
			return PASS_STUCK;
	} else {
		copy_by_daemon(pass);
	}
	drop_failed_runs(pass);
	return PASS_DONE;
}

/* ---- punch -------------------------------------------------------------------------------------- */

/* Part of a huge page: the kernel may have kept it, and have cleared what we punched. Nobody
 * has seen that: who comes meanwhile waits for the lock. */
static void undo_punch(struct pass *pass, uint32_t i)
{
	struct object *object = pass->object;
	const struct store *store = object->store;
	uint64_t size = object->page_size;
	char *page = aligned_alloc(size, size);
	int err = page ? store->tier->ops->read(store->backend_store, pass->slot[i], 1, page) :
			 -ENOMEM;

	if (err == 0 && pwrite(object->fd, page, size, (off_t)(pass->page[i] * size)) !=
				(ssize_t)size)
		err = -EIO;
	free(page);
	if (err == 0)
		return;
	log_err("shared page %llu is lost: it could not be put back",
		(unsigned long long)pass->page[i]);
	(void)pagemap_set(&object->map, pass->page[i],
			  page_rec_move(pagemap_get(&object->map, pass->page[i]), PAGE_POISONED));
}

static bool is_hole(const struct object *object, uint64_t page)
{
	off_t at = (off_t)(page << object->page_shift);
	off_t data = lseek(object->fd, at, SEEK_DATA);

	return data < 0 || data >= at + (off_t)object->page_size;
}

static void punched(struct pass *pass, uint32_t i)
{
	struct object *object = pass->object;
	struct page_rec rec = pagemap_get(&object->map, pass->page[i]);

	if (!is_hole(object, pass->page[i])) {
		undo_punch(pass, i);
		rec = pagemap_get(&object->map, pass->page[i]);
		if (page_rec_state(rec) == PAGE_LEAVING)
			(void)pagemap_set(&object->map, pass->page[i],
					  page_rec_move(rec, PAGE_RESIDENT));
		return;
	}
	rec = page_rec_move(page_rec_move(rec, PAGE_STAGED), PAGE_STORED);
	(void)pagemap_set(&object->map, pass->page[i], rec);
	pass->left++;
}

static void punch_run(struct pass *pass, uint32_t i, uint32_t n)
{
	struct object *object = pass->object;

	if (fallocate(object->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(pass->page[i] << object->page_shift),
		      (off_t)((uint64_t)n << object->page_shift)) < 0)
		return;
	for (uint32_t k = i; k < i + n; k++)
		punched(pass, k);
}

/* With the lock held. Nothing that a mapper's worker has read is still to be noted. */
static bool all_applied(const struct object *object)
{
	for (uint32_t i = 0; i < object->n_mappers; i++)
		if (!has_applied(object->mappers[i]))
			return false;
	return true;
}

/*
 * With the lock held. No madvise is between its event and its end: it would punch what is
 * being stored, and the slot would keep it. One whose event is unread has not begun. A mapper
 * that came since is a child that inherited the protection.
 */
static int may_punch(const struct object *object)
{
	if (object->n_removes || object->broken)
		return -EBUSY;
	for (uint32_t i = 0; i < object->n_mappers; i++)
		if (__atomic_load_n(&object->mappers[i]->quitting, __ATOMIC_RELAXED) ||
		    __atomic_load_n(&object->mappers[i]->hold, __ATOMIC_RELAXED))
			return -EBUSY;
	return all_applied(object) ? 0 : -EAGAIN;
}

/* Pages [from, to) of the pass, a few at a time: faults wait for the lock. */
static void punch(struct pass *pass, uint32_t from, uint32_t to)
{
	struct object *object = pass->object;
	uint64_t before = pass->left;
	struct page_rec rec;
	int err = 0, tries = 0;

	while (from < to && tries < PROTECT_TRIES) {
		uint32_t budget = 64;

		pthread_mutex_lock(&object->lock);
		err = may_punch(object);
		if (err < 0) {
			pthread_mutex_unlock(&object->lock);
			tries += err == -EAGAIN ? 1 : PROTECT_TRIES;
			usleep(err == -EAGAIN ? PAUSE_USEC : 0);
			continue;
		}
		while (from < to && budget) {
			uint32_t n = 0;

			while (from + n < to && n < budget && is_leaving(pass, from + n, &rec) &&
			       pass->page[from + n] == pass->page[from] + n)
				n++;
			if (n)
				punch_run(pass, from, n);
			from += n ? n : 1;
			budget -= n ? n : 1;
		}
		object_note_mtime(object, !all_applied(object));
		pthread_mutex_unlock(&object->lock);
	}
	stats_add(&object->group->stats.evicted, pass->left - before);
	stats_add(&object->store->tier->n_in, pass->left - before);
	group_add_tier_pages(object->group, (int64_t)(pass->left - before));
	group_add_est(object->group, -(int64_t)(pass->left - before));
}

/* ---- the pass ----------------------------------------------------------------------------------- */

static enum pass_end run_pass(struct pass *pass)
{
	enum pass_end end = PASS_DONE;
	uint32_t at = 0, next;

	if (mark_leaving(pass) && protect(pass) == 0 && prove(pass) == 0) {
		while (at < pass->n_pages && end == PASS_DONE) {
			next = make_runs(pass, at);
			if (pass->copy->n_runs)
				end = copy_some(pass);
			if (end == PASS_DONE)
				punch(pass, at, next);
			at = next;
		}
	}
	take_back(pass);
	/* Slots that an agent may still write are nobody's until the object ends. */
	if (end == PASS_DONE)
		release_slots(pass);
	return end;
}

static int pass_init(struct pass *pass, struct object *object)
{
	*pass = (struct pass){ .object = object };
	pass->page = calloc(PASS_PAGES, sizeof(*pass->page));
	pass->slot = calloc(PASS_PAGES, sizeof(*pass->slot));
	pass->copy = calloc(1, sizeof(*pass->copy));
	return pass->page && pass->slot && pass->copy ? 0 : -ENOMEM;
}

static void pass_deinit(struct pass *pass)
{
	forget_mappers(pass);
	free(pass->page);
	free(pass->slot);
	free(pass->copy);
}

/* Pick up to `want` pages from *at on and take them out. Returns how many left. */
static uint64_t one_pass(struct object *object, uint64_t *at, uint64_t end, uint64_t want, bool any)
{
	struct pass pass;
	uint64_t left = 0;

	if (want > PASS_PAGES)
		want = PASS_PAGES;
	if (pass_init(&pass, object) == 0) {
		*at = pick(&pass, *at, end, want, any);
		pass.n_pages = store_take_slots(object->family, object->store, pass.n_pages,
						pass.slot);
		if (pass.n_pages && run_pass(&pass) == PASS_STUCK)
			log_warn("shared memory (inode %llu): an agent does not answer",
				 (unsigned long long)object->ino);
		left = pass.left;
	}
	pass_deinit(&pass);
	return left;
}

uint64_t object_evict(struct object *object, uint64_t first, uint64_t end, uint64_t want, bool any)
{
	uint64_t left = 0, at = first;

	__atomic_store_n(&object->busy, true, __ATOMIC_RELAXED);
	while (at < end && left < want) {
		uint64_t before = at;

		left += one_pass(object, &at, end, want - left, any);
		if (at == before)
			break;
	}
	object->hand = at < end ? at : 0;
	__atomic_store_n(&object->busy, false, __ATOMIC_RELAXED);
	return left;
}
