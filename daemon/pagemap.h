/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page map of a space: page index (address / page size) to record.
 *
 * A radix tree in the family's arena: four levels of 512 entries over leaves of
 * 512 records, a leaf for one chunk of 512 pages (2 MiB at 4 KiB). An entry of the
 * lowest level is the offset of a leaf plus flags in its low bits (pagemap_tree.h has
 * the rest):
 *
 *   CHECK            an UNMAP or REMAP touched this chunk: its records count only
 *                    with their markers, see fault.c
 *   SHARED           the leaf may be shared with another space of the family and is
 *                    read-only until it is copied; leaf_refs.h counts the sharers
 *   DEFAULT_REMOVED  pages without a leaf are REMOVED, not RESIDENT. Where a larger
 *                    region is REMOVED whole, one entry of a higher level says so
 *
 * After fork parent and child share all leaves: forking copies the inner nodes
 * only. The first change of a shared leaf copies it and takes a reference more on
 * each of its slots.
 *
 * Threads: a page map belongs to the worker of its space, nobody else reads or
 * writes it. What families share is done under family->lock inside: every function
 * that changes a map (set, reserve, drop, remove, move, fork, deinit) is called
 * without that lock. Those that only read take no lock.
 *
 * Page indices are below 2^45; beyond that a map is empty and set is -EINVAL.
 *
 * A change that empties a record of its slot gives back the slot's reference.
 */
#ifndef UHMMD_PAGEMAP_H
#define UHMMD_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "page_state.h"

#define PAGEMAP_LEAF_PAGES 512u
#define PAGEMAP_LEVELS 4

#define PAGEMAP_CHUNK_CHECK (1u << 0)
#define PAGEMAP_CHUNK_SHARED (1u << 1)
#define PAGEMAP_CHUNK_DEFAULT_REMOVED (1u << 2)

struct family;

struct pagemap {
	struct family *family; /* not owned */
	arena_off root;
	/* Kept while it changes, so that nobody has to walk the tree: */
	uint64_t n_away;     /* records in STAGED, STORED, COMING */
	uint64_t n_poisoned;
	uint64_t n_leaves;
};

#define PAGEMAP_NULL ((struct pagemap){ .family = NULL })

/* An empty map; -ENOSPC when the arena cannot grow. */
int pagemap_init(struct pagemap *map, struct family *family);
/* Give back every slot, leaf and node. Safe on PAGEMAP_NULL. */
void pagemap_deinit(struct pagemap *map);

struct page_rec pagemap_get(const struct pagemap *map, uint64_t pgidx);

/*
 * Store a record. Takes over the reference on the new record's slot (the caller
 * has taken it) and gives back the one of the old record, unless both name the same
 * slot: then the record keeps its one reference and takes none. Copies a shared leaf
 * first. -ENOSPC: nothing changed (only when a leaf is needed: storing a
 * zero record where there is no leaf needs none). -EOVERFLOW: a slot of a shared leaf
 * has too many references for a copy; nothing changed. On an error the caller still
 * owns the reference on the new record's slot.
 */
int pagemap_set(struct pagemap *map, uint64_t pgidx, struct page_rec rec);

/* Make room, so that pagemap_set in [first, first + n) cannot fail, until a fork or a drop
 * of the range. Errors as pagemap_set. Not on the fault path. */
int pagemap_reserve(struct pagemap *map, uint64_t first, uint64_t n);

/* Forget [first, first + n): every record becomes zero, DEFAULT_REMOVED is cleared for
 * chunks that are covered whole. A shared leaf (or DEFAULT_REMOVED) that is covered in
 * part and cannot be copied (or written out) is -ENOSPC or -EOVERFLOW: that chunk stays
 * as it was, the others are done, and the caller poisons the space or does it again.
 * Dropping all that a map has cannot fail. */
int pagemap_drop(struct pagemap *map, uint64_t first, uint64_t n);

/* madvise(DONTNEED or FREE): every record becomes REMOVED (POISONED too: the program gave the
 * bytes up). Whole chunks that have a leaf lose it and get DEFAULT_REMOVED. A page without a
 * record has nothing to be given up, and gets one only where its chunk does: so this needs no
 * memory but for the copy of a shared leaf. Errors as pagemap_drop. */
int pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n);

/* Give back the leaves in which nothing is recorded any more but that a page was REFERENCED. Looks
 * at every leaf: when memory is short. Cannot fail. */
void pagemap_prune(struct pagemap *map);

/* mremap: the records of [from, from + n) go to [to, to + n), with the chunk flags CHECK
 * on every chunk touched on both sides; what was at the destination is dropped, the source
 * is left empty. The ranges do not overlap (-EINVAL). On another error what was at the
 * destination may be gone, and the source is as it was. */
int pagemap_move(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n);
/* The same where the destination has been dropped: it holds nothing, or what a move that a crash
 * cut short had brought there already. Finishes such a move. On an error leaves without a record
 * may stay at the destination. */
int pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n);

/* fork: a new map for the child with everything that the parent has, in the same family.
 * No page is LEAVING, STAGED or COMING: the caller has settled what was in flight.
 * -ENOSPC: no child; the parent is as it was. */
int pagemap_fork(struct pagemap *parent, struct pagemap *ret_child);

/* Flags of the chunk that holds pgidx. Setting CHECK where there is no leaf and no
 * DEFAULT_REMOVED does nothing. In a larger region that is REMOVED whole CHECK is set for
 * all of it, and clearing does nothing until a record is set there. */
uint32_t pagemap_chunk_flags(const struct pagemap *map, uint64_t pgidx);
void pagemap_chunk_clear_check(struct pagemap *map, uint64_t pgidx);
void pagemap_mark_check(struct pagemap *map, uint64_t first, uint64_t n);

/*
 * The first record at or after `from` and before `end` that is away or poisoned; returns
 * its index or `end`. To walk: for (i = first; (i = pagemap_next(map, i, end, &rec)) < end; i++)
 * The map may be changed between calls.
 */
uint64_t pagemap_next(const struct pagemap *map, uint64_t from, uint64_t end,
		      struct page_rec *ret_rec);

/* The same for records that have a slot, also in LEAVING. */
uint64_t pagemap_next_slot(const struct pagemap *map, uint64_t from, uint64_t end,
			   struct page_rec *ret_rec);

/* Is any page of [first, first + n) away? Stops at the first. */
bool pagemap_any_away(const struct pagemap *map, uint64_t first, uint64_t n);

#endif
