/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record of a page and its states: one table of allowed moves, one function
 * that makes a move and asserts it.
 *
 * A record is 64 bits. A zero record means: in host RAM or never touched, and
 * nothing is known about it, so memory that was never evicted needs no record.
 *
 *   bits 0-3    state
 *   bit  4      REFERENCED  came home by a fault since the hand last passed
 *   bit  5      UNMARKED    its hole carries no marker yet (an event was unread)
 *   bits 8-23   store       index in the family's table of stores
 *   bits 24-63  slot        in that store
 *
 * store and slot mean something in LEAVING, STAGED, STORED and COMING; a record
 * in one of these states holds one reference on its slot.
 */
#ifndef UHMMD_PAGE_STATE_H
#define UHMMD_PAGE_STATE_H

#include <stdbool.h>
#include <stdint.h>

/* Who owns the bytes in each state; only the owner frees them. */
enum page_state {
	PAGE_RESIDENT = 0, /* the kernel, in the program's page table */
	PAGE_LEAVING = 1,  /* the program until the MOVE, then staging: ask the kernel */
	PAGE_STAGED = 2,   /* the staging range of the space */
	PAGE_STORED = 3,   /* the slot */
	PAGE_COMING = 4,   /* the slot, until the fill succeeded */
	PAGE_REMOVED = 5,  /* nobody: the program gave them up; reads as zero */
	PAGE_POISONED = 6, /* nobody: lost; a touch raises SIGBUS */
	PAGE_STATE_MAX
};

struct page_rec {
	uint64_t v;
};

#define PAGE_REC_REFERENCED (1ull << 4)
#define PAGE_REC_UNMARKED (1ull << 5)
#define PAGE_REC_STORE_SHIFT 8
#define PAGE_REC_SLOT_SHIFT 24
#define PAGE_STORE_MAX 0xffffu
#define PAGE_SLOT_MAX ((1ull << 40) - 1)

static inline enum page_state page_rec_state(struct page_rec rec)
{
	return (enum page_state)(rec.v & 0xf);
}

static inline uint32_t page_rec_store(struct page_rec rec)
{
	return (uint32_t)(rec.v >> PAGE_REC_STORE_SHIFT) & PAGE_STORE_MAX;
}

static inline uint64_t page_rec_slot(struct page_rec rec)
{
	return rec.v >> PAGE_REC_SLOT_SHIFT;
}

/* Does a record in this state hold a reference on a slot? */
static inline bool page_state_has_slot(enum page_state state)
{
	return state == PAGE_LEAVING || state == PAGE_STAGED || state == PAGE_STORED ||
	       state == PAGE_COMING;
}

/* Are the bytes somewhere else than in the program's page table? */
static inline bool page_state_is_away(enum page_state state)
{
	return state == PAGE_STAGED || state == PAGE_STORED || state == PAGE_COMING;
}

/* A record of `state` for a slot. */
struct page_rec page_rec_make(enum page_state state, uint32_t store, uint64_t slot);

const char *page_state_name(enum page_state state);
bool page_state_move_allowed(enum page_state from, enum page_state to);

/*
 * Make a move: the record with its new state. Aborts the daemon when the table
 * does not allow it: wrong memory is worse than a crash. Store and slot are kept
 * if the new state has a slot and cleared if not; UNMARKED is kept while away.
 */
struct page_rec page_rec_move(struct page_rec rec, enum page_state to);

#endif
