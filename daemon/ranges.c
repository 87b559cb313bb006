/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sorted array of ranges. Few and long in practice (mappings), so insertion by
 * memmove beats a tree.
 */
#include "ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void ranges_deinit(struct ranges *ranges)
{
	free(ranges->v);
	*ranges = RANGES_NULL;
}

void ranges_clear(struct ranges *ranges)
{
	ranges->n = 0;
}

static int ranges_make_room(struct ranges *ranges, size_t extra)
{
	size_t want = ranges->n + extra, cap = ranges->cap ? ranges->cap : 16;
	struct range *v;

	if (want <= ranges->cap)
		return 0;
	while (cap < want)
		cap *= 2;
	v = realloc(ranges->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	ranges->v = v;
	ranges->cap = cap;
	return 0;
}

/* Index of the first range that ends after addr. */
static size_t ranges_index(const struct ranges *ranges, uint64_t addr)
{
	size_t lo = 0, hi = ranges->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (ranges->v[mid].end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static void ranges_insert_at(struct ranges *ranges, size_t i, struct range range)
{
	memmove(&ranges->v[i + 1], &ranges->v[i], (ranges->n - i) * sizeof(range));
	ranges->v[i] = range;
	ranges->n++;
}

static void ranges_delete_at(struct ranges *ranges, size_t i)
{
	memmove(&ranges->v[i], &ranges->v[i + 1], (ranges->n - i - 1) * sizeof(*ranges->v));
	ranges->n--;
}

int ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end)
{
	size_t i;

	if (start >= end)
		return 0;
	if (ranges_make_room(ranges, 1) < 0)
		return -ENOMEM;
	i = ranges_index(ranges, start);
	while (i < ranges->n && ranges->v[i].start < end) {
		struct range *r = &ranges->v[i];

		if (r->start < start && r->end > end) {
			struct range tail = { end, r->end, r->tag };

			r->end = start;
			ranges_insert_at(ranges, i + 1, tail);
			return 0;
		}
		if (r->start < start) {
			r->end = start;
			i++;
		} else if (r->end > end) {
			r->start = end;
			return 0;
		} else {
			ranges_delete_at(ranges, i);
		}
	}
	return 0;
}

void ranges_forget(struct ranges *ranges, uint64_t start, uint64_t end)
{
	if (ranges_remove(ranges, start, end) < 0)
		ranges_clear(ranges);
}

int ranges_add(struct ranges *ranges, uint64_t start, uint64_t end, uint32_t tag)
{
	size_t i;

	if (start >= end)
		return 0;
	if (ranges_make_room(ranges, 2) < 0 || ranges_remove(ranges, start, end) < 0)
		return -ENOMEM;
	i = ranges_index(ranges, start);
	ranges_insert_at(ranges, i, (struct range){ start, end, tag });
	if (i + 1 < ranges->n && ranges->v[i + 1].start == end && ranges->v[i + 1].tag == tag) {
		ranges->v[i].end = ranges->v[i + 1].end;
		ranges_delete_at(ranges, i + 1);
	}
	if (i > 0 && ranges->v[i - 1].end == start && ranges->v[i - 1].tag == tag) {
		ranges->v[i - 1].end = ranges->v[i].end;
		ranges_delete_at(ranges, i);
	}
	return 0;
}

int ranges_copy(const struct ranges *from, struct ranges *ret_to)
{
	struct ranges to = RANGES_NULL;

	if (ranges_make_room(&to, from->n) < 0)
		return -ENOMEM;
	if (from->n)
		memcpy(to.v, from->v, from->n * sizeof(*from->v));
	to.n = from->n;
	*ret_to = to;
	return 0;
}

const struct range *ranges_at_or_after(const struct ranges *ranges, uint64_t addr)
{
	size_t i = ranges_index(ranges, addr);

	return i < ranges->n ? &ranges->v[i] : NULL;
}

const struct range *ranges_find(const struct ranges *ranges, uint64_t addr)
{
	const struct range *r = ranges_at_or_after(ranges, addr);

	return r && r->start <= addr ? r : NULL;
}

bool ranges_cover(const struct ranges *ranges, uint64_t start, uint64_t end)
{
	const struct range *r;

	while (start < end) {
		r = ranges_find(ranges, start);
		if (!r)
			return false;
		start = r->end;
	}
	return true;
}

uint64_t ranges_bytes(const struct ranges *ranges)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ranges->n; i++)
		sum += ranges->v[i].end - ranges->v[i].start;
	return sum;
}
