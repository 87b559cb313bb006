/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A fork family: spaces that descend from one another and may share leaves of
 * page maps and slots. It owns the arena and the table of stores.
 *
 * A store outlives the space that filled it for as long as a record of another
 * space points into it.
 *
 * Locks: family->lock guards the stores table, slot counts, and the sharing of
 * leaves; it is held for memory work only, never over I/O or a system call that
 * can wait for a program. Order: (space is owned by its worker, no lock), then
 * family->lock, then arena->lock.
 */
#ifndef UHMMD_FAMILY_H
#define UHMMD_FAMILY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "slots.h"

#define FAMILY_STORES_MAX 4096u

/* In the arena, one unit each: what a successor needs to open the store again. */
struct store_unit {
	arena_off next; /* the list from arena_header.stores */
	struct slots_root slots;
	uint64_t space_id; /* who fills it */
	uint32_t index;	   /* in the family's table */
	uint32_t closed;   /* the space is gone: nothing new is stored here */
	char tier[64];
	char name[64];
};

struct tier;
struct uhmm_store;

struct store {
	struct store_unit *unit; /* in the arena */
	arena_off unit_off;
	struct tier *tier;
	struct uhmm_store *backend_store;
	const void *map; /* backend's store_map, or NULL */
	struct store *next_dead;
};

struct family {
	uint64_t id;
	struct arena arena;
	pthread_mutex_t lock;
	unsigned int n_refs; /* one a space; guarded by lock */
	struct store *dead;  /* retired and empty: to be closed without the lock */
	struct store *stores[FAMILY_STORES_MAX + 1]; /* NULL: free; [0] unused: store 0 is none */
};

/* The arena is <dir>/family-<id>.arena and must not exist yet. One reference. */
int family_new(uint64_t id, const char *dir, size_t map_bytes, struct family **ret_family);
struct family *family_ref(struct family *family);
/* The last unref closes every store that is left and forgets the arena. */
struct family *family_unref(struct family *family);

/* Let go of it, and leave the arena and all stores as they are, for a successor. */
void family_leave(struct family *family);

/* Add a store for a space; takes the lock. -ENOSPC when the table or the arena is full. */
int family_add_store(struct family *family, struct tier *tier, uint64_t space_id,
		     struct store **ret_store);
/* The space will not fill it any more: its last slot to be freed is its end. The caller
 * must not use `store` afterwards. Takes the lock. */
void family_retire_store(struct family *family, struct store *store);
/* Close the stores whose end has come: the backend gives memory back, which takes time.
 * Called by all functions above; call it now and then from the control thread too, for
 * stores whose last slot a page map freed. Never on the fault path. */
void family_reap(struct family *family);
/* Is there anything to reap? Any thread; takes the lock. */
bool family_has_dead(struct family *family);

/* With the lock held: */
/* NULL when there is no such store. */
struct store *family_store(const struct family *family, uint32_t index);
/* -EOVERFLOW: this slot has too many references, copy the page. Both abort on a store
 * or a slot that is not in use. The last unref gives the page back to the tier's capacity,
 * that tier_take took. */
int family_slot_ref(struct family *family, uint32_t store, uint64_t slot);
void family_slot_unref(struct family *family, uint32_t store, uint64_t slot);

/* For recover.c, while nobody else knows the family: */
/* Map an arena that exists, without a look at what it holds. One reference. */
int family_map(const char *path, size_t map_bytes, struct family **ret_family);
/* Put a store into the table that the arena has already. `backend_store` NULL: its bytes are
 * gone, and so must it be. -ENOMEM. */
int family_restore_store(struct family *family, arena_off unit_off, struct tier *tier,
			 struct uhmm_store *backend_store, const void *map,
			 struct store **ret_store);
/* Take a store whose backend store is no more out of the table and the arena, and free it. */
void family_forget_store(struct family *family, struct store *store);
/* The arena's file name, and a backend store's. */
int family_name_arena(char *buf, size_t size, uint64_t id);
int family_name_store(char *buf, size_t size, uint64_t id, uint64_t space_id, uint32_t index);

#endif
