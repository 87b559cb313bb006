/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bugs of the planted daemon. Each function stands in for the daemon's own of that name, and
 * is that function unless UHMM_PLANT names the bug. On the daemon's threads.
 */
#include "plants.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evict.h"
#include "family.h"
#include "object.h"
#include "pagemap.h"
#include "pinned.h"
#include "quiesce.h"
#include "space.h"
#include "uffd.h"

#define PAGEMAP_GUARD (1ull << 58)
/* Every so many references one is not taken. */
#define REFS_A_DROP 16u

static const char *const names[] = {
	"skip-remap",	  "zero-on-fork", "forget-remove",   "lose-wake",	"drop-refcount",
	"wipe-not",	  "fill-guard",	  "read-gate-open",  "evict-tcb",	"skip-settle",
	"unsettled",	  "none",
};
static const char *plant = "none";

/* A name that is no bug would prove nothing. */
static void __attribute__((constructor)) plant_choose(void)
{
	const char *name = getenv("UHMM_PLANT");

	if (!name)
		return;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(name, names[i]) == 0)
			plant = names[i];
	if (strcmp(plant, name) != 0) {
		fprintf(stderr, "uhmmd-planted: there is no bug '%s'\n", name);
		_exit(2);
	}
}

bool planted(const char *name)
{
	return strcmp(plant, name) == 0;
}

/* ---- skip-remap: mremap is not followed ---------------------------------------------------- */

int __real_pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n);
int __wrap_pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n);

int __wrap_pagemap_move_onto(struct pagemap *map, uint64_t from, uint64_t to, uint64_t n)
{
	return planted("skip-remap") ? 0 : __real_pagemap_move_onto(map, from, to, n);
}

/* ---- forget-remove: a madvise whose event was read may still be under way ------------------ */

int __real_pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n);
int __wrap_pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n);
void __real_quiesce_note_remove(struct space *space, uint64_t start, uint64_t end);
void __wrap_quiesce_note_remove(struct space *space, uint64_t start, uint64_t end);
void __real_object_note_remove(struct space *space, uint64_t start, uint64_t end);
void __wrap_object_note_remove(struct space *space, uint64_t start, uint64_t end);

int __wrap_pagemap_remove(struct pagemap *map, uint64_t first, uint64_t n)
{
	return planted("forget-remove") ? 0 : __real_pagemap_remove(map, first, n);
}

void __wrap_quiesce_note_remove(struct space *space, uint64_t start, uint64_t end)
{
	if (!planted("forget-remove"))
		__real_quiesce_note_remove(space, start, end);
}

void __wrap_object_note_remove(struct space *space, uint64_t start, uint64_t end)
{
	if (!planted("forget-remove"))
		__real_object_note_remove(space, start, end);
}

/* ---- zero-on-fork, wipe-not: what a child inherits ------------------------------------------ */

int __real_pagemap_fork(struct pagemap *parent, struct pagemap *ret_child);
int __wrap_pagemap_fork(struct pagemap *parent, struct pagemap *ret_child);

/* Every record counts, with or without a marker in the page table. */
static void trust_records(struct pagemap *map)
{
	struct page_rec rec;

	for (uint64_t i = 0; (i = pagemap_next(map, i, UINT64_MAX, &rec)) < UINT64_MAX; i++) {
		if (page_rec_state(rec) != PAGE_STORED)
			continue;
		rec.v |= PAGE_REC_UNMARKED;
		(void)pagemap_set(map, i, rec);
	}
}

int __wrap_pagemap_fork(struct pagemap *parent, struct pagemap *ret_child)
{
	int error = __real_pagemap_fork(parent, ret_child);

	if (error == 0 && planted("zero-on-fork"))
		(void)__real_pagemap_remove(ret_child, 0, UINT64_MAX);
	if (error == 0 && planted("wipe-not"))
		trust_records(ret_child);
	return error;
}

/* ---- skip-settle: what is in staging at a fork is not stored before the child is made -------- */

