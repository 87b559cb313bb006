/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tier: a backend plug-in, opened, with a capacity that the daemon keeps to.
 *
 * Threads: tier_open and tier_close on the main thread. Everything else from any
 * thread; the counters are atomic.
 */
#ifndef UHMMD_TIER_H
#define UHMMD_TIER_H

#include <stdbool.h>
#include <stdint.h>

#include "uhmm/backend.h"

struct tier {
	char name[64];
	const struct uhmm_backend_ops *ops; /* with every optional member filled */
	struct uhmm_backend_ops filled;
	struct uhmm_tier *backend;
	void *module; /* dlopen handle */
	uint64_t capacity_pages; /* UINT64_MAX: no limit of its own */
	uint64_t n_used;	 /* pages that records hold; atomic */
	uint64_t n_peak;	 /* highest n_used; atomic */
	uint64_t n_in, n_out;	 /* pages stored and fetched; atomic */
	uint64_t n_errors;	 /* atomic */
};

struct config;

/* Open `spec` ("NAME" or "NAME:key=value,..."); logs what is wrong with it. */
int tier_open(const struct config *config, const char *spec, struct tier **ret_tier);
void tier_close(struct tier *tier);
/* Is it of the right form, and is the plug-in there? Logs what is wrong; opens no tier. */
int tier_check_spec(const struct config *config, const char *spec);

/* Take room for up to n pages; returns how many were granted. */
uint32_t tier_take(struct tier *tier, uint32_t n);
void tier_release(struct tier *tier, uint32_t n);
/* Count n pages that are there already, also beyond the capacity. */
void tier_add_used(struct tier *tier, uint64_t n);

int tier_store_open(struct tier *tier, const char *name, struct uhmm_store **ret_store,
		    const void **ret_map);
void tier_store_close(struct tier *tier, struct uhmm_store *store);
/* The same for a store of an earlier daemon, see store_reopen; and without an end to its bytes. */
int tier_store_reopen(struct tier *tier, const char *name, uint64_t n_slots,
		      struct uhmm_store **ret_store, const void **ret_map);
void tier_store_leave(struct tier *tier, struct uhmm_store *store);

#endif
