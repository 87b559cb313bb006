/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens an arena that a daemon left: has it checked (recover_check.c), opens its stores, and
 * only then writes what was counted anew. Called by who takes spaces over, on one thread, while
 * nobody else knows the family.
 *
 * Order of stores: none matters but that of the free list, which arena.c keeps, for all that is
 * written here is counted anew by a successor too, and no count becomes lower than its users.
 *
 * Never here: a store to the arena before all that may fail has been done.
 */
#include "recover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leaf_refs.h"
#include "recover_check.h"
#include "space.h"
#include "tier.h"

/* ---- stores -------------------------------------------------------------------------- */

static struct recovered_space *find_space(const struct recovered *recovered, uint64_t id)
{
	uint32_t low = 0, high = recovered->n_spaces;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (recovered->spaces[middle].unit->space_id < id)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < recovered->n_spaces && recovered->spaces[low].unit->space_id == id)
		return &recovered->spaces[low];
	return NULL;
}

/* Whose it is to fill it: where its pointer to it goes. NULL: nobody's. */
static struct store **find_filler(struct recovered *recovered, const struct store_unit *unit)
{
	struct recovered_space *space = find_space(recovered, unit->space_id);

	if (space != NULL)
		return &space->store;
	if (recovered->has_object &&
	    recovered->family->arena.header->object.store == unit->index)
		return &recovered->object.store;
	return NULL;
}

/* May the family do without it? One without a record may never have been opened, or be closed
 * already; or what it was in is no more. */
static bool store_is_dispensable(const struct recovery *recovery, const struct recover_store *note,
				 int err)
{
	const struct recovered *recovered = recovery->recovered;

	if (note->n_used > 0)
		return false;
	if (recovered->has_object &&
	    recovery->family->arena.header->object.store == note->unit->index)
		return false;
	return err == -ENOENT || err == -ENODEV || err == -EOPNOTSUPP;
}

static int open_store(struct recovery *recovery, struct recover_store *note,
		      family_find_tier_fn find_tier, void *arg)
{
	const struct store_unit *unit = note->unit;
	struct tier *tier = find_tier(arg, unit->tier);
	struct uhmm_store *backend_store = NULL;
	const void *map = NULL;
	int err = tier == NULL ? -ENODEV
			       : tier_store_reopen(tier, unit->name, unit->slots.n_slots,
						   &backend_store, &map);

	if (err < 0 && !store_is_dispensable(recovery, note, err)) {
		(void)snprintf(recovery->why, RECOVER_WHY_BYTES, "store %.63s of tier %.40s",
			       unit->name, unit->tier);
		return err;
	}
	if (err < 0)
		tier = NULL;
	err = family_restore_store(recovery->family, note->off, tier, backend_store, map,
				   &note->store);
	if (err < 0 && tier != NULL)
		tier_store_leave(tier, backend_store);
	return err;
}

static int open_stores(struct recovery *recovery, family_find_tier_fn find_tier, void *arg)
{
	for (uint32_t i = 1; i <= recovery->max_store; i++) {
		int err = 0;

		if (recovery->stores[i] != NULL)
			err = open_store(recovery, recovery->stores[i], find_tier, arg);
		if (err < 0)
			return err;
	}
	return 0;
}

/* Each store that is not closed has one that fills it, each of these at most one store. */
static void give_store(struct recovery *recovery, struct recover_store *note)
{
	struct store **filler = find_filler(recovery->recovered, note->unit);

	if (note->store->tier == NULL)
		return;
	if (note->closed || filler == NULL || *filler != NULL)
		note->closed = true;
	else
		*filler = note->store;
}

/* ---- writing ------------------------------------------------------------------------- */

/* What nobody fills ends with its last slot, and what has no bytes at once. */
static void end_store(struct recovery *recovery, struct recover_store *note)
{
	if (note->store->tier == NULL)
		family_forget_store(recovery->family, note->store);
	else if (note->closed)
		family_retire_store(recovery->family, note->store);
}

