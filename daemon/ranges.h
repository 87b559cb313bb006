/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sorted set of address ranges, each with a small tag (0, or why a range is not
 * managed). Owned by one thread. Adjacent ranges with the same tag are joined.
 */
#ifndef UHMMD_RANGES_H
#define UHMMD_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t start, end;
	uint32_t tag;
};

static inline bool ranges_meet(struct range a, struct range b)
{
	return a.start < b.end && b.start < a.end;
}

struct ranges {
	struct range *v;
	size_t n, cap;
};

#define RANGES_NULL ((struct ranges){ .v = NULL })

void ranges_deinit(struct ranges *ranges);
void ranges_clear(struct ranges *ranges);
/* What was there before in [start, end) is replaced. -ENOMEM: unchanged. */
int ranges_add(struct ranges *ranges, uint64_t start, uint64_t end, uint32_t tag);
int ranges_remove(struct ranges *ranges, uint64_t start, uint64_t end);
/* The same, where too little is better than too much: without memory nothing is left. */
void ranges_forget(struct ranges *ranges, uint64_t start, uint64_t end);
int ranges_copy(const struct ranges *from, struct ranges *ret_to);
/* The first range that ends after addr, or NULL. */
const struct range *ranges_at_or_after(const struct ranges *ranges, uint64_t addr);
bool ranges_cover(const struct ranges *ranges, uint64_t start, uint64_t end);
const struct range *ranges_find(const struct ranges *ranges, uint64_t addr);
uint64_t ranges_bytes(const struct ranges *ranges);

#endif
