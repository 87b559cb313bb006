/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes and forgets spaces and groups, and keeps the registry of them. Called by control and,
 * for forked children, by workers. Nothing here touches a program's pages but space_verify.
 */
#define _GNU_SOURCE
#include "space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "log.h"
#include "recover.h"
#include "uffd.h"
#include "worker.h"

_Static_assert(sizeof(struct space_unit) <= ARENA_UNIT, "a space is one unit");

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
struct list registry_spaces = LIST_INIT(registry_spaces);
struct list registry_groups = LIST_INIT(registry_groups);
static uint64_t registry_next_id = 1;

void registry_lock(void)
{
	pthread_mutex_lock(&registry_mutex);
}

void registry_unlock(void)
{
	pthread_mutex_unlock(&registry_mutex);
}

uint64_t registry_new_id(void)
{
	uint64_t id;

	registry_lock();
	id = registry_next_id++;
	registry_unlock();
	return id;
}

void registry_used_id(uint64_t id)
{
	registry_lock();
	if (registry_next_id <= id)
		registry_next_id = id + 1;
	registry_unlock();
}

uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- groups ----------------------------------------------------------------------------- */

struct group *group_get(const uint8_t token[UHMM_TOKEN_BYTES], uid_t uid, enum group_kind kind,
			bool make)
{
	struct group *found = NULL;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_groups) {
		struct group *group = list_entry(pos, struct group, link);

		if (memcmp(group->token, token, UHMM_TOKEN_BYTES) == 0 &&
		    group->kind == kind && (kind == GROUP_SECRET || group->uid == uid)) {
			found = group;
			break;
		}
	}
	if (!found && make) {
		found = calloc(1, sizeof(*found));
		if (found) {
			memcpy(found->token, token, UHMM_TOKEN_BYTES);
			found->kind = kind;
			found->uid = uid;
			list_add_tail(&registry_groups, &found->link);
		}
	}
	if (found)
		found->n_refs++;
	registry_unlock();
	return found;
}

void group_ref(struct group *group)
{
	registry_lock();
	group->n_refs++;
	registry_unlock();
}

void group_put(struct group *group)
{
	if (!group)
		return;
	registry_lock();
	if (--group->n_refs == 0)
		list_del(&group->link);
	else
		group = NULL;
	registry_unlock();
	free(group);
}

