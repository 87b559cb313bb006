/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each page must hold, and whether it does. An actor's own pages only. */
#ifndef UHMM_TORTURE_SHADOW_H
#define UHMM_TORTURE_SHADOW_H

#include "torture.h"

/* A word says whose it is: page key, index in the page, version. Version 0 is zero. */
static inline uint64_t shadow_word(uint32_t key, uint32_t index, uint32_t version)
{
	return version ? (uint64_t)key << 36 | (uint64_t)(index & 0x1ffu) << 27 | version : 0;
}

static inline size_t cell_words(void)
{
	return ctl->page_size / sizeof(uint64_t) / CELLS;
}

static inline char *page_addr(const struct region *region, uint32_t page)
{
	return region->addr + page * ctl->page_size;
}

/* A page with nothing in it, just mapped. */
void shadow_fresh(struct actor *a, struct page_shadow *page);
/* Its content has become zeros. */
void shadow_zero(struct actor *a, struct page_shadow *page);
/* An event for the page's history. */
void shadow_note(struct actor *a, struct page_shadow *page);
/* The caller is about to make the bytes of the cells in `mask` those of a new version, which
 * is returned. */
uint32_t shadow_new_version(struct actor *a, struct page_shadow *page, uint32_t mask);

/* Put into `out` (a page) what the page will hold when the cells in mask have `version`, and
 * only these cells. */
void shadow_render(const struct page_shadow *page, uint32_t mask, char *out);

/* Do these bytes, which are or were the page's, agree with the shadow? If not, that is the end
 * of the torture. What they decide (MADV_FREE) is remembered. */
void shadow_check(struct actor *a, struct region *region, uint32_t page, const char *bytes,
		  const char *how);

#endif
