/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adoption: a daemon that is started finds the arenas of the one before. Each space in them is an
 * orphan: known, away pages and all, but without the userfaultfd, which the agents keep and hand
 * over (enrol.c, then comeback.c). Until then the program's threads wait where they touch what is
 * away, as they did while there was no daemon.
 *
 * On the control thread; before that serves for the most part.
 *
 * Never here: a file removed that a refused arena may name. Somebody may wait for it.
 */
#include "adopt.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "log.h"
#include "recover.h"
#include "tier.h"
#include "util/array.h"

/* A child that no process is known of waits so long for its parent's agent. */
#define NAMELESS_NS 10000000000u

static bool refused;
static uint64_t adopted_ns;

static struct tier *find_tier(void *arg, const char *name)
{
	const struct daemon_env *env = arg;

	return strcmp(env->tier->name, name) == 0 ? env->tier : NULL;
}

static bool has_ended(pid_t pid)
{
	return pid > 0 && kill(pid, 0) < 0 && errno == ESRCH;
}

static struct group *group_of(const struct space_unit *unit)
{
	struct group *group = group_get(unit->group.token, unit->group.uid,
					(enum group_kind)unit->group.kind, true);

	if (group && stats_get(&group->target_pages) == 0)
		__atomic_store_n(&group->target_pages, unit->group.target_pages, __ATOMIC_RELAXED);
	return group;
}

/* 0, 1: it has been forgotten, or a negative errno. */
static int adopt_space(const struct daemon_env *env, struct recovered *recovered, uint32_t i)
{
	struct recovered_space *found = &recovered->spaces[i];
	struct group *group;
	struct space *space;
	int err;

	if (has_ended(found->unit->pid)) {
		recovered_forget_space(recovered, i);
		return 1;
	}
	group = group_of(found->unit);
	if (!group)
		return -ENOMEM;
	err = space_restore(env, group, recovered->family, found, &space);
	group_put(group);
	return err;
}

/* Nothing of it is changed any more: the next daemon may do better. */
static void leave(struct recovered *recovered, const char *path, const char *why)
{
	log_err("%s: cannot be taken over: %s; its programs keep waiting", path, why);
	refused = true;
	(void)recovered;
}

/* ---- shared memory ----------------------------------------------------------------------- */

/* Who mapped an object that was open is refused (enrol.c), and keeps waiting. Once none of them is
 * left nobody needs the object's pages. That is known when all spaces are. */
struct left_object {
	struct recovered recovered;
	char *path;
};

static struct left_object *left_objects;
static uint32_t n_left_objects, left_objects_cap;

static void note_object(struct recovered *recovered, const char *path)
{
	struct left_object *v = array_room(left_objects, n_left_objects, &left_objects_cap,
					   sizeof(*v));

	if (v)
		left_objects = v;
	if (!v || !(v[n_left_objects].path = strdup(path))) {
		leave(recovered, path, "no memory");
		family_leave(recovered->family);
		recovered_deinit(recovered);
		return;
	}
	v[n_left_objects++].recovered = *recovered;
}

static bool somebody_shares(void)
{
	bool shares = false;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces)
		shares |= list_entry(pos, struct space, link)->unit->has_shared != 0;
	registry_unlock();
	return shares;
}

static void drop_object(struct recovered *recovered)
{
	pagemap_deinit(&recovered->object.map);
	if (recovered->object.store)
		family_retire_store(recovered->family, recovered->object.store);
	(void)family_unref(recovered->family);
}

static void settle_objects(void)
{
	bool needed = refused || somebody_shares();

	for (uint32_t i = 0; i < n_left_objects; i++) {
		struct left_object *left = &left_objects[i];

		if (needed) {
			leave(&left->recovered, left->path, "it is shared memory");
			family_leave(left->recovered.family);
		} else {
			drop_object(&left->recovered);
		}
		recovered_deinit(&left->recovered);
		free(left->path);
	}
	free(left_objects);
	left_objects = NULL;
	n_left_objects = left_objects_cap = 0;
}

/* ---- families ---------------------------------------------------------------------------- */

