/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arenas: owns the file, its mapping, and the list of free units. Called on any
 * thread; arena_create, arena_open and arena_deinit by whoever makes the family.
 *
 * Order of stores: what a word points to is complete before the word is stored, and
 * a unit leaves the free list before anyone uses it. So a crash loses units at worst,
 * and never hands one out twice. n_free is a hint that a successor counts anew.
 *
 * Never here: a store to a unit that fallocate has not backed.
 */
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define ARENA_GROW_UNITS 64u

_Static_assert(sizeof(struct arena_header) <= ARENA_UNIT, "the header is one unit");

static bool arena_off_valid(const struct arena_header *header, arena_off off)
{
	return off != 0 && off % ARENA_UNIT == 0 && off / ARENA_UNIT < header->n_units;
}

/* Unlocked pages cost a fault time, no more: said once, and life goes on. */
static void arena_lock_memory(const struct arena *arena, uint64_t from, uint64_t to)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (mlock((char *)arena->header + from, to - from) < 0 && !atomic_flag_test_and_set(&said))
		log_warn("%s: cannot lock it in memory: %s", arena->path, strerror(errno));
}

/* Back the file up to n_units, and round to whole pages where those are larger. */
static int arena_extend(struct arena *arena, uint64_t from_units, uint64_t *n_units)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t from = from_units * ARENA_UNIT;
	uint64_t to = (*n_units * ARENA_UNIT + page - 1) / page * page;
	int r;

	if (to > arena->map_bytes)
		return -ENOSPC;
	do {
		r = fallocate(arena->fd, 0, (off_t)from, (off_t)(to - from));
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	arena_lock_memory(arena, from / page * page, to);
	*n_units = to / ARENA_UNIT;
	return 0;
}

static int arena_map(struct arena *arena, size_t map_bytes)
{
	void *start = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena->fd, 0);

	if (start == MAP_FAILED)
		return -errno;
	arena->header = start;
	arena->map_bytes = map_bytes;
	return 0;
}

static int arena_format(struct arena *arena, uint64_t family_id)
{
	uint64_t n_units = 1;
	int r = arena_extend(arena, 0, &n_units);

	if (r < 0)
		return r;
	/* The magic comes last: before it this is no arena. */
	arena->header->version = ARENA_VERSION;
	arena->header->unit_bytes = ARENA_UNIT;
	arena->header->family_id = family_id;
	arena->header->n_units = 1;
	arena_publish(&arena->header->magic, ARENA_MAGIC);
	return 0;
}

static int arena_set_path(struct arena *arena, const char *path)
{
	*arena = ARENA_NULL;
	arena->path = strdup(path);
	return arena->path == NULL ? -ENOMEM : 0;
}

int arena_create(struct arena *arena, const char *path, uint64_t family_id, size_t map_bytes)
{
	int r = arena_set_path(arena, path);

	if (r < 0)
		return r;
	arena->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (arena->fd < 0) {
		r = -errno;
		arena_deinit(arena, false);
		return r;
	}
	r = arena_map(arena, map_bytes);
	if (r == 0)
		r = arena_format(arena, family_id);
	if (r < 0)
		arena_deinit(arena, true);
	return r;
}

bool arena_is_unfinished(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint64_t magic = 0;
	struct stat st;
	bool is;

	if (fd < 0)
		return false;
	is = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= (off_t)ARENA_UNIT &&
	     pread(fd, &magic, sizeof(magic), 0) >= 0 && magic == 0;
	(void)close(fd);
	return is;
}

/* A list of distinct units within the file ends after at most n_units of them. */
static int arena_check_free(const struct arena_header *header)
{
	arena_off off = header->free_head;
	uint64_t n = 0;

	while (off != 0) {
		if (!arena_off_valid(header, off) || ++n >= header->n_units)
			return -EPROTO;
		off = *(const arena_off *)((const char *)header + off);
	}
	return 0;
}

static int arena_check(const struct arena *arena, const struct stat *st)
{
	const struct arena_header *header = arena->header;
	uint64_t file_bytes = (uint64_t)st->st_size;

	if (header->magic != ARENA_MAGIC || header->version != ARENA_VERSION ||
	    header->unit_bytes != ARENA_UNIT)
		return -EPROTO;
	if (header->n_units == 0 || header->n_units > file_bytes / ARENA_UNIT ||
	    header->n_units > arena->map_bytes / ARENA_UNIT)
		return -EPROTO;
	/* A hole would be filled at the first touch, or be SIGBUS on a full tmpfs. */
	if ((uint64_t)st->st_blocks < header->n_units * (ARENA_UNIT / 512))
		return -EPROTO;
	return arena_check_free(header);
}