void group_add_tier_pages(struct group *group, int64_t n)
{
	int64_t now = __atomic_add_fetch(&group->tier_pages, n, __ATOMIC_RELAXED);
	uint64_t peak = stats_get(&group->tier_peak_pages);

	while (now > (int64_t)peak &&
	       !__atomic_compare_exchange_n(&group->tier_peak_pages, &peak, (uint64_t)now, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* ---- making and forgetting ------------------------------------------------------------ */

static int space_init_arena(struct space *space)
{
	struct arena *arena = &space->family->arena;
	struct space_unit *unit;
	int err;

	err = arena_alloc(arena, &space->unit_off);
	if (err < 0)
		return err;
	unit = space->unit = arena_ptr(arena, space->unit_off);
	err = event_log_init(&space->log, arena, &unit->log);
	if (err < 0)
		return err;
	unit->space_id = space->id;
	memcpy(unit->token, space->token, UHMM_TOKEN_BYTES);
	unit->n_batches = space->n_batches;
	for (uint32_t i = 0; i < space->n_batches; i++) {
		space->batches[i].chunk = i;
		for (uint32_t k = 0; k < BATCH_UNITS; k++) {
			err = arena_alloc(arena, &unit->batches[i].units[k]);
			if (err < 0)
				return err;
			space->batches[i].units[k] = arena_ptr(arena, unit->batches[i].units[k]);
		}
	}
	return 0;
}

void space_publish(struct space *space)
{
	struct family *family = space->family;

	space->unit->root = space->map.root;
	space->unit->beacon_out = space->beacon_out;
	space->unit->group.kind = space->group->kind;
	space->unit->group.uid = space->group->uid;
	space->unit->group.target_pages = stats_get(&space->group->target_pages);
	memcpy(space->unit->group.token, space->group->token, UHMM_TOKEN_BYTES);
	pthread_mutex_lock(&family->lock);
	arena_list_add(&family->arena, &family->arena.header->spaces, space->unit_off);
	pthread_mutex_unlock(&family->lock);
}

/* From now on a successor knows nothing of it, so that it can be taken to pieces. */
static void space_hide(struct space *space)
{
	struct family *family = space->family;

	if (!family || !space->unit)
		return;
	pthread_mutex_lock(&family->lock);
	arena_list_remove(&family->arena, &family->arena.header->spaces, space->unit_off);
	pthread_mutex_unlock(&family->lock);
}

static int space_init_memory(struct space *space)
{
	size_t bounce = BATCH_PAGES_MAX * space->page_size;

	space->batches = calloc(space->n_batches, sizeof(*space->batches));
	space->mail_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	space->agent_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!space->batches || space->mail_efd < 0 || space->agent_efd < 0)
		return -ENOMEM;
	/* Memory of the fault path: there before the first fault, and never paged out. */
	space->bounce = mmap(NULL, bounce + space->page_size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (space->bounce == MAP_FAILED)
		return -ENOMEM;
	(void)mlock2(space->bounce, bounce + space->page_size, MLOCK_ONFAULT);
	space->zero_page = space->bounce + bounce;
	return 0;
}

static int space_init(struct space *space, struct space *parent)
{
	const struct config *config = space->env->config;
	int err = space_init_memory(space);

	if (err < 0)
		return err;
	if (parent)
		space->family = family_ref(parent->family);
	else
		err = family_new(space->id, config->state_dir, config->max_arena_bytes,
				 &space->family);
	if (err == 0)
		err = space_init_arena(space);
	return err;
}

void space_unit_free(struct arena *arena, arena_off off)
{
	struct space_unit *unit = arena_ptr(arena, off);

	for (uint32_t i = 0; i < unit->n_batches; i++)
		for (uint32_t k = 0; k < BATCH_UNITS; k++)
			if (unit->batches[i].units[k])
				arena_free(arena, unit->batches[i].units[k]);
	arena_free(arena, off);
}

static void space_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void space_free(struct space *space)
{
	space_hide(space);
	if (space->store)
		family_retire_store(space->family, space->store);
	pagemap_deinit(&space->past);
	pagemap_deinit(&space->map);
	if (space->family) {
		if (space->unit)
			space_unit_free(&space->family->arena, space->unit_off);
		event_log_deinit(&space->log);
		family_unref(space->family);
	}
	ranges_deinit(&space->registered);
	ranges_deinit(&space->certain);
	ranges_deinit(&space->occupied);
	ranges_deinit(&space->unmanaged);
	maps_deinit(&space->maps);
	maps_deinit(&space->maps_check);
	maps_deinit(&space->maps_now);
	if (space->ring)
		munmap(space->ring, sizeof(*space->ring));
	if (space->bounce && space->bounce != MAP_FAILED)
		munmap(space->bounce, (BATCH_PAGES_MAX + 1) * space->page_size);
	int *fds[] = { &space->uffd,	 &space->sock,	    &space->pidfd,
		       &space->mem_fd,	 &space->maps_fd,   &space->smaps_fd,
		       &space->task_fd,	 &space->pagemap_fd, &space->status_fd,
		       &space->ring_fd,	 &space->mail_efd,  &space->agent_efd,
		       &space->peek_fd };
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		space_close(fds[i]);
	pinned_deinit(&space->pinned);
	quiesce_deinit(&space->quiesce);
	threads_deinit(&space->woken);
	free(space->batches);
	free(space->comeback);
	space_unref(space->warden);
	group_put(space->group);
	pthread_mutex_destroy(&space->mail_lock);
	pthread_mutex_destroy(&space->agent_lock);
	free(space);
}

static void space_enlist(struct space *space)
{
	registry_lock();
	list_add_tail(&registry_spaces, &space->link);
	registry_unlock();
}

static struct space *space_alloc(const struct daemon_env *env, struct group *group, int uffd)
{
	struct space *space = calloc(1, sizeof(*space));

	if (!space)
		return NULL;
	space->env = env;
	space->page_size = env->page_size;
	space->page_shift = (unsigned int)__builtin_ctzll(env->page_size);
	space->n_batches = env->config->n_staging_chunks;
	space->uffd = uffd;
	space->sock = space->pidfd = space->mem_fd = space->maps_fd = space->smaps_fd = -1;
	space->pagemap_fd = space->status_fd = space->ring_fd = space->task_fd = -1;
	space->mail_efd = space->agent_efd = space->peek_fd = -1;
	space->stack_top_addr = UINT64_MAX;
	space->worker_cpu = -1;
	space->quiesce = QUIESCE_NULL;
	space->woken = THREADS_NULL;
	space->n_refs = 1;
	pthread_mutex_init(&space->mail_lock, NULL);
	pthread_mutex_init(&space->agent_lock, NULL);
	list_init(&space->mail);
	list_init(&space->link);
	group_ref(group);
	space->group = group;
	return space;
}

static int space_make(const struct daemon_env *env, struct group *group, struct space *parent,
		      int uffd, const uint8_t *token, struct space **ret_space)
{
	struct space *space = space_alloc(env, group, uffd);
	int err = 0;

	if (!space)
		return -ENOMEM;
	space->id = registry_new_id();
	if (token)
		memcpy(space->token, token, sizeof(space->token));
	else if (getrandom(space->token, sizeof(space->token), 0) != sizeof(space->token))
		err = -EIO;
	if (err == 0)
		err = space_init(space, parent);
	if (err == 0 && !parent)
		err = pagemap_init(&space->map, space->family);
	if (err < 0) {
		space->uffd = -1; /* still the caller's */
		space_free(space);
		return err;
	}
	if (!parent)
		space_publish(space);
	space_enlist(space);
	*ret_space = space;
	return 0;
}

int space_new(const struct daemon_env *env, struct group *group, int uffd,
	      struct space **ret_space)
{
	return space_make(env, group, NULL, uffd, NULL, ret_space);
}

int space_new_child(struct space *parent, int uffd, const uint8_t token[UHMM_TOKEN_BYTES],
		    struct space **ret_space)
{
	return space_make(parent->env, parent->group, parent, uffd, token, ret_space);
}

/* What the arena says of it. */
static int space_read_unit(struct space *space, const struct recovered_space *found)
{
	struct arena *arena = &space->family->arena;
	struct space_unit *unit = found->unit;

	if (unit->n_batches != space->n_batches)
		return -EPROTO; /* the agent has staging for so many */
	space->id = unit->space_id;
	memcpy(space->token, unit->token, sizeof(space->token));
	space->layout = unit->layout;
	space->pid = unit->pid;
	space->uid = unit->uid;
	space->beacon_out = unit->beacon_out;
	space->given_up = unit->given_up;
	space->distrust = unit->distrust;
	space->unmarked_inherited = unit->unmarked_inherited;
	space->n_unmarked = found->n_unmarked > UINT32_MAX ? UINT32_MAX
							   : (uint32_t)found->n_unmarked;
	for (uint32_t i = 0; i < space->n_batches; i++) {
		space->batches[i].chunk = i;
		for (uint32_t k = 0; k < BATCH_UNITS; k++)
			space->batches[i].units[k] = arena_ptr(arena, unit->batches[i].units[k]);
	}
	return event_log_open(&space->log, arena, unit->log);
}

int space_restore(const struct daemon_env *env, struct group *group, struct family *family,
		  struct recovered_space *found, struct space **ret_space)
{
	struct space *space = space_alloc(env, group, -1);
	int err;

	if (!space)
		return -ENOMEM;
	err = space_init_memory(space);
	if (err == 0) {
		space->family = family_ref(family);
		err = space_read_unit(space, found);
	}
	if (err < 0) {
		space_free(space);
		return err;
	}
	space->unit = found->unit;
	space->unit_off = found->unit_off;
	space->map = found->map;
	space->past = found->past;
	space->store = found->store;
	found->map = found->past = PAGEMAP_NULL;
	space->orphan = space->recovered = true;
	space->agent_reason = UHMM_REASON_NO_AGENT;
	space->tier_pages = space->map.n_away;
	group_add_tier_pages(group, (int64_t)space->map.n_away);
	space_enlist(space);
	*ret_space = space;
	return 0;
}

struct space *space_ref(struct space *space)
{
	registry_lock();
	space->n_refs++;
	registry_unlock();
	return space;
}

void space_unref(struct space *space)
{
	bool last;

	if (!space)
		return;
	registry_lock();
	last = --space->n_refs == 0;
	if (last)
		list_del(&space->link);
	registry_unlock();
	if (last)
		space_free(space);
}

struct space *space_find_pid(pid_t pid)
{
	struct space *found = NULL;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) &&
		    space_pid(space) == pid && space_get_state(space) == SPACE_SERVING)
			found = space;
	}
	if (found)
		found->n_refs++;
	registry_unlock();
	return found;
}

