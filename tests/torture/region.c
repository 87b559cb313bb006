/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What operations are made of: regions, runs of their pages, and the two ways to touch a page
 * with the processor. On the actor that owns the region.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fail.h"
#include "ops.h"
#include "shadow.h"
#include "uhmm/uhmm.h"

struct region *region_choose(struct actor *a, uint32_t r)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < REGIONS_MAX; i++)
		n += a->regions[i].kind != REGION_FREE;
	if (n == 0)
		return NULL;
	r %= n;
	for (uint32_t i = 0;; i++)
		if (a->regions[i].kind != REGION_FREE && r-- == 0)
			return &a->regions[i];
}

bool run_choose(struct actor *a, const struct op *op, uint32_t max, struct run *ret_run)
{
	struct region *region = region_choose(a, op->r[0]);
	uint32_t first, left;

	if (!region)
		return false;
	first = op->r[1] % region->n_pages;
	left = region->n_pages - first;
	if (left > max)
		left = max;
	*ret_run = (struct run){ .region = region, .first = first, .n = 1 + op->r[2] % left };
	return true;
}

bool run_all(const struct run *run, bool (*holds)(const struct page_shadow *page))
{
	for (uint32_t i = run->first; i < run->first + run->n; i++)
		if (!holds(&run->region->pages[i]))
			return false;
	return true;
}

bool page_is_writable(const struct page_shadow *page)
{
	return page->map == MAP_RW && !(page->flags & PAGE_GUARD);
}

bool page_is_readable(const struct page_shadow *page)
{
	return (page->map == MAP_RW || page->map == MAP_RO) && !(page->flags & PAGE_GUARD);
}

bool page_is_mapped(const struct page_shadow *page)
{
	return page->map != MAP_GONE;
}

bool page_is_unlocked(const struct page_shadow *page)
{
	return !(page->flags & PAGE_LOCKED);
}

/* ---- regions ---------------------------------------------------------------------------- */

struct region *region_take(struct actor *a, uint32_t n_pages)
{
	if (n_pages == 0 || n_pages > REGION_PAGES_MAX ||
	    a->pages_used + n_pages > ctl->pages_max)
		return NULL;
	for (uint32_t i = 0; i < REGIONS_MAX; i++) {
		struct region *region = &a->regions[i];

		if (region->kind != REGION_FREE)
			continue;
		region->kind = REGION_PRIVATE;
		region->patched = region->fenced = false;
		region->n_pages = n_pages;
		a->pages_used += n_pages;
		for (uint32_t p = 0; p < REGION_PAGES_MAX; p++)
			region->pages[p].n_events = 0;
		return region;
	}
	return NULL;
}

void region_forget(struct actor *a, struct region *region)
{
	a->pages_used -= region->n_pages;
	region->kind = REGION_FREE;
}

struct region *region_map(struct actor *a, uint32_t n_pages, char *addr)
{
	struct region *region = region_take(a, n_pages);
	char *got;

	if (!region)
		return NULL;
	got = mmap(addr, n_pages * ctl->page_size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | (addr ? MAP_FIXED_NOREPLACE : 0), -1, 0);
	if (got == MAP_FAILED && addr && errno == EEXIST) {
		region_forget(a, region);
		return NULL;
	}
	MUST(a, got != MAP_FAILED);
	region->addr = got;
	for (uint32_t i = 0; i < n_pages; i++)
		shadow_fresh(a, &region->pages[i]);
	return region;
}

struct region *region_map_fenced(struct actor *a, uint32_t n_pages)
{
	struct region *region = region_take(a, n_pages);
	char *got;

	if (!region)
		return NULL;
	got = mmap(NULL, (n_pages + 1) * ctl->page_size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(a, got != MAP_FAILED);
	MUST(a, mprotect(got, ctl->page_size, PROT_NONE) == 0);
	region->addr = got + ctl->page_size;
	region->fenced = true;
	for (uint32_t i = 0; i < n_pages; i++)
		shadow_fresh(a, &region->pages[i]);
	return region;
}

void region_leave_fence(struct actor *a, struct region *region)
{
	if (region->fenced)
		MUST(a, munmap(region->addr - ctl->page_size, ctl->page_size) == 0);
	region->fenced = false;
}

/* A page that has gone belongs to whoever mapped something there since. */
void region_unmap(struct actor *a, struct region *region)
{
	for (uint32_t i = 0, n; i < region->n_pages; i += n) {
		bool mapped = region->pages[i].map != MAP_GONE;

		for (n = 1; i + n < region->n_pages &&
			    (region->pages[i + n].map != MAP_GONE) == mapped; n++)
			;
		if (mapped)
			MUST(a, munmap(page_addr(region, i), n * ctl->page_size) == 0);
	}
	region_leave_fence(a, region);
	region_forget(a, region);
}

/* ---- touching --------------------------------------------------------------------------- */

void page_store(struct actor *a, struct region *region, uint32_t index, uint32_t mask)
{
	struct page_shadow *page = &region->pages[index];

	(void)shadow_new_version(a, page, mask);
	shadow_render(page, mask, page_addr(region, index));
	/* A region of hundreds may take long where each waits for room. */
	actor_beat(a);
}

/* Nothing may be read there, by whatever way. */
static void page_check_unreadable(struct actor *a, struct region *region, uint32_t index)
{
	struct iovec local = { .iov_base = a->bounce, .iov_len = 8 };
	struct iovec remote = { .iov_base = page_addr(region, index), .iov_len = 8 };
	ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	if (got < 0 && errno == EFAULT)
		return;
	if (got < 0)
		return; /* the way itself is closed: a sandbox */
	fail_page(a, region, index, 0, page_addr(region, index),
		  region->pages[index].flags & PAGE_GUARD ? "a read that a guard should have refused"
							  : "a read that PROT_NONE forbids");
}

void page_check(struct actor *a, struct region *region, uint32_t index, const char *how)
{
	const struct page_shadow *page = &region->pages[index];

	if (page_is_readable(page))
		shadow_check(a, region, index, page_addr(region, index), how);
	else if (page_is_mapped(page))
		page_check_unreadable(a, region, index);
}

void region_check(struct actor *a, struct region *region, const char *how)
{
	for (uint32_t i = 0; i < region->n_pages; i++) {
		page_check(a, region, i, how);
		actor_beat(a);
	}
}

/* ---- out and home ----------------------------------------------------------------------- */

static void migrate(struct actor *a, const void *addr, size_t bytes, enum uhmm_destination where)
{
	if (!a->handle && uhmm_open(NULL, &a->handle) < 0) {
		a->handle = NULL;
		return; /* unmanaged by now: nothing leaves */
	}
	__atomic_store_n(&a->asking, 1, __ATOMIC_RELAXED);
	if (uhmm_migrate(a->handle, addr, bytes, where) == -ENOTCONN) {
		uhmm_close(a->handle); /* it was another daemon's */
		a->handle = NULL;
	}
	__atomic_store_n(&a->asking, 0, __ATOMIC_RELAXED);
	actor_beat(a);
}

void pages_out(struct actor *a, const void *addr, size_t bytes)
{
	migrate(a, addr, bytes, UHMM_TO_TIER);
}

void pages_home(struct actor *a, const void *addr, size_t bytes)
{
	migrate(a, addr, bytes, UHMM_TO_HOME);
}
