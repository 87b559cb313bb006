/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds slots for pages that leave. Called by the worker of a space for its store, and by the
 * object thread for an object's. Never on the fault path: a backend may have to grow.
 */
#include "store_slots.h"

#include "tier.h"

/* Slots are added so many at a time. */
#define SLOTS_STEP 4096u

static int store_grow(struct family *family, struct store *store, uint32_t want)
{
	struct slots_root *slots = &store->unit->slots;
	uint64_t n, n_free;
	int err;

	pthread_mutex_lock(&family->lock);
	n_free = slots->n_slots - slots->n_used;
	n = slots->n_slots + (want > SLOTS_STEP ? want : SLOTS_STEP);
	pthread_mutex_unlock(&family->lock);
	if (n_free >= want)
		return 0;
	err = store->tier->ops->store_resize(store->backend_store, n);
	if (err < 0)
		return err;
	pthread_mutex_lock(&family->lock);
	err = slots_grow(&family->arena, slots, n);
	pthread_mutex_unlock(&family->lock);
	return err;
}

uint32_t store_take_slots(struct family *family, struct store *store, uint32_t n, uint64_t *ret_slots)
{
	struct slots_run runs[64];
	uint32_t at = 0, got = 1;

	if (n == 0 || store_grow(family, store, n) < 0)
		return 0;
	n = tier_take(store->tier, n);
	while (at < n && got) {
		uint32_t n_runs;

		pthread_mutex_lock(&family->lock);
		n_runs = slots_alloc(&family->arena, &store->unit->slots, n - at, runs, 64, &got);
		pthread_mutex_unlock(&family->lock);
		for (uint32_t r = 0; r < n_runs; r++)
			for (uint32_t k = 0; k < runs[r].n; k++)
				ret_slots[at++] = runs[r].slot + k;
	}
	if (at < n)
		tier_release(store->tier, n - at);
	return at;
}
