/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of shared objects, and who maps them. Any thread; everything here is memory work
 * under the table's lock or the object's, nothing waits.
 */
#define _GNU_SOURCE
#include "object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/array.h"

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list table = LIST_INIT(table);
static uint32_t table_number;

static struct object *object_find(dev_t dev, uint64_t ino)
{
	struct list *pos;

	list_for_each(pos, &table) {
		struct object *object = list_entry(pos, struct object, link);

		if (object->dev == dev && object->ino == ino)
			return object;
	}
	return NULL;
}

static struct object *object_new(dev_t dev, uint64_t ino, struct group *group,
				 const struct daemon_env *env)
{
	struct object *object = calloc(1, sizeof(*object));

	if (!object)
		return NULL;
	object->dev = dev;
	object->ino = ino;
	object->group = group;
	object->number = ++table_number ? table_number : ++table_number;
	object->page_size = env->page_size;
	object->page_shift = (unsigned int)__builtin_ctzll(env->page_size);
	object->reason = UHMM_REASON_SHARED;
	object->fd = -1;
	object->map = PAGEMAP_NULL;
	pthread_mutex_init(&object->lock, NULL);
	list_add_tail(&table, &object->link);
	return object;
}

struct object *object_get(dev_t dev, uint64_t ino, struct group *group,
			  const struct daemon_env *env)
{
	struct object *object;
	bool made = false;

	if (group)
		group_ref(group);
	pthread_mutex_lock(&table_lock);
	object = object_find(dev, ino);
	if (!object && group) {
		object = object_new(dev, ino, group, env);
		made = object != NULL;
	}
	if (object)
		object->n_refs++;
	pthread_mutex_unlock(&table_lock);
	if (!made)
		group_put(group);
	return object;
}

void object_put(struct object *object)
{
	if (!object)
		return;
	pthread_mutex_lock(&table_lock);
	object->n_refs--;
	pthread_mutex_unlock(&table_lock);
}

enum uhmm_reason object_reason(dev_t dev, uint64_t ino)
{
	const struct object *object;
	enum uhmm_reason reason = UHMM_REASON_SHARED;

	pthread_mutex_lock(&table_lock);
	object = object_find(dev, ino);
	if (object)
		reason = (enum uhmm_reason)__atomic_load_n(&object->reason, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&table_lock);
	return reason;
}

void object_lock(struct object *object)
{
	pthread_mutex_lock(&object->lock);
}

void object_unlock(struct object *object)
{
	uint64_t away = object->map.n_away;

	if (away != object->shown_away)
		group_add_tier_pages(object->group, (int64_t)away - (int64_t)object->shown_away);
	object->shown_away = away;
	pthread_mutex_unlock(&object->lock);
}

uint64_t object_count_away(struct object *object, uint64_t first, uint64_t n)
{
	struct page_rec rec;
	uint64_t away = 0, end = first + n;

	object_lock(object);
	if (object->family)
		for (uint64_t i = first; (i = pagemap_next(&object->map, i, end, &rec)) < end; i++)
			away += page_state_is_away(page_rec_state(rec));
	object_unlock(object);
	return away;
}

void object_each(void (*fn)(struct object *object, void *arg), void *arg)
{
	struct list *pos;

	pthread_mutex_lock(&table_lock);
	list_for_each(pos, &table)
		fn(list_entry(pos, struct object, link), arg);
	pthread_mutex_unlock(&table_lock);
}

static void object_free(struct object *object)
{
	group_add_tier_pages(object->group, -(int64_t)object->shown_away);
	if (object->family) {
		/* First of all a successor loses sight of the records. */
		arena_publish(&object->family->arena.header->object.root, 0);
		if (object->store)
			family_retire_store(object->family, object->store);
		pagemap_deinit(&object->map);
		family_unref(object->family);
	}
	if (object->fd >= 0)
		close(object->fd);
	group_put(object->group);
	free(object->removes);
	free(object->mappers);
	pthread_mutex_destroy(&object->lock);
	free(object);
}

