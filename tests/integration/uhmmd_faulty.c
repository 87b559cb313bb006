/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon, with page maps that have no room when it is told to: UHMMD_FAIL=NAME:N makes the
 * N-th call of that function fail, and all after it if N has a + behind. The calls are caught by
 * the linker (--wrap), so nothing in the daemon knows of this.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pagemap.h"

int __real_arena_alloc(struct arena *arena, arena_off *ret_off);
int __wrap_arena_alloc(struct arena *arena, arena_off *ret_off);
int __real_pagemap_drop(struct pagemap *map, uint64_t first, uint64_t n);
int __wrap_pagemap_drop(struct pagemap *map, uint64_t first, uint64_t n);
int __real_pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n);
int __wrap_pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n);
int __real_pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n);
int __wrap_pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n);
int __real_pagemap_fork(struct pagemap *parent, struct pagemap *ret_child);
int __wrap_pagemap_fork(struct pagemap *parent, struct pagemap *ret_child);

static bool fails(const char *name)
{
	static atomic_ulong n_calls;
	const char *what = getenv("UHMMD_FAIL");
	size_t len = strlen(name);
	unsigned long at, now;
	char *end;

	if (!what || strncmp(what, name, len) != 0 || what[len] != ':')
		return false;
	at = strtoul(what + len + 1, &end, 10);
	now = atomic_fetch_add(&n_calls, 1) + 1;
	return now == at || (*end == '+' && now > at);
}

int __wrap_arena_alloc(struct arena *arena, arena_off *ret_off)
{
	return fails("arena_alloc") ? -ENOSPC : __real_arena_alloc(arena, ret_off);
}

/* Dropping all that there is needs no room. */
int __wrap_pagemap_drop(struct pagemap *map, uint64_t first, uint64_t n)
{
	return n != UINT64_MAX && fails("pagemap_drop") ? -ENOSPC
							: __real_pagemap_drop(map, first, n);
}

int __wrap_pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n)
{
	return fails("pagemap_remove") ? -ENOSPC : __real_pagemap_remove(map, first, n);
}

int __wrap_pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n)
{
	return fails("pagemap_move_onto") ? -ENOSPC : __real_pagemap_move_onto(map, from, to, n);
}

int __wrap_pagemap_fork(struct pagemap *parent, struct pagemap *ret_child)
{
	return fails("pagemap_fork") ? -ENOSPC : __real_pagemap_fork(parent, ret_child);
}
