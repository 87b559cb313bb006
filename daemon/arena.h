/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An arena: a root-only file on a tmpfs, mapped by the daemon, that holds all
 * that a successor needs to know about one fork family: page maps, slot
 * references, batches in flight. Everything in it is found by offsets, so that a
 * restarted daemon may map it anywhere.
 *
 * It is a file of units of 4 KiB: a header, then units that are handed out and
 * taken back one by one. The mapping is reserved once at its largest size, so
 * addresses stay valid while the file grows; units are backed by fallocate before
 * use, so that a full tmpfs is -ENOSPC and never SIGBUS, and locked in memory.
 *
 * Threads: arena_alloc and arena_free take the arena's own lock. Offsets to
 * addresses: no lock.
 */
#ifndef UHMMD_ARENA_H
#define UHMMD_ARENA_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_UNIT 4096u
#define ARENA_MAGIC 0x616d6d6875000001ull
#define ARENA_VERSION 2u

/* An offset into the arena, in bytes; 0 is none (the header lies there). */
typedef uint64_t arena_off;

/* Of a family that is a shared object's: what object.h says of it. */
struct arena_object {
	uint64_t dev, ino;
	uint32_t number;
	uint32_t store; /* its index in the family's table */
	arena_off root; /* of the page map; stored last, 0: there is no object */
};

/* The first unit of the file. Units are never returned to the file system. */
struct arena_header {
	uint64_t magic;
	uint32_t version;
	uint32_t unit_bytes;
	uint64_t family_id;
	uint64_t n_units;   /* that the file has */
	arena_off free_head; /* a list through the first word of each free unit */
	uint64_t n_free;
	arena_off stores;    /* family.c: the first store unit */
	arena_off leaf_refs; /* leaf_refs.c: the root of the sharing counts */
	arena_off spaces;    /* space.c: the first space unit */
	struct arena_object object;
};

struct arena {
	struct arena_header *header; /* = the mapping's start */
	size_t map_bytes;	     /* reserved */
	int fd;
	char *path;
	pthread_mutex_t lock;
};

#define ARENA_NULL ((struct arena){ .fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER })

/* Make the file `path` (0600, must not exist), reserving map_bytes of addresses. */
int arena_create(struct arena *arena, const char *path, uint64_t family_id, size_t map_bytes);
/* Map an arena that exists, all of it if it has grown beyond map_bytes; checks magic, version,
 * size and the free list: -EPROTO when it is not one or torn, -EPERM when others than this user
 * can reach it. Writes nothing: call arena_rebuild_free before a unit is taken or given back. */
int arena_open(struct arena *arena, const char *path, size_t map_bytes);
/* Is it a file that arena_create had begun with, and nobody has used? */
bool arena_is_unfinished(const char *path);
/* Unmap and close; unlink too if `forget`. Safe on ARENA_NULL. */
void arena_deinit(struct arena *arena, int forget);

/* A zeroed unit, or -ENOSPC/-ENOMEM. Fast while arena_reserve was called in time. */
int arena_alloc(struct arena *arena, arena_off *ret_off);
void arena_free(struct arena *arena, arena_off off);
/* Units that could still be handed out, if the file system has room. Any thread; a hint. */
uint64_t arena_room(const struct arena *arena);
/* Make sure that n units are free, growing the file; never called on the fault path. */
int arena_reserve(struct arena *arena, uint64_t n);

/* A successor has seen which units are in use (used[unit] is not 0): all others are free. */
void arena_rebuild_free(struct arena *arena, const uint8_t *used);

/* Lists of units in use: the first word of each is the offset of the next. `head` lies in the
 * header. The caller holds a lock over each list. A unit is complete when it is added, and is
 * removed before anything of it changes; removing one that is not in the list does nothing. */
void arena_list_add(struct arena *arena, arena_off *head, arena_off off);
void arena_list_remove(struct arena *arena, arena_off *head, arena_off off);

/*
 * Store a word that a successor reads. A crash is the death of the process, not of
 * the machine, so only the compiler must be kept from moving other stores across.
 */
static inline void arena_publish(uint64_t *word, uint64_t value)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void *arena_ptr(const struct arena *arena, arena_off off)
{
	return (char *)arena->header + off;
}

#endif