struct space *space_find_token(const uint8_t token[UHMM_TOKEN_BYTES])
{
	struct space *found = NULL;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (memcmp(space->token, token, UHMM_TOKEN_BYTES) == 0 &&
		    space_get_state(space) != SPACE_DEAD)
			found = space;
	}
	if (found)
		found->n_refs++;
	registry_unlock();
	return found;
}

struct space *space_claim_orphan(const uint8_t token[UHMM_TOKEN_BYTES],
				 const struct family *family, bool nameless)
{
	struct space *found = NULL;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (__atomic_load_n(&space->orphan, __ATOMIC_ACQUIRE) &&
		    (!family || space->family == family) && (!nameless || space->pid == 0) &&
		    memcmp(space->token, token, UHMM_TOKEN_BYTES) == 0)
			found = space;
	}
	if (found)
		__atomic_store_n(&found->orphan, false, __ATOMIC_RELEASE);
	registry_unlock();
	return found;
}

unsigned int space_count(uid_t uid, unsigned int *ret_of_uid)
{
	unsigned int n = 0, of_uid = 0;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		n++;
		of_uid += space_uid(list_entry(pos, struct space, link)) == uid;
	}
	registry_unlock();
	*ret_of_uid = of_uid;
	return n;
}

/* ---- the program's /proc files -------------------------------------------------------- */