void __real_evict_settle_batches(struct space *space);
void __wrap_evict_settle_batches(struct space *space);

void __wrap_evict_settle_batches(struct space *space)
{
	if (!planted("skip-settle"))
		__real_evict_settle_batches(space);
}

/* ---- lose-wake: the page is there already, and whoever waits for it goes on waiting ---------- */

static __thread bool was_there;

static enum uffd_result note_result(enum uffd_result result)
{
	was_there = result == UFFD_EXISTS;
	return result;
}

enum uffd_result __real_uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
				  uint64_t *ret_done);
enum uffd_result __wrap_uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
				  uint64_t *ret_done);
enum uffd_result __real_uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
enum uffd_result __wrap_uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
enum uffd_result __real_uffd_continue(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
enum uffd_result __wrap_uffd_continue(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
enum uffd_result __real_uffd_wake(int uffd, uint64_t addr, uint64_t bytes);
enum uffd_result __wrap_uffd_wake(int uffd, uint64_t addr, uint64_t bytes);

enum uffd_result __wrap_uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
				  uint64_t *ret_done)
{
	return note_result(__real_uffd_copy(uffd, addr, src, bytes, ret_done));
}

enum uffd_result __wrap_uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done)
{
	return note_result(__real_uffd_zeropage(uffd, addr, bytes, ret_done));
}

enum uffd_result __wrap_uffd_continue(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done)
{
	return note_result(__real_uffd_continue(uffd, addr, bytes, ret_done));
}

enum uffd_result __wrap_uffd_wake(int uffd, uint64_t addr, uint64_t bytes)
{
	bool lose = was_there && planted("lose-wake");

	was_there = false;
	return lose ? UFFD_OK : __real_uffd_wake(uffd, addr, bytes);
}

/* ---- drop-refcount: a slot has fewer references than records ---------------------------------- */

int __real_family_slot_ref(struct family *family, uint32_t store, uint64_t slot);
int __wrap_family_slot_ref(struct family *family, uint32_t store, uint64_t slot);

int __wrap_family_slot_ref(struct family *family, uint32_t store, uint64_t slot)
{
	static atomic_uint n_calls;

	if (planted("drop-refcount") && atomic_fetch_add(&n_calls, 1) % REFS_A_DROP == 0)
		return 0;
	return __real_family_slot_ref(family, store, slot);
}

/* ---- fill-guard: a guard takes the place of our marker ----------------------------------------- */

ssize_t planted_read_pagemap(int fd, void *to, size_t bytes, off_t at)
{
	ssize_t got = pread(fd, to, bytes, at);
	uint64_t *entries = to;

	for (size_t i = 0; planted("fill-guard") && got > 0 && i < (size_t)got / sizeof(*entries); i++)
		if (entries[i] & PAGEMAP_GUARD)
			entries[i] = UHMM_PAGEMAP_UFFD_WP;
	return got;
}

/* ---- read-gate-open: events are read while the agent may MOVE ----------------------------------- */

bool __real_evict_close_gates(struct space *space);
bool __wrap_evict_close_gates(struct space *space);

bool __wrap_evict_close_gates(struct space *space)
{
	return planted("read-gate-open") || __real_evict_close_gates(space);
}

/* ---- evict-tcb: threads' control blocks may leave; with an agent that does not look either ------- */

bool __real_pinned_has(const struct pinned *pinned, uint64_t pgidx);
bool __wrap_pinned_has(const struct pinned *pinned, uint64_t pgidx);

bool __wrap_pinned_has(const struct pinned *pinned, uint64_t pgidx)
{
	return !planted("evict-tcb") && __real_pinned_has(pinned, pgidx);
}

/* ---- unsettled: nobody asks whether an event is outstanding -------------------------------------- */

enum uffd_result __real_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd);

enum uffd_result __wrap_uffd_settled(int uffd)
{
	return planted("unsettled") ? UFFD_OK : __real_uffd_settled(uffd);
}