void object_sweep(uint64_t unseen_since_ns)
{
	struct list *pos, *next, dead;

	list_init(&dead);
	pthread_mutex_lock(&table_lock);
	list_for_each_safe(pos, next, &table) {
		struct object *object = list_entry(pos, struct object, link);

		/* A mapper that has ended has no reference any more; the memory is the kernel's
		 * to free as soon as we let go of the descriptor. */
		if (object->n_refs == 0 && object->n_mappers == 0 &&
		    (object->fd >= 0 || object->seen_ns < unseen_since_ns)) {
			list_del(&object->link);
			list_add_tail(&dead, &object->link);
		}
	}
	pthread_mutex_unlock(&table_lock);
	list_for_each_safe(pos, next, &dead) {
		struct object *object = list_entry(pos, struct object, link);

		list_del(&object->link);
		object_free(object);
	}
}

/* ---- mappers ------------------------------------------------------------------------- */

static uint32_t mapper_index(const struct object *object, const struct space *space)
{
	uint32_t i = 0;

	while (i < object->n_mappers && object->mappers[i] != space)
		i++;
	return i;
}

int object_add_mapper(struct object *object, struct space *space)
{
	struct space **mappers;

	if (mapper_index(object, space) < object->n_mappers)
		return 0;
	mappers = array_room(object->mappers, object->n_mappers, &object->cap_mappers,
			     sizeof(struct space *));
	if (!mappers)
		return -ENOMEM;
	object->mappers = mappers;
	object->mappers[object->n_mappers++] = space_ref(space);
	object->gen++;
	return 0;
}

void object_remove_mapper(struct object *object, struct space *space)
{
	uint32_t i = mapper_index(object, space);

	if (i == object->n_mappers)
		return;
	object->mappers[i] = object->mappers[--object->n_mappers];
	object->gen++;
	/* Never the last reference: the caller is the space's worker, which has its own. */
	space_unref(space);
}

struct space **object_mappers(struct object *object, uint32_t *ret_n, uint64_t *ret_gen)
{
	struct space **mappers = NULL;

	*ret_n = 0;
	object_lock(object);
	*ret_gen = object->gen;
	if (object->n_mappers)
		mappers = calloc(object->n_mappers, sizeof(struct space *));
	if (mappers)
		for (uint32_t i = 0; i < object->n_mappers; i++)
			mappers[(*ret_n)++] = space_ref(object->mappers[i]);
	object_unlock(object);
	return mappers;
}

void object_mappers_free(struct space **mappers, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		space_unref(mappers[i]);
	free(mappers);
}

void object_lock_still(struct object *object)
{
	object_lock(object);
	__atomic_store_n(&object->still, true, __ATOMIC_SEQ_CST);
}

void object_unlock_still(struct object *object)
{
	__atomic_store_n(&object->still, false, __ATOMIC_SEQ_CST);
	object_unlock(object);
}

bool object_all_applied(const struct object *object)
{
	for (uint32_t i = 0; i < object->n_mappers; i++)
		if (!object_has_applied(object->mappers[i]))
			return false;
	return true;
}

/* No change leaves it so. */
static const struct timespec stamp = { .tv_sec = 1 };

void object_stamp(struct object *object)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, stamp };

	object->stamped = futimens(object->fd, times) == 0;
}

bool object_was_changed(const struct object *object)
{
	struct stat st;

	return !object->stamped || fstat(object->fd, &st) < 0 ||
	       st.st_mtim.tv_sec != stamp.tv_sec || st.st_mtim.tv_nsec != stamp.tv_nsec;
}

bool object_is_hole(const struct object *object, uint64_t page)
{
	off_t at = (off_t)(page << object->page_shift);
	off_t data = lseek(object->fd, at, SEEK_DATA);

	return data < 0 || data >= at + (off_t)object->page_size;
}

struct object *object_of_space(const struct space *space, dev_t dev, uint64_t ino)
{
	for (uint32_t i = 0; i < space->n_objects; i++)
		if (space->objects[i]->dev == dev && space->objects[i]->ino == ino)
			return space->objects[i];
	return NULL;
}

int object_reopen(const struct object *object)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", object->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}