static int space_open_one(pid_t pid, const char *name, int flags, int *ret_fd)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	space_close(ret_fd);
	*ret_fd = fd;
	return 0;
}

/* Arguments, environment and auxiliary vector lie above the initial stack pointer (field 28 of
 * /proc/PID/stat): ps and the kernel read them without asking us. */
static void space_read_stat(struct space *space, pid_t pid)
{
	char path[64], text[2048], *at, *name_end;
	uint64_t start_stack = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return;
	text[n] = '\0';
	at = strchr(text, '(');
	name_end = strrchr(text, ')');
	if (!at || !name_end || name_end < at)
		return;
	pthread_mutex_lock(&space->agent_lock);
	snprintf(space->command, sizeof(space->command), "%.*s", (int)(name_end - at - 1), at + 1);
	pthread_mutex_unlock(&space->agent_lock);
	at = name_end + 2;
	for (int field = 3; at && field < 28; field++) {
		at = strchr(at, ' ');
		if (at)
			at++;
	}
	if (at)
		start_stack = strtoull(at, NULL, 10);
	if (start_stack)
		space->stack_top_addr = (start_stack & ~(space->page_size - 1)) - space->page_size;
}

static void space_read_filters(struct space *space)
{
	char text[4096], *at;
	ssize_t n = pread(space->status_fd, text, sizeof(text) - 1, 0);

	space->n_filters = 0;
	if (n <= 0)
		return;
	text[n] = '\0';
	at = strstr(text, "\nSeccomp_filters:");
	if (at)
		space->n_filters = (uint32_t)strtoul(at + strlen("\nSeccomp_filters:"), NULL, 10);
}

