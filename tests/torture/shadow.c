/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow of a page. Each store gives a new version to whole cells, so that the bytes that
 * must be there can be computed, and that wrong ones tell where they come from: a word names
 * its page, its place and its version. Called by the actor that owns the page; nobody else
 * changes it.
 */
#include "shadow.h"

#include <string.h>

#include "fail.h"

void shadow_note(struct actor *a, struct page_shadow *page)
{
	page->events[page->n_events++ % HISTORY] =
		(struct page_event){ .op = a->n_ops, .version = page->version, .code = a->code };
}

void shadow_fresh(struct actor *a, struct page_shadow *page)
{
	page->key = (ctl->round & 0xfu) << 24 | a->slot << 16 | (++a->last_key & 0xffffu);
	page->version = 0;
	page->map = MAP_RW;
	page->flags = 0;
	shadow_zero(a, page);
}

void shadow_zero(struct actor *a, struct page_shadow *page)
{
	memset(page->cell, 0, sizeof(page->cell));
	page->freed = FREED_NO;
	shadow_note(a, page);
}

uint32_t shadow_new_version(struct actor *a, struct page_shadow *page, uint32_t mask)
{
	page->version++;
	if (page->freed == FREED_LAZY) {
		page->freed = FREED_UNSURE;
		page->sure = 0;
	}
	for (uint32_t c = 0; c < CELLS; c++)
		if (mask >> c & 1)
			page->cell[c] = page->version;
	page->sure |= (uint8_t)mask;
	if (page->sure == 0xff)
		page->freed = FREED_NO;
	shadow_note(a, page);
	return page->version;
}

void shadow_render(const struct page_shadow *page, uint32_t mask, char *out)
{
	uint32_t n = (uint32_t)cell_words();
	uint64_t *words = (uint64_t *)(void *)out;

	for (uint32_t c = 0; c < CELLS; c++)
		for (uint32_t i = c * n; mask >> c & 1 && i < (c + 1) * n; i++)
			words[i] = shadow_word(page->key, i, page->cell[c]);
}

/* Index of the first word that is not what it would be if the unsure cells were zero, or old. */
static uint32_t first_difference(const struct page_shadow *page, const uint64_t *words, bool zero)
{
	uint32_t n = (uint32_t)cell_words();

	for (uint32_t c = 0; c < CELLS; c++) {
		bool sure = page->freed == FREED_UNSURE && page->sure >> c & 1;
		uint32_t version = zero && !sure ? 0 : page->cell[c];

		for (uint32_t i = c * n; i < (c + 1) * n; i++)
			if (words[i] != shadow_word(page->key, i, version))
				return i;
	}
	return UINT32_MAX;
}

/* What was seen decides what must be seen from now on. */
static void settle(struct actor *a, struct page_shadow *page, bool zero)
{
	if (!zero && page->freed == FREED_LAZY)
		return; /* the kernel may still take it */
	for (uint32_t c = 0; zero && c < CELLS; c++)
		if (page->freed == FREED_LAZY || !(page->sure >> c & 1))
			page->cell[c] = 0;
	page->freed = FREED_NO;
	shadow_note(a, page);
}

void shadow_check(struct actor *a, struct region *region, uint32_t index, const char *bytes,
		  const char *how)
{
	struct page_shadow *page = &region->pages[index];
	const uint64_t *words = (const uint64_t *)(const void *)bytes;
	uint32_t at = first_difference(page, words, false);

	if (at == UINT32_MAX) {
		if (page->freed != FREED_NO)
			settle(a, page, false);
		return;
	}
	if (page->freed != FREED_NO && first_difference(page, words, true) == UINT32_MAX) {
		settle(a, page, true);
		return;
	}
	fail_page(a, region, index, at, bytes, how);
}
