/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slot counts: owns the two-level table below a struct slots_root in the arena.
 * Called by family.c and by whoever stores pages, on any thread, with the family's
 * lock held.
 *
 * Order of stores: a count unit is zero before it is linked, a table is linked before
 * n_slots says so, and a slot's count is 1 before anyone learns its number. n_used and
 * next are hints that a successor counts anew.
 *
 * Never here: a slot handed out while its count is above 0.
 */
#include "slots.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "log.h"

/* How far slots_alloc looks for a single run of all that is wanted, before it takes
 * what comes. Bounds the time under the family's lock. */
#define SLOTS_LOOK_MAX 32768u

#define SLOTS_DIRS (sizeof(((struct slots_root *)NULL)->dirs) / sizeof(arena_off))
#define SLOTS_MAX ((uint64_t)SLOTS_DIRS * SLOTS_DIR_ENTRIES * SLOTS_PER_UNIT)

/* The count of a slot below n_slots. */
static uint16_t *slots_at(const struct arena *arena, const struct slots_root *root, uint64_t slot)
{
	uint64_t unit = slot / SLOTS_PER_UNIT;
	const arena_off *dir = arena_ptr(arena, root->dirs[unit / SLOTS_DIR_ENTRIES]);
	uint16_t *counts = arena_ptr(arena, dir[unit % SLOTS_DIR_ENTRIES]);

	return counts + slot % SLOTS_PER_UNIT;
}

static __attribute__((noreturn)) void slots_die(const struct arena *arena, uint64_t slot,
						const char *what)
{
	log_err("%s: slot %llu: %s", arena->path, (unsigned long long)slot, what);
	abort();
}

static uint16_t *slots_at_used(const struct arena *arena, const struct slots_root *root,
			       uint64_t slot)
{
	uint16_t *count = slot < root->n_slots ? slots_at(arena, root, slot) : NULL;

	if (count == NULL || *count == 0)
		slots_die(arena, slot, "used, but free or beyond the end");
	return count;
}

static int slots_link(struct arena *arena, arena_off *entry)
{
	arena_off off;
	int r;

	if (*entry != 0)
		return 0;
	r = arena_alloc(arena, &off);
	if (r == 0)
		arena_publish(entry, off);
	return r;
}

int slots_grow(struct arena *arena, struct slots_root *root, uint64_t n_slots)
{
	uint64_t unit;

	if (n_slots > SLOTS_MAX)
		return -ENOSPC;
	for (unit = root->n_slots / SLOTS_PER_UNIT; unit * SLOTS_PER_UNIT < n_slots; unit++) {
		arena_off *dir_entry = &root->dirs[unit / SLOTS_DIR_ENTRIES];
		arena_off *dir;
		int r = slots_link(arena, dir_entry);

		if (r < 0)
			return r;
		dir = arena_ptr(arena, *dir_entry);
		r = slots_link(arena, &dir[unit % SLOTS_DIR_ENTRIES]);
		if (r < 0)
			return r;
	}
	if (n_slots > root->n_slots)
		arena_publish(&root->n_slots, n_slots);
	return 0;
}

/* The first slot of [from, end) whose being used differs from `used`; end if none. */
static uint64_t slots_skip(const struct arena *arena, const struct slots_root *root,
			   uint64_t from, uint64_t end, bool used)
{
	while (from < end) {
		const uint16_t *count = slots_at(arena, root, from);
		uint64_t stop = (from / SLOTS_PER_UNIT + 1) * SLOTS_PER_UNIT;

		for (stop = stop < end ? stop : end; from < stop; from++, count++) {
			if ((*count != 0) != used)
				return from;
		}
	}
	return end;
}

/* The first free run in [from, end), cut at `want`; n = 0 when there is none. */
static struct slots_run slots_find(const struct arena *arena, const struct slots_root *root,
				   uint64_t from, uint64_t end, uint32_t want)
{
	uint64_t first = slots_skip(arena, root, from, end, true);
	uint64_t stop = end - first > want ? first + want : end;

	stop = slots_skip(arena, root, first, stop, false);
	return (struct slots_run){ .slot = first, .n = (uint32_t)(stop - first) };
}

static void slots_take(struct arena *arena, struct slots_root *root, const struct slots_run *run)
{
	uint32_t i;

	for (i = 0; i < run->n; i++)
		*slots_at(arena, root, run->slot + i) = 1;
	root->n_used += run->n;
	root->next = run->slot + run->n;
}

