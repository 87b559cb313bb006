/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The states of a page: the table of allowed moves and the one function that makes
 * them. Pure functions, called on every thread that owns a page map. A move that
 * the table does not allow never returns.
 */
#include "page_state.h"

#include <stddef.h>
#include <stdlib.h>

#include "log.h"

#define TO(state) (1u << PAGE_##state)

/* page_moves[from] has a bit for each state that may follow. */
static const uint8_t page_moves[PAGE_STATE_MAX] = {
	/* The program may give up (REMOVED) or lose (POISONED) a page in any state that
	 * has bytes; RESIDENT after an away state is a fill, or an unmap. */
	[PAGE_RESIDENT] = TO(LEAVING) | TO(REMOVED) | TO(POISONED),
	/* RESIDENT: the MOVE did not take it. */
	[PAGE_LEAVING] = TO(STAGED) | TO(RESIDENT) | TO(REMOVED) | TO(POISONED),
	/* RESIDENT: a touch was served from staging. */
	[PAGE_STAGED] = TO(STORED) | TO(RESIDENT) | TO(REMOVED) | TO(POISONED),
	/* RESIDENT: forgotten, for the program has its own page or none. */
	[PAGE_STORED] = TO(COMING) | TO(RESIDENT) | TO(REMOVED) | TO(POISONED),
	/* STORED: the fill was given up, the slot still has the bytes. */
	[PAGE_COMING] = TO(RESIDENT) | TO(STORED) | TO(REMOVED) | TO(POISONED),
	/* RESIDENT: a fault was served with zeros. */
	[PAGE_REMOVED] = TO(RESIDENT) | TO(POISONED),
	/* Only what gives up the bytes or the range ends it. */
	[PAGE_POISONED] = TO(RESIDENT) | TO(REMOVED),
};

static const char *const page_names[PAGE_STATE_MAX] = {
	[PAGE_RESIDENT] = "RESIDENT", [PAGE_LEAVING] = "LEAVING", [PAGE_STAGED] = "STAGED",
	[PAGE_STORED] = "STORED",     [PAGE_COMING] = "COMING",	  [PAGE_REMOVED] = "REMOVED",
	[PAGE_POISONED] = "POISONED",
};

static __attribute__((noreturn)) void page_state_die(const char *what, struct page_rec rec,
						     unsigned int to)
{
	log_err("page record %#llx: %s (%s to %s)", (unsigned long long)rec.v, what,
		page_state_name(page_rec_state(rec)), page_state_name((enum page_state)to));
	abort();
}

struct page_rec page_rec_make(enum page_state state, uint32_t store, uint64_t slot)
{
	struct page_rec rec = { .v = (uint64_t)state };

	if (!page_state_has_slot(state))
		return rec;
	rec.v |= (uint64_t)store << PAGE_REC_STORE_SHIFT | slot << PAGE_REC_SLOT_SHIFT;
	if (store == 0 || store > PAGE_STORE_MAX || slot > PAGE_SLOT_MAX)
		page_state_die("no such store or slot", rec, (unsigned int)state);
	return rec;
}

const char *page_state_name(enum page_state state)
{
	return (unsigned int)state < PAGE_STATE_MAX ? page_names[state] : "unknown";
}

bool page_state_move_allowed(enum page_state from, enum page_state to)
{
	return (unsigned int)from < PAGE_STATE_MAX && (unsigned int)to < PAGE_STATE_MAX &&
	       (page_moves[from] & 1u << to) != 0;
}

struct page_rec page_rec_move(struct page_rec rec, enum page_state to)
{
	enum page_state from = page_rec_state(rec);
	struct page_rec next = { .v = (uint64_t)to };

	if (!page_state_move_allowed(from, to))
		page_state_die("this move is not allowed", rec, (unsigned int)to);
	if (page_state_has_slot(to)) {
		next = page_rec_make(to, page_rec_store(rec), page_rec_slot(rec));
		if (page_state_is_away(to))
			next.v |= rec.v & PAGE_REC_UNMARKED;
	}
	return next;
}
