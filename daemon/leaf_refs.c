/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sharing counts of leaves: owns the three-level table below the arena header's
 * `leaf_refs`. Called by the page map, on the threads of all spaces of a family,
 * with the family's lock held.
 *
 * Order of stores: a count goes up before the new sharer's entry is stored, and down
 * after it is gone. So a crash leaves a count too high at worst, which costs a unit,
 * and never one too low, which would share a leaf that somebody writes to.
 */
#include "leaf_refs.h"

#include <errno.h>
#include <stdlib.h>

#include "log.h"

#define REFS_FANOUT (ARENA_UNIT / sizeof(arena_off))
#define REFS_PER_UNIT (ARENA_UNIT / sizeof(uint32_t))

struct refs_path {
	uint64_t root, dir, count; /* indices into the root, a directory, a count unit */
};

static struct refs_path refs_path_of(arena_off leaf)
{
	uint64_t unit = leaf / ARENA_UNIT;

	return (struct refs_path){
		.root = unit / REFS_PER_UNIT / REFS_FANOUT,
		.dir = unit / REFS_PER_UNIT % REFS_FANOUT,
		.count = unit % REFS_PER_UNIT,
	};
}

/* NULL where no unit of the table is. */
static uint32_t *refs_find(const struct arena *arena, arena_off leaf)
{
	struct refs_path path = refs_path_of(leaf);
	arena_off off = arena->header->leaf_refs;

	if (off == 0 || path.root >= REFS_FANOUT)
		return NULL;
	off = ((arena_off *)arena_ptr(arena, off))[path.root];
	if (off == 0)
		return NULL;
	off = ((arena_off *)arena_ptr(arena, off))[path.dir];
	return off == 0 ? NULL : (uint32_t *)arena_ptr(arena, off) + path.count;
}

static int refs_link(struct arena *arena, arena_off *entry)
{
	arena_off off;
	int r;

	if (*entry != 0)
		return 0;
	r = arena_alloc(arena, &off);
	if (r == 0)
		arena_publish(entry, off);
	return r;
}

static int refs_make(struct arena *arena, arena_off leaf, uint32_t **ret_count)
{
	struct refs_path path = refs_path_of(leaf);
	arena_off *entry = &arena->header->leaf_refs;
	int r;

	if (path.root >= REFS_FANOUT)
		return -ENOSPC;
	r = refs_link(arena, entry);
	if (r < 0)
		return r;
	entry = (arena_off *)arena_ptr(arena, *entry) + path.root;
	r = refs_link(arena, entry);
	if (r < 0)
		return r;
	entry = (arena_off *)arena_ptr(arena, *entry) + path.dir;
	r = refs_link(arena, entry);
	if (r < 0)
		return r;
	*ret_count = (uint32_t *)arena_ptr(arena, *entry) + path.count;
	return 0;
}

static uint32_t *refs_find_shared(const struct arena *arena, arena_off leaf)
{
	uint32_t *count = refs_find(arena, leaf);

	if (count == NULL || *count == 0) {
		log_err("%s: leaf %#llx is marked shared and has no count", arena->path,
			(unsigned long long)leaf);
		abort();
	}
	return count;
}

uint32_t leaf_refs_count(const struct arena *arena, arena_off leaf)
{
	const uint32_t *count = refs_find(arena, leaf);

	return count == NULL ? 0 : *count;
}

int leaf_refs_reserve(struct arena *arena, arena_off leaf)
{
	uint32_t *count;

	return refs_make(arena, leaf, &count);
}

int leaf_refs_share(struct arena *arena, arena_off leaf)
{
	uint32_t *count;
	int r = refs_make(arena, leaf, &count);

	if (r < 0)
		return r;
	if (*count == UINT32_MAX)
		return -EOVERFLOW;
	*count += *count == 0 ? 2 : 1;
	return 0;
}

uint32_t leaf_refs_unshare(struct arena *arena, arena_off leaf)
{
	return --*refs_find_shared(arena, leaf);
}

void leaf_refs_claim(struct arena *arena, arena_off leaf)
{
	uint32_t *count = refs_find_shared(arena, leaf);

	if (*count != 1) {
		log_err("%s: leaf %#llx has %u sharers and cannot be claimed", arena->path,
			(unsigned long long)leaf, *count);
		abort();
	}
	*count = 0;
}

/* The units whose counts this one has begin at `unit`. */
static void refs_recount_unit(struct arena *arena, arena_off off, uint64_t unit,
			      const uint32_t *sharers)
{
	uint32_t *counts = arena_ptr(arena, off);
	uint64_t n_units = arena->header->n_units, i;

	for (i = 0; i < REFS_PER_UNIT; i++, unit++) {
		uint32_t count = unit < n_units ? sharers[unit] : 0;

		if (counts[i] != count)
			counts[i] = count;
	}
}

void leaf_refs_recount(struct arena *arena, const uint32_t *sharers)
{
	uint64_t root = arena->header->leaf_refs, i, k;

	for (i = 0; root != 0 && i < REFS_FANOUT; i++) {
		arena_off dir = ((arena_off *)arena_ptr(arena, root))[i];

		for (k = 0; dir != 0 && k < REFS_FANOUT; k++) {
			arena_off off = ((arena_off *)arena_ptr(arena, dir))[k];

			if (off != 0)
				refs_recount_unit(arena, off, (i * REFS_FANOUT + k) * REFS_PER_UNIT,
						  sharers);
		}
	}
}