/* One run of all that is wanted, if there is one near `next`. */
static bool slots_alloc_whole(struct arena *arena, struct slots_root *root, uint32_t want,
			      struct slots_run *ret_run)
{
	uint64_t from = root->next < root->n_slots ? root->next : 0;
	uint64_t end = root->n_slots - from > SLOTS_LOOK_MAX ? from + SLOTS_LOOK_MAX
							      : root->n_slots;

	while (from < end) {
		struct slots_run run = slots_find(arena, root, from, end, want);

		if (run.n == want) {
			slots_take(arena, root, &run);
			*ret_run = run;
			return true;
		}
		from = run.slot + run.n;
	}
	return false;
}

/* Whatever is free in [from, end), in order; adds to what is taken already. */
static uint32_t slots_alloc_any(struct arena *arena, struct slots_root *root, uint64_t from,
				uint64_t end, uint32_t want, struct slots_run *runs,
				uint32_t max_runs, uint32_t *taken)
{
	uint32_t n_runs = 0;

	while (n_runs < max_runs && *taken < want) {
		struct slots_run run = slots_find(arena, root, from, end, want - *taken);

		if (run.n == 0)
			break;
		slots_take(arena, root, &run);
		runs[n_runs++] = run;
		*taken += run.n;
		from = run.slot + run.n;
	}
	return n_runs;
}

uint32_t slots_alloc(struct arena *arena, struct slots_root *root, uint32_t want,
		     struct slots_run *runs, uint32_t max_runs, uint32_t *ret_taken)
{
	uint64_t start = root->next < root->n_slots ? root->next : 0;
	uint64_t n_free = root->n_slots - root->n_used;
	uint32_t n_runs, taken = 0;

	*ret_taken = 0;
	if (want > n_free)
		want = (uint32_t)n_free;
	if (want == 0 || max_runs == 0)
		return 0;
	if (slots_alloc_whole(arena, root, want, &runs[0])) {
		*ret_taken = want;
		return 1;
	}
	n_runs = slots_alloc_any(arena, root, start, root->n_slots, want, runs, max_runs, &taken);
	n_runs += slots_alloc_any(arena, root, 0, start, want, runs + n_runs, max_runs - n_runs,
				  &taken);
	*ret_taken = taken;
	return n_runs;
}

uint32_t slots_count(const struct arena *arena, const struct slots_root *root, uint64_t slot)
{
	return slot < root->n_slots ? *slots_at(arena, root, slot) : 0;
}

int slots_ref(struct arena *arena, struct slots_root *root, uint64_t slot)
{
	uint16_t *count = slots_at_used(arena, root, slot);

	if (*count == SLOTS_REF_MAX)
		return -EOVERFLOW;
	++*count;
	return 0;
}

int slots_unref(struct arena *arena, struct slots_root *root, uint64_t slot)
{
	uint16_t *count = slots_at_used(arena, root, slot);

	if (--*count > 0)
		return 0;
	root->n_used--;
	return 1;
}

static void slots_recount_unit(uint16_t *counts, const uint32_t *refs, uint64_t n)
{
	uint64_t i;

	for (i = 0; i < SLOTS_PER_UNIT; i++) {
		uint16_t count = i < n ? (uint16_t)refs[i] : 0;

		if (counts[i] != count)
			counts[i] = count;
	}
}

void slots_recount(struct arena *arena, struct slots_root *root, const uint32_t *refs)
{
	uint64_t first = 0, slot, n_used = 0;
	uint32_t i, k;

	for (i = 0; i < SLOTS_DIRS && root->dirs[i] != 0; i++) {
		const arena_off *dir = arena_ptr(arena, root->dirs[i]);

		for (k = 0; k < SLOTS_DIR_ENTRIES && dir[k] != 0; k++, first += SLOTS_PER_UNIT) {
			uint64_t n = first < root->n_slots ? root->n_slots - first : 0;

			slots_recount_unit(arena_ptr(arena, dir[k]), n ? refs + first : NULL, n);
		}
	}
	for (slot = 0; slot < root->n_slots; slot++)
		n_used += refs[slot] > 0 ? 1 : 0;
	root->n_used = n_used;
	root->next = 0;
}

void slots_deinit(struct arena *arena, struct slots_root *root)
{
	uint32_t i, k;

	arena_publish(&root->n_slots, 0);
	for (i = 0; i < SLOTS_DIRS && root->dirs[i] != 0; i++) {
		arena_off dir_off = root->dirs[i];
		const arena_off *dir = arena_ptr(arena, dir_off);

		arena_publish(&root->dirs[i], 0);
		for (k = 0; k < SLOTS_DIR_ENTRIES && dir[k] != 0; k++)
			arena_free(arena, dir[k]);
		arena_free(arena, dir_off);
	}
	*root = (struct slots_root){ .n_slots = 0 };
}
