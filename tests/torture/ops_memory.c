/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loads, stores, and the calls that change what is mapped where.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "ops.h"
#include "shadow.h"

static void op_store(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_choose(a, op, 32, &run))
		return;
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		/* Often one cell, sometimes the page. */
		uint32_t mask = op->r[2] >> 8 & 3 ? 1u << (op->r[1] >> 20) % CELLS : 0xff;

		if (page_is_writable(&run.region->pages[i]))
			page_store(a, run.region, i, mask);
	}
}

static void op_load(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_choose(a, op, 32, &run))
		return;
	for (uint32_t i = run.first; i < run.first + run.n; i++)
		page_check(a, run.region, i, "a load");
}

static void op_sweep(struct actor *a, const struct op *op)
{
	struct region *region = region_choose(a, op->r[0]);

	if (region)
		region_check(a, region, "a sweep of loads");
}

static uint32_t size_of(uint32_t r)
{
	switch (r & 7) {
	case 0:
		return 1 + (r >> 3) % REGION_PAGES_MAX;
	case 1:
	case 2:
		return 1 + (r >> 3) % 128;
	default:
		return 1 + (r >> 3) % 24;
	}
}

static void op_map(struct actor *a, const struct op *op)
{
	uint32_t n_pages = size_of(op->r[0]);
	struct region *region = op->r[2] & 3 ? region_map(a, n_pages, NULL)
					     : region_map_fenced(a, n_pages);

	/* Mostly it is filled at once. */
	for (uint32_t i = 0; region && op->r[1] & 7 && i < region->n_pages; i++)
		page_store(a, region, i, 0xff);
}

static void op_drop(struct actor *a, const struct op *op)
{
	struct region *region = region_choose(a, op->r[0]);

	if (!region)
		return;
	if (op->r[1] & 1)
		region_check(a, region, "a last look");
	region_unmap(a, region);
}

/* The ground of a region is mapped anew at once, by its own or by another thread. */
static void op_remap_same(struct actor *a, const struct op *op)
{
	struct region *region = region_choose(a, op->r[0]);
	uint32_t n_pages;
	char *addr;

	if (!region)
		return;
	n_pages = region->n_pages;
	addr = region->addr;
	region_unmap(a, region);
	region = region_map(a, n_pages, op->r[1] & 1 ? addr : NULL);
	for (uint32_t i = 0; region && op->r[1] & 2 && i < n_pages; i++)
		page_store(a, region, i, 1);
}

static void op_hole(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_choose(a, op, 16, &run) || !run_all(&run, page_is_mapped))
		return;
	MUST(a, munmap(run_addr(&run), run_bytes(&run)) == 0);
	run.region->patched = true;
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		run.region->pages[i].map = MAP_GONE;
		run.region->pages[i].flags = 0;
		shadow_note(a, &run.region->pages[i]);
	}
}

/* Over what is there, or into a hole. */
static void op_fixed(struct actor *a, const struct op *op)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	struct run run;
	char *got;

	if (!run_choose(a, op, 16, &run) || !run_is_private(&run))
		return;
	flags |= run_all(&run, page_is_mapped) ? MAP_FIXED : MAP_FIXED_NOREPLACE;
	got = mmap(run_addr(&run), run_bytes(&run), PROT_READ | PROT_WRITE, flags, -1, 0);
	if (got == MAP_FAILED && flags & MAP_FIXED_NOREPLACE && errno == EEXIST)
		return;
	MUST(a, got == run_addr(&run));
	run_patch(&run);
	for (uint32_t i = run.first; i < run.first + run.n; i++)
		shadow_fresh(a, &run.region->pages[i]);
}

static void op_protect(struct actor *a, const struct op *op)
{
	static const struct {
		enum page_map map;
		int prot;
	} kinds[] = { { MAP_NONE, PROT_NONE },
		      { MAP_RO, PROT_READ },
		      { MAP_RW, PROT_READ | PROT_WRITE },
		      { MAP_RW, PROT_READ | PROT_WRITE } };
	uint32_t kind = op->r[2] >> 10 & 3;
	struct run run;

	if (!run_choose(a, op, 64, &run) || !run_all(&run, page_is_mapped))
		return;
	MUST(a, mprotect(run_addr(&run), run_bytes(&run), kinds[kind].prot) == 0);
	run_patch(&run);
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		run.region->pages[i].map = (uint8_t)kinds[kind].map;
		shadow_note(a, &run.region->pages[i]);
	}
}

/* Everything writable again, in one go. */
static void op_unprotect(struct actor *a, const struct op *op)
{
	struct region *region = region_choose(a, op->r[0]);
	struct run run = { .region = region, .first = 0, .n = region ? region->n_pages : 0 };

	if (!region || !run_all(&run, page_is_mapped))
		return;
	MUST(a, mprotect(run_addr(&run), run_bytes(&run), PROT_READ | PROT_WRITE) == 0);
	for (uint32_t i = 0; i < run.n; i++)
		region->pages[i].map = MAP_RW;
}

/* ---- mremap ----------------------------------------------------------------------------- */

/* mremap takes one mapping: a region in which nothing was changed piecemeal. */
static struct region *whole_region(struct actor *a, const struct op *op)
{
	struct region *region = region_choose(a, op->r[0]);

	return region && !region->patched ? region : NULL;
}