int space_open_proc(struct space *space, pid_t pid)
{
	int err = space_open_one(pid, "mem", O_RDWR, &space->mem_fd);

	if (err == 0)
		err = space_open_one(pid, "mem", O_RDONLY, &space->peek_fd);
	if (err == 0)
		err = space_open_one(pid, "maps", O_RDONLY, &space->maps_fd);
	if (err == 0)
		err = space_open_one(pid, "smaps", O_RDONLY, &space->smaps_fd);
	if (err == 0)
		err = space_open_one(pid, "pagemap", O_RDONLY, &space->pagemap_fd);
	if (err == 0)
		err = space_open_one(pid, "status", O_RDONLY, &space->status_fd);
	if (err == 0)
		err = space_open_one(pid, "task", O_RDONLY | O_DIRECTORY, &space->task_fd);
	if (err == 0) {
		space_read_stat(space, pid);
		space_read_filters(space);
	}
	return err;
}

void space_close_proc(struct space *space)
{
	space_close(&space->mem_fd);
	space_close(&space->peek_fd);
	space_close(&space->maps_fd);
	space_close(&space->smaps_fd);
	space_close(&space->pagemap_fd);
	space_close(&space->status_fd);
	space_close(&space->task_fd);
}

int space_read_smaps(struct space *space)
{
	int err = maps_read(&space->maps, space->maps_fd);

	space->maps_read_ns = 0;
	return err < 0 ? err : maps_apply_smaps(&space->maps, space->smaps_fd);
}

static bool lies_over(const struct mapping *m, uint64_t start, uint64_t bytes)
{
	return m->start < start + bytes && start < m->end;
}

void space_judge_mapping(const struct space *space, struct mapping *m)
{
	const struct space_layout *layout = &space->layout;

	if (lies_over(m, layout->staging_addr, space_staging_bytes(space)) ||
	    lies_over(m, layout->private_addr, layout->private_bytes) ||
	    lies_over(m, layout->ring_addr, layout->ring_bytes) ||
	    lies_over(m, layout->beacon_addr, space->page_size))
		m->reason = UHMM_REASON_AGENT;
	else if (m->start <= UFFD_NEVER_REGISTERED)
		m->reason = UHMM_REASON_DEVICE;
}

