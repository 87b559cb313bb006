/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fork families: owns the arena, the table of stores and, in the arena, the list of
 * store units. Called by the threads of all spaces of the family and by control.
 *
 * Order of stores: a unit is in the list before its backend store is opened, and stays
 * there until that is closed, so a successor knows the name of every backend store
 * that may exist. A record names a store only after family_add_store has returned.
 *
 * Never here: a call into a backend with the lock held. A slot's last reference may go
 * on the fault path, so a store that dies there only moves to the `dead` list.
 */
#include "family.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "tier.h"

_Static_assert(sizeof(struct store_unit) <= ARENA_UNIT, "a store is one unit");

static void family_lock(struct family *family)
{
	(void)pthread_mutex_lock(&family->lock);
}

static void family_unlock(struct family *family)
{
	(void)pthread_mutex_unlock(&family->lock);
}

int family_name_arena(char *buf, size_t size, uint64_t id)
{
	return snprintf(buf, size, "family-%" PRIu64 ".arena", id);
}

int family_name_store(char *buf, size_t size, uint64_t id, uint64_t space_id, uint32_t index)
{
	return snprintf(buf, size, "f%" PRIu64 "-s%" PRIu64 "-%" PRIu32, id, space_id, index);
}

static void family_init(struct family *family)
{
	family->id = family->arena.header->family_id;
	family->n_refs = 1;
	(void)pthread_mutex_init(&family->lock, NULL);
}

int family_new(uint64_t id, const char *dir, size_t map_bytes, struct family **ret_family)
{
	struct family *family;
	char path[PATH_MAX], name[64];
	int r;

	(void)family_name_arena(name, sizeof(name), id);
	r = snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (r < 0 || (size_t)r >= sizeof(path))
		return -ENAMETOOLONG;
	family = calloc(1, sizeof(*family));
	if (family == NULL)
		return -ENOMEM;
	r = arena_create(&family->arena, path, id, map_bytes);
	if (r < 0) {
		free(family);
		return r;
	}
	family_init(family);
	*ret_family = family;
	return 0;
}

int family_map(const char *path, size_t map_bytes, struct family **ret_family)
{
	struct family *family = calloc(1, sizeof(*family));
	int r;

	if (family == NULL)
		return -ENOMEM;
	r = arena_open(&family->arena, path, map_bytes);
	if (r < 0) {
		free(family);
		return r;
	}
	family_init(family);
	*ret_family = family;
	return 0;
}

struct family *family_ref(struct family *family)
{
	family_lock(family);
	family->n_refs++;
	family_unlock(family);
	return family;
}

void family_forget_store(struct family *family, struct store *store)
{
	family_lock(family);
	arena_list_remove(&family->arena, &family->arena.header->stores, store->unit_off);
	slots_deinit(&family->arena, &store->unit->slots);
	family->stores[store->unit->index] = NULL;
	family_unlock(family);
	arena_free(&family->arena, store->unit_off);
	free(store);
}

static void store_close(struct family *family, struct store *store)
{
	/* Slots that a dying family still counts are room in the tier again. */
	tier_release(store->tier, (uint32_t)store->unit->slots.n_used);
	tier_store_close(store->tier, store->backend_store);
	family_forget_store(family, store);
}

void family_reap(struct family *family)
{
	struct store *dead;

	family_lock(family);
	dead = family->dead;
	family->dead = NULL;
	family_unlock(family);
	while (dead != NULL) {
		struct store *next = dead->next_dead;

		store_close(family, dead);
		dead = next;
	}
}

bool family_has_dead(struct family *family)
{
	bool has;

	family_lock(family);
	has = family->dead != NULL;
	family_unlock(family);
	return has;
}

static void family_free(struct family *family, int forget)
{
	arena_deinit(&family->arena, forget);
	(void)pthread_mutex_destroy(&family->lock);
	free(family);
}

struct family *family_unref(struct family *family)
{
	unsigned int n_refs, i;

	if (family == NULL)
		return NULL;
	family_reap(family);
	family_lock(family);
	n_refs = --family->n_refs;
	family_unlock(family);
	if (n_refs > 0)
		return NULL;
	for (i = 1; i <= FAMILY_STORES_MAX; i++) {
		if (family->stores[i] != NULL)
			store_close(family, family->stores[i]);
	}
	family_free(family, true);
	return NULL;
}

