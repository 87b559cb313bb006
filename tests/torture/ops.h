/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The operations. Each is a function that takes all its decisions from op->r and from the
 * actor's own state, so that the same operations in the same order do the same again, and
 * that a trace with lines left out still means something.
 */
#ifndef UHMM_TORTURE_OPS_H
#define UHMM_TORTURE_OPS_H

#include "torture.h"

struct op_kind {
	const char *name;
	const char *group; /* --ops takes groups too */
	uint32_t weight;
	void (*run)(struct actor *a, const struct op *op);
};

/* One table for each file of operations; ends with an empty name. */
extern const struct op_kind ops_memory[], ops_advise[], ops_process[], ops_io[], ops_thread[],
	ops_shared[];

/* Joins the tables; before anything else here is called. */
void ops_init(void);
uint32_t ops_count(void);
const struct op_kind *op_kind(uint32_t code);
const char *op_name(uint32_t code);
/* The code of that name; -ENOENT. */
int op_code(const char *name);
/* Which may be drawn: a list of names and groups, separated by commas, "-name" leaves out.
 * -EINVAL. */
int ops_enable(const char *list);
/* The next one of an actor. */
void op_draw(struct actor *a, struct op *ret_op);

/* ---- what operations are made of ---------------------------------------------------------- */

/* A run of pages of a region. */
struct run {
	struct region *region;
	uint32_t first, n;
};

/* A world's memory that everybody stores into; before its threads start. */
void common_open(struct actor *a);

/* A region that exists, or NULL. */
struct region *region_choose(struct actor *a, uint32_t r);
/* At most `max` pages of some region; false: there is none. */
bool run_choose(struct actor *a, const struct op *op, uint32_t max, struct run *ret_run);
static inline char *run_addr(const struct run *run)
{
	return run->region->addr + run->first * ctl->page_size;
}
static inline size_t run_bytes(const struct run *run)
{
	return run->n * ctl->page_size;
}
/* A call was made on the run alone: unless it is the whole region, that is several mappings
 * now, perhaps. */
static inline void run_patch(const struct run *run)
{
	run->region->patched |= run->n != run->region->n_pages;
}
static inline bool run_is_private(const struct run *run)
{
	return run->region->kind == REGION_PRIVATE;
}
/* Do all pages of the run satisfy that? */
bool run_all(const struct run *run, bool (*holds)(const struct page_shadow *page));
bool page_is_writable(const struct page_shadow *page);
bool page_is_readable(const struct page_shadow *page);
bool page_is_mapped(const struct page_shadow *page);
bool page_is_unlocked(const struct page_shadow *page);

/* A new region of n pages of zeros; NULL: there is no room. `addr` NULL: where the kernel
 * likes. */
struct region *region_map(struct actor *a, uint32_t n_pages, char *addr);
/* The same, above a page that is never anything. */
struct region *region_map_fenced(struct actor *a, uint32_t n_pages);
/* Moved away from its fence: that goes. */
void region_leave_fence(struct actor *a, struct region *region);
void region_unmap(struct actor *a, struct region *region);
/* A slot for a region; NULL. The caller fills it. */
struct region *region_take(struct actor *a, uint32_t n_pages);
/* Let the slot go; nothing is unmapped. */
void region_forget(struct actor *a, struct region *region);

/* Send pages out, or home; whatever can go. */
void pages_out(struct actor *a, const void *addr, size_t bytes);
void pages_home(struct actor *a, const void *addr, size_t bytes);

/* Wait for all forked children; each must have ended well. */
void kids_wait(struct actor *a);

/* Store new versions into the cells of mask. */
void page_store(struct actor *a, struct region *region, uint32_t page, uint32_t mask);
/* Look at a page that can be read, or that it cannot be. */
void page_check(struct actor *a, struct region *region, uint32_t page, const char *how);
void region_check(struct actor *a, struct region *region, const char *how);

static inline void actor_beat(struct actor *a)
{
	__atomic_fetch_add(&a->beat, 1, __ATOMIC_RELAXED);
}

#endif