static void adopt_family(const struct daemon_env *env, const char *path)
{
	struct recovered recovered;
	char why[RECOVER_WHY_BYTES];
	uint32_t n = 0;
	bool all = true;
	int err = family_open(path, env->config->max_arena_bytes, find_tier, (void *)env, &recovered,
			      why);

	/* Its daemon died over the making of it: no process has heard of it. */
	if (err == -EPROTO && arena_is_unfinished(path)) {
		(void)unlink(path);
		return;
	}
	if (err < 0) {
		leave(NULL, path, why);
		return;
	}
	registry_used_id(recovered.last_id);
	if (recovered.has_object) {
		note_object(&recovered, path);
		return;
	}
	for (uint32_t i = 0; i < recovered.n_spaces; i++) {
		err = adopt_space(env, &recovered, i);
		if (err < 0)
			leave(&recovered, path, strerror(-err));
		all &= err >= 0;
		n += err == 0;
	}
	/* Each space has a reference; one that could not be restored is kept by ours. */
	if (all)
		(void)family_unref(recovered.family);
	if (n)
		log_info("%s: %u processes may come back", path, n);
	recovered_deinit(&recovered);
}

/* The number in "family-NUMBER.arena"; 0. */
static uint64_t family_of_arena(const char *name)
{
	unsigned long long id = 0;
	int end = 0;

	if (sscanf(name, "family-%llu.arena%n", &id, &end) != 1 || end == 0 || name[end] != '\0')
		return 0;
	return id;
}

static void each_file(const char *path, void (*fn)(void *arg, const char *path, const char *name),
		      void *arg)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char file[PATH_MAX];

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (entry->d_type == DT_REG &&
		    snprintf(file, sizeof(file), "%s/%s", path, entry->d_name) < (int)sizeof(file))
			fn(arg, file, entry->d_name);
	closedir(dir);
}

static void adopt_file(void *arg, const char *path, const char *name)
{
	uint64_t id = family_of_arena(name);

	if (id) {
		registry_used_id(id);
		adopt_family(arg, path);
	}
}

/* A store of a family that has no arena any more. */
static void remove_stray(void *arg, const char *path, const char *name)
{
	const struct daemon_env *env = arg;
	unsigned long long id = 0;
	char arena[PATH_MAX];

	if (sscanf(name, "f%llu-s", &id) != 1 ||
	    snprintf(arena, sizeof(arena), "%s/family-%llu.arena", env->config->state_dir, id) >=
		    (int)sizeof(arena))
		return;
	if (access(arena, F_OK) < 0 && errno == ENOENT)
		(void)unlink(path);
}

void adopt_all(const struct daemon_env *env)
{
	adopted_ns = clock_now_ns();
	each_file(env->config->state_dir, adopt_file, (void *)env);
	settle_objects();
	each_file(env->config->pages_dir, remove_stray, (void *)env);
}

bool adopt_has_refused(void)
{
	bool left = refused;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces)
		left |= list_entry(pos, struct space, link)->orphan;
	registry_unlock();
	return left;
}

/* With the registry's lock held: may an agent of the family bring children back still? One whose
 * process is known, or one that is back and whose worker is at what it brought. */
static bool may_bring_children(const struct family *family)
{
	struct list *pos;

	list_for_each(pos, &registry_spaces) {
		const struct space *space = list_entry(pos, struct space, link);

		if (space->family != family || space_get_state(space) == SPACE_DEAD)
			continue;
		if (__atomic_load_n(&space->comeback, __ATOMIC_ACQUIRE) ||
		    (space->orphan && space->pid > 0))
			return true;
	}
	return false;
}

static struct space *find_lost_orphan(void)
{
	bool late = clock_now_ns() - adopted_ns > NAMELESS_NS;
	struct space *lost = NULL;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (!__atomic_load_n(&space->orphan, __ATOMIC_ACQUIRE))
			continue;
		if (has_ended(space->pid) ||
		    (space->pid == 0 && late && !may_bring_children(space->family)))
			lost = space;
	}
	if (lost)
		__atomic_store_n(&lost->orphan, false, __ATOMIC_RELEASE);
	registry_unlock();
	return lost;
}

void adopt_sweep(void)
{
	struct space *lost;

	while ((lost = find_lost_orphan())) {
		group_add_tier_pages(lost->group, -(int64_t)stats_get(&lost->tier_pages));
		space_unref(lost);
	}
}