static int arena_open_file(struct arena *arena, size_t map_bytes)
{
	struct stat st;
	int r;

	arena->fd = open(arena->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (arena->fd < 0 || fstat(arena->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)ARENA_UNIT)
		return -EPROTO;
	if (st.st_uid != geteuid() || (st.st_mode & 077) != 0 || st.st_nlink != 1)
		return -EPERM;
	/* The limit may have become lower than what was in use already. */
	r = arena_map(arena, (uint64_t)st.st_size > map_bytes ? (size_t)st.st_size : map_bytes);
	if (r < 0)
		return r;
	r = arena_check(arena, &st);
	if (r == 0)
		arena_lock_memory(arena, 0, arena->header->n_units * ARENA_UNIT);
	return r;
}

int arena_open(struct arena *arena, const char *path, size_t map_bytes)
{
	int r = arena_set_path(arena, path);

	if (r < 0)
		return r;
	r = arena_open_file(arena, map_bytes);
	if (r < 0)
		arena_deinit(arena, false);
	return r;
}

void arena_deinit(struct arena *arena, int forget)
{
	if (arena->header != NULL)
		(void)munmap(arena->header, arena->map_bytes);
	if (arena->fd >= 0)
		(void)close(arena->fd);
	if (forget && arena->path != NULL)
		(void)unlink(arena->path);
	free(arena->path);
	(void)pthread_mutex_destroy(&arena->lock);
	*arena = ARENA_NULL;
}

/* Append units to the file and link them as free, lowest first. */
static int arena_grow(struct arena *arena, uint64_t n)
{
	struct arena_header *header = arena->header;
	uint64_t first = header->n_units, limit = arena->map_bytes / ARENA_UNIT, end, i;
	int r;

	if (n > limit - first)
		return -ENOSPC;
	end = first + n;
	/* A whole step if there is room for one, and what is left if not. */
	if (n < ARENA_GROW_UNITS)
		end = limit - first < ARENA_GROW_UNITS ? limit : first + ARENA_GROW_UNITS;
	r = arena_extend(arena, first, &end);
	if (r == -ENOSPC && end > first + n) {
		end = first + n;
		r = arena_extend(arena, first, &end);
	}
	if (r < 0)
		return r;
	for (i = first; i < end; i++)
		*(arena_off *)arena_ptr(arena, i * ARENA_UNIT) =
			i + 1 < end ? (i + 1) * ARENA_UNIT : header->free_head;
	arena_publish(&header->n_units, end);
	arena_publish(&header->free_head, first * ARENA_UNIT);
	arena_publish(&header->n_free, header->n_free + end - first);
	return 0;
}

int arena_alloc(struct arena *arena, arena_off *ret_off)
{
	struct arena_header *header = arena->header;
	arena_off off;
	int r = 0;

	(void)pthread_mutex_lock(&arena->lock);
	if (header->free_head == 0)
		r = arena_grow(arena, 1);
	off = header->free_head;
	if (r == 0) {
		arena_publish(&header->free_head, *(arena_off *)arena_ptr(arena, off));
		arena_publish(&header->n_free, header->n_free - 1);
	}
	(void)pthread_mutex_unlock(&arena->lock);
	if (r < 0)
		return r;
	memset(arena_ptr(arena, off), 0, ARENA_UNIT);
	*ret_off = off;
	return 0;
}

void arena_free(struct arena *arena, arena_off off)
{
	struct arena_header *header = arena->header;

	(void)pthread_mutex_lock(&arena->lock);
	if (!arena_off_valid(header, off)) {
		log_err("%s: no unit at %#llx", arena->path, (unsigned long long)off);
		abort();
	}
	arena_publish(arena_ptr(arena, off), header->free_head);
	arena_publish(&header->free_head, off);
	arena_publish(&header->n_free, header->n_free + 1);
	(void)pthread_mutex_unlock(&arena->lock);
}

uint64_t arena_room(const struct arena *arena)
{
	const struct arena_header *header = arena->header;

	return arena->map_bytes / ARENA_UNIT -
	       __atomic_load_n(&header->n_units, __ATOMIC_RELAXED) +
	       __atomic_load_n(&header->n_free, __ATOMIC_RELAXED);
}

int arena_reserve(struct arena *arena, uint64_t n)
{
	int r = 0;

	(void)pthread_mutex_lock(&arena->lock);
	if (arena->header->n_free < n)
		r = arena_grow(arena, n - arena->header->n_free);
	(void)pthread_mutex_unlock(&arena->lock);
	return r;
}

/* The list is a list of free units at each step, as a successor's successor wants it. */
void arena_rebuild_free(struct arena *arena, const uint8_t *used)
{
	struct arena_header *header = arena->header;
	uint64_t unit, n_free = 0;

	(void)pthread_mutex_lock(&arena->lock);
	arena_publish(&header->free_head, 0);
	for (unit = header->n_units - 1; unit > 0; unit--) {
		if (used[unit])
			continue;
		arena_publish(arena_ptr(arena, unit * ARENA_UNIT), header->free_head);
		arena_publish(&header->free_head, unit * ARENA_UNIT);
		n_free++;
	}
	header->n_free = n_free;
	(void)pthread_mutex_unlock(&arena->lock);
}

void arena_list_add(struct arena *arena, arena_off *head, arena_off off)
{
	*(arena_off *)arena_ptr(arena, off) = *head;
	arena_publish(head, off);
}

void arena_list_remove(struct arena *arena, arena_off *head, arena_off off)
{
	arena_off *link = head;

	while (*link != 0 && *link != off)
		link = arena_ptr(arena, *link);
	if (*link != 0)
		arena_publish(link, *(arena_off *)arena_ptr(arena, off));
}