uint64_t space_locked_kb(const struct space *space)
{
	char text[4096];
	const char *at;
	ssize_t n = pread(space->status_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return UINT64_MAX;
	text[n] = '\0';
	/* A first thread that has ended shows none, though the others go on. */
	at = strstr(text, "\nVmLck:");
	return at ? strtoull(at + 7, NULL, 10) : UINT64_MAX;
}

static bool begins_with(int fd, uint64_t addr, const uint8_t token[UHMM_TOKEN_BYTES])
{
	uint8_t seen[UHMM_TOKEN_BYTES];

	return pread(fd, seen, sizeof(seen), (off_t)addr) == sizeof(seen) &&
	       memcmp(seen, token, sizeof(seen)) == 0;
}

int space_verify(struct space *space, uint64_t staging_addr)
{
	uint64_t n_pages = (uint64_t)space->n_batches * BATCH_PAGES_MAX, done = 0, addr = 0;
	char *page = space->bounce;
	uint8_t token[UHMM_TOKEN_BYTES];
	enum uffd_result result = UFFD_EXISTS;

	if (getrandom(token, sizeof(token), 0) != sizeof(token))
		return -EIO;
	memset(page, 0, space->page_size);
	memcpy(page, token, sizeof(token));
	/* An agent before this one may have left pages there. */
	for (uint64_t i = 0; i < n_pages && result == UFFD_EXISTS; i++) {
		addr = staging_addr + i * space->page_size;
		if (uffd_register(space->uffd, addr, space->page_size,
				  UFFDIO_REGISTER_MODE_MISSING) != UFFD_OK)
			return -EPERM;
		result = uffd_copy(space->uffd, addr, page, space->page_size, &done);
		(void)uffd_unregister(space->uffd, addr, space->page_size);
	}
	if (result != UFFD_OK)
		return result == UFFD_AGAIN ? -EAGAIN : -EPERM;
	return begins_with(space->mem_fd, addr, token) && begins_with(space->peek_fd, addr, token)
		       ? 0
		       : -EPERM;
}

/* Is exactly that page a mapping of its own? */
static bool stands_alone(struct space *space, uint64_t addr, bool *ret_alone)
{
	struct mapping m;

	if (maps_query(space->maps_fd, addr, &m) < 0)
		return false;
	*ret_alone = m.start == addr && m.end == addr + space->page_size;
	return true;
}

/* Registering a page makes it a mapping of its own, which the process's maps show; events do not
 * stop that. Pages are taken at random, so that nobody else's doing can look the same. The files of
 * its memory were opened after we had the userfaultfd, and before the maps: an exec between them
 * would have made a new address space, of which the userfaultfd is not. */
int space_verify_again(struct space *space, uint64_t staging_addr)
{
	uint64_t n_pages = (uint64_t)space->n_batches * BATCH_PAGES_MAX;
	uint16_t random[16];
	bool alone;

	if (uffd_unregister(space->uffd, staging_addr, n_pages * space->page_size) != UFFD_OK ||
	    getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EPERM;
	for (size_t i = 0; i < sizeof(random) / sizeof(random[0]); i++) {
		uint64_t addr = staging_addr + random[i] % n_pages * space->page_size;

		if (!stands_alone(space, addr, &alone) || alone ||
		    uffd_register(space->uffd, addr, space->page_size,
				  UFFDIO_REGISTER_MODE_MISSING) != UFFD_OK)
			return -EPERM;
		if (!stands_alone(space, addr, &alone) ||
		    uffd_unregister(space->uffd, addr, space->page_size) != UFFD_OK || !alone)
			return -EPERM;
	}
	return 0;
}

/* ---- talking to the worker ------------------------------------------------------------ */

int space_start_worker_locked(struct space *space)
{
	pthread_attr_t attr;
	int err;

	if (space->worker_started)
		return 0;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	space->n_refs++; /* the worker's */
	err = -pthread_create(&space->worker, &attr, worker_run, space);
	pthread_attr_destroy(&attr);
	if (err < 0)
		space->n_refs--;
	else
		space->worker_started = true;
	return err;
}

int space_start_worker(struct space *space)
{
	int err;

	registry_lock();
	err = space_start_worker_locked(space);
	registry_unlock();
	return err;
}

void space_kick(struct space *space)
{
	uint64_t one = 1;

	(void)!write(space->mail_efd, &one, sizeof(one));
}

void space_post(struct space *space, struct mail *mail)
{
	if (space_start_worker(space) < 0) {
		mail->error = -EAGAIN;
		control_complete(mail);
		return;
	}
	space_post_started(space, mail);
}

/* Do as many requests of clients wait as may? With mail_lock held. */
static bool mailbox_is_full(const struct space *space)
{
	unsigned int n = 0;
	struct list *pos;

	list_for_each(pos, &space->mail)
		n += list_entry(pos, struct mail, link)->conn_id != 0;
	return n >= SPACE_REQUESTS_MAX;
}

void space_post_started(struct space *space, struct mail *mail)
{
	int err = 0;

	pthread_mutex_lock(&space->mail_lock);
	if (space_get_state(space) == SPACE_DEAD)
		err = -ESRCH;
	else if (mail->conn_id && mail->type != MAIL_AGENT && mailbox_is_full(space))
		err = -EAGAIN;
	else
		list_add_tail(&space->mail, &mail->link);
	pthread_mutex_unlock(&space->mail_lock);
	if (err < 0) {
		mail->error = err;
		control_complete(mail);
		return;
	}
	space_kick(space);
}