void family_leave(struct family *family)
{
	for (unsigned int i = 1; i <= FAMILY_STORES_MAX; i++) {
		struct store *store = family->stores[i];

		if (store != NULL && store->backend_store != NULL)
			tier_store_leave(store->tier, store->backend_store);
		free(store);
	}
	family_free(family, false);
}

/* Give the store an index and a unit in the list. */
static int store_link(struct family *family, struct store *store, uint64_t space_id)
{
	struct store_unit *unit = store->unit;
	uint32_t index = 1;

	family_lock(family);
	while (index <= FAMILY_STORES_MAX && family->stores[index] != NULL)
		index++;
	if (index <= FAMILY_STORES_MAX) {
		unit->index = index;
		unit->space_id = space_id;
		(void)snprintf(unit->tier, sizeof(unit->tier), "%s", store->tier->name);
		(void)family_name_store(unit->name, sizeof(unit->name), family->id, space_id,
					index);
		arena_list_add(&family->arena, &family->arena.header->stores, store->unit_off);
		family->stores[index] = store;
	}
	family_unlock(family);
	return index <= FAMILY_STORES_MAX ? 0 : -ENOSPC;
}

static int store_new(struct family *family, struct tier *tier, uint64_t space_id,
		     struct store **ret_store)
{
	struct store *store = calloc(1, sizeof(*store));
	int r;

	if (store == NULL)
		return -ENOMEM;
	r = arena_alloc(&family->arena, &store->unit_off);
	if (r < 0) {
		free(store);
		return r;
	}
	store->tier = tier;
	store->unit = arena_ptr(&family->arena, store->unit_off);
	r = store_link(family, store, space_id);
	if (r < 0) {
		arena_free(&family->arena, store->unit_off);
		free(store);
		return r;
	}
	*ret_store = store;
	return 0;
}

int family_add_store(struct family *family, struct tier *tier, uint64_t space_id,
		     struct store **ret_store)
{
	struct store *store;
	int r;

	family_reap(family);
	r = store_new(family, tier, space_id, &store);
	if (r < 0)
		return r;
	r = tier_store_open(tier, store->unit->name, &store->backend_store, &store->map);
	if (r < 0) {
		family_forget_store(family, store);
		return r;
	}
	*ret_store = store;
	return 0;
}

int family_restore_store(struct family *family, arena_off unit_off, struct tier *tier,
			 struct uhmm_store *backend_store, const void *map,
			 struct store **ret_store)
{
	struct store *store = calloc(1, sizeof(*store));

	if (store == NULL)
		return -ENOMEM;
	*store = (struct store){
		.unit = arena_ptr(&family->arena, unit_off),
		.unit_off = unit_off,
		.tier = tier,
		.backend_store = backend_store,
		.map = map,
	};
	family->stores[store->unit->index] = store;
	*ret_store = store;
	return 0;
}

/* A retired store dies with its last slot. With the lock held. */
static void store_check_dead(struct family *family, struct store *store)
{
	if (store->unit->closed == 0 || store->unit->slots.n_used > 0)
		return;
	store->next_dead = family->dead;
	family->dead = store;
}

void family_retire_store(struct family *family, struct store *store)
{
	family_lock(family);
	store->unit->closed = 1;
	store_check_dead(family, store);
	family_unlock(family);
	family_reap(family);
}

struct store *family_store(const struct family *family, uint32_t index)
{
	return index >= 1 && index <= FAMILY_STORES_MAX ? family->stores[index] : NULL;
}

static struct store *family_store_used(const struct family *family, uint32_t index)
{
	struct store *store = family_store(family, index);

	if (store == NULL) {
		log_err("family %" PRIu64 ": a record names store %" PRIu32 ", which is not there",
			family->id, index);
		abort();
	}
	return store;
}

int family_slot_ref(struct family *family, uint32_t store, uint64_t slot)
{
	return slots_ref(&family->arena, &family_store_used(family, store)->unit->slots, slot);
}

void family_slot_unref(struct family *family, uint32_t index, uint64_t slot)
{
	struct store *store = family_store_used(family, index);

	if (slots_unref(&family->arena, &store->unit->slots, slot) == 0)
		return;
	tier_release(store->tier, 1);
	store_check_dead(family, store);
}
