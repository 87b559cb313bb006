/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A heap made by brk, as malloc makes it: it grows in small steps, gives a little
 * back now and then, and is many times the host target. What was given back and
 * taken again reads zero, everything else keeps its bytes.
 */
#include "prog.h"

#define STEP (33 * 4096)
#define STEPS 400

/* Page by page, as an allocator hands it out: the new ground is touched first here. */
static void fill_page(char *heap, size_t at)
{
	uint64_t *words = (void *)(heap + at);

	CHECK(is_zero(words, page_bytes()));
	for (size_t w = 0; w < page_bytes() / sizeof(*words); w++)
		words[w] = pattern_word(1, at / sizeof(*words) + w);
}

static void check_page(const char *heap, size_t at)
{
	pattern_check_from(heap + at, page_bytes(), 1, at);
}

static void move_break(intptr_t by)
{
	CHECK(sbrk(by) != (void *)-1);
}

int main(void)
{
	size_t page = page_bytes(), len = 0, end = 0;
	uint64_t state = 88172645463325252u;
	char *heap;

	move_break((intptr_t)(-(uintptr_t)sbrk(0) & (page - 1)));
	heap = sbrk(0);
	for (int step = 0; step < STEPS; step++) {
		move_break(STEP);
		end += STEP;
		if (step % 3 == 0) { /* some of what nobody has touched goes back */
			move_break(-4 * (intptr_t)page);
			end -= 4 * page;
		}
		for (; len < end; len += page) {
			fill_page(heap, len);
			check_page(heap, random_next(&state) % (len / page + 1) * page);
		}
		if (step % 7 == 0) { /* and some of what has been */
			move_break(-4 * (intptr_t)page);
			len = end -= 4 * page;
		}
	}
	for (size_t at = 0; at < len; at += page)
		check_page(heap, at);
	return 0;
}