static void region_resize(struct actor *a, struct region *region, uint32_t n_pages)
{
	for (uint32_t i = region->n_pages; i < n_pages; i++) {
		shadow_fresh(a, &region->pages[i]);
		region->pages[i].map = region->pages[0].map;
		/* A guard is of the page, all else of the mapping. */
		region->pages[i].flags = region->pages[0].flags & (uint8_t)~PAGE_GUARD;
	}
	a->pages_used += n_pages;
	a->pages_used -= region->n_pages;
	region->n_pages = n_pages;
}

static void op_grow(struct actor *a, const struct op *op)
{
	struct region *region = whole_region(a, op);
	uint32_t n_pages;
	char *got;

	if (!region || region->kind != REGION_PRIVATE)
		return; /* beyond a shared object's end there is nothing */
	n_pages = region->n_pages + 1 + op->r[1] % 32;
	if (n_pages > REGION_PAGES_MAX || a->pages_used + n_pages - region->n_pages > ctl->pages_max)
		return;
	got = mremap(region->addr, region->n_pages * ctl->page_size, n_pages * ctl->page_size,
		     op->r[2] & 3 ? MREMAP_MAYMOVE : 0);
	if (got == MAP_FAILED && !(op->r[2] & 3) && errno == ENOMEM)
		return;
	MUST_REGION(a, region, got != MAP_FAILED);
	if (got != region->addr)
		region_leave_fence(a, region);
	region->addr = got;
	region_resize(a, region, n_pages);
}

static void op_shrink(struct actor *a, const struct op *op)
{
	struct region *region = whole_region(a, op);
	uint32_t n_pages;

	if (!region || region->n_pages < 2)
		return;
	n_pages = 1 + op->r[1] % (region->n_pages - 1);
	MUST_REGION(a, region, mremap(region->addr, region->n_pages * ctl->page_size, n_pages * ctl->page_size,
		       op->r[2] & 1 ? MREMAP_MAYMOVE : 0) == region->addr);
	region_resize(a, region, n_pages);
}

/* Ground that is free, or that another region of ours stands on. */
static char *new_ground(struct actor *a, const struct op *op, struct region *region)
{
	size_t bytes = region->n_pages * ctl->page_size;
	struct region *victim = region_choose(a, op->r[1]);
	char *addr;

	if (victim && victim != region && victim->n_pages >= region->n_pages && op->r[2] & 1) {
		struct run run = { .region = victim, .first = 0, .n = victim->n_pages };

		if (run_all(&run, page_is_mapped)) {
			/* What is left of it goes first. */
			addr = victim->addr;
			if (victim->n_pages > region->n_pages)
				MUST(a, munmap(addr + bytes, (victim->n_pages - region->n_pages) *
								     ctl->page_size) == 0);
			region_leave_fence(a, victim);
			region_forget(a, victim);
			return addr;
		}
	}
	addr = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	MUST(a, addr != MAP_FAILED);
	return addr;
}

static void op_move(struct actor *a, const struct op *op)
{
	struct region *region = whole_region(a, op);
	size_t bytes;
	char *ground;

	if (!region)
		return;
	bytes = region->n_pages * ctl->page_size;
	ground = new_ground(a, op, region);
	MUST_REGION(a, region, mremap(region->addr, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, ground) ==
			ground);
	region_leave_fence(a, region);
	region->addr = ground;
}

/* The old place stays mapped, and empty. */
static void op_dontunmap(struct actor *a, const struct op *op)
{
	struct region *region = whole_region(a, op), *old;
	struct run run = { .region = region, .first = 0, .n = region ? region->n_pages : 0 };
	char *got;

	if (!region || !run_is_private(&run) || !run_all(&run, page_is_writable) ||
	    !run_all(&run, page_is_unlocked))
		return;
	old = region_take(a, region->n_pages);
	if (!old)
		return;
	got = mremap(region->addr, run_bytes(&run), run_bytes(&run),
		     MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	MUST_REGION(a, region, got != MAP_FAILED);
	old->addr = region->addr;
	old->fenced = region->fenced;
	region->fenced = false;
	region->addr = got;
	for (uint32_t i = 0; i < run.n; i++) {
		shadow_fresh(a, &old->pages[i]);
		old->pages[i].flags = region->pages[i].flags;
	}
}

/* ---- out and home ----------------------------------------------------------------------- */

static void op_out(struct actor *a, const struct op *op)
{
	struct run run;

	/* Shared memory takes its time. */
	if (run_choose(a, op, 128, &run) && (run_is_private(&run) || !(op->r[2] >> 28 & 3)))
		pages_out(a, run_addr(&run), run_bytes(&run));
}

static void op_home(struct actor *a, const struct op *op)
{
	struct run run;

	if (run_choose(a, op, 64, &run))
		pages_home(a, run_addr(&run), run_bytes(&run));
}

const struct op_kind ops_memory[] = {
	{ "store", "touch", 300, op_store },
	{ "load", "touch", 240, op_load },
	{ "sweep", "touch", 6, op_sweep },
	{ "map", "map", 40, op_map },
	{ "drop", "map", 14, op_drop },
	{ "remap-same", "map", 14, op_remap_same },
	{ "hole", "map", 6, op_hole },
	{ "fixed", "map", 14, op_fixed },
	{ "protect", "map", 16, op_protect },
	{ "unprotect", "map", 8, op_unprotect },
	{ "grow", "mremap", 14, op_grow },
	{ "shrink", "mremap", 10, op_shrink },
	{ "move", "mremap", 30, op_move },
	{ "dontunmap", "mremap", 8, op_dontunmap },
	{ "out", "migrate", 40, op_out },
	{ "home", "migrate", 6, op_home },
	{ NULL, NULL, 0, NULL },
};