static void rebuild(struct recovery *recovery)
{
	struct arena *arena = &recovery->family->arena;

	for (uint32_t i = 1; i <= recovery->max_store; i++) {
		struct recover_store *note = recovery->stores[i];

		if (note == NULL)
			continue;
		slots_recount(arena, &note->unit->slots, note->refs);
		if (note->store->tier != NULL)
			tier_add_used(note->store->tier, note->n_used);
		give_store(recovery, note);
	}
	leaf_refs_recount(arena, recovery->sharers);
	for (uint64_t unit = 0; unit < arena->header->n_units; unit++) {
		if (recovery->use[unit] == USE_FREE)
			recovery->use[unit] = USE_NONE;
	}
	arena_rebuild_free(arena, recovery->use);
	for (uint32_t i = 1; i <= recovery->max_store; i++) {
		if (recovery->stores[i] != NULL)
			end_store(recovery, recovery->stores[i]);
	}
}

/* ---- opening ------------------------------------------------------------------------- */

static int map_arena(struct recovery *recovery, const char *path, size_t map_bytes)
{
	const char *slash = strrchr(path, '/');
	char name[64];
	int err = family_map(path, map_bytes, &recovery->family);

	if (err < 0) {
		(void)snprintf(recovery->why, RECOVER_WHY_BYTES, "%s",
			       err == -EPROTO ? "not an arena of this version, or torn"
			       : err == -EPERM ? "others can reach it"
					       : strerror(-err));
		return err;
	}
	/* A copy under another name would have the same stores. */
	(void)family_name_arena(name, sizeof(name), recovery->family->id);
	if (strcmp(name, slash != NULL ? slash + 1 : path) != 0)
		return recovery_refuse(recovery, 0, "another family's name");
	return 0;
}

int family_open(const char *path, size_t map_bytes, family_find_tier_fn find_tier, void *arg,
		struct recovered *ret_recovered, char why[static RECOVER_WHY_BYTES])
{
	struct recovered recovered = { .family = NULL };
	struct recovery *recovery = calloc(1, sizeof(*recovery));
	int err;

	(void)snprintf(why, RECOVER_WHY_BYTES, "no memory");
	if (recovery == NULL)
		return -ENOMEM;
	recovery->recovered = &recovered;
	recovery->why = why;
	err = map_arena(recovery, path, map_bytes);
	recovered.family = recovery->family;
	if (err == 0)
		err = recovery_check(recovery);
	if (err == 0)
		err = open_stores(recovery, find_tier, arg);
	if (err == 0) {
		rebuild(recovery);
		why[0] = '\0';
		*ret_recovered = recovered;
	} else {
		if (recovery->family != NULL)
			family_leave(recovery->family);
		recovered_deinit(&recovered);
	}
	recovery_deinit(recovery);
	free(recovery);
	return err;
}

static void free_log(struct arena *arena, arena_off off)
{
	while (off != 0) {
		arena_off next = ((struct log_unit *)arena_ptr(arena, off))->next;

		arena_free(arena, off);
		off = next;
	}
}

void recovered_forget_space(struct recovered *recovered, uint32_t i)
{
	struct recovered_space *space = &recovered->spaces[i];
	struct family *family = recovered->family;

	(void)pthread_mutex_lock(&family->lock);
	arena_list_remove(&family->arena, &family->arena.header->spaces, space->unit_off);
	(void)pthread_mutex_unlock(&family->lock);
	if (space->store != NULL)
		family_retire_store(family, space->store);
	pagemap_deinit(&space->past);
	pagemap_deinit(&space->map);
	free_log(&family->arena, space->unit->log);
	space_unit_free(&family->arena, space->unit_off);
	family_reap(family);
	*space = (struct recovered_space){ .unit = NULL };
}

void recovered_deinit(struct recovered *recovered)
{
	free(recovered->spaces);
	*recovered = (struct recovered){ .family = NULL };
}
