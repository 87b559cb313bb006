/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tiers: loads a backend plug-in, checks its ABI once, fills what it left out, and
 * keeps the tier's capacity. Opened by main before any thread runs.
 */
#include "tier.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "log.h"
#include "util/size.h"
#include "util/spec.h"

#define TIER_PARAMS_MAX 32

static const void *tier_no_map(struct uhmm_store *store)
{
	(void)store;
	return NULL;
}

static int tier_no_fd(struct uhmm_store *store)
{
	(void)store;
	return -EOPNOTSUPP;
}

static int tier_no_reopen(struct uhmm_tier *tier, const char *name, uint64_t n_slots,
			  struct uhmm_store **ret_store)
{
	(void)tier;
	(void)name;
	(void)n_slots;
	(void)ret_store;
	return -EOPNOTSUPP;
}

/* The store ends with the process. */
static void tier_no_leave(struct uhmm_store *store)
{
	(void)store;
}

static void tier_fill_defaults(struct uhmm_backend_ops *ops)
{
	if (!ops->store_map)
		ops->store_map = tier_no_map;
	if (!ops->store_fd)
		ops->store_fd = tier_no_fd;
	if (!ops->store_reopen || !ops->store_leave) {
		ops->store_reopen = tier_no_reopen;
		ops->store_leave = tier_no_leave;
	}
}

static int tier_load(const struct config *config, const char *backend, struct tier *tier)
{
	char path[4096];
	const struct uhmm_backend_ops *ops;
	uhmm_backend_entry_fn entry;

	if (strchr(backend, '/') || snprintf(path, sizeof(path), "%s/%s.so", config->plugin_dir,
					     backend) >= (int)sizeof(path))
		return -EINVAL;
	tier->module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!tier->module) {
		log_err("backend %s: %s", backend, dlerror());
		return -ENOENT;
	}
	*(void **)&entry = dlsym(tier->module, "uhmm_backend_entry");
	ops = entry ? entry() : NULL;
	if (!ops || ops->abi != UHMM_BACKEND_ABI || ops->size > sizeof(tier->filled) ||
	    ops->size < offsetof(struct uhmm_backend_ops, store_map)) {
		log_err("backend %s: %s is not a plug-in of ABI %u", backend, path,
			UHMM_BACKEND_ABI);
		return -ENOEXEC;
	}
	memcpy(&tier->filled, ops, ops->size);
	tier_fill_defaults(&tier->filled);
	tier->ops = &tier->filled;
	return 0;
}

/* The capacity is the daemon's business; the other parameters are the backend's. */
static int tier_take_capacity(struct tier *tier, struct uhmm_backend_param *params)
{
	size_t out = 0;
	uint64_t bytes;

	for (size_t i = 0; params[i].key; i++) {
		if (strcmp(params[i].key, "capacity") != 0) {
			params[out++] = params[i];
			continue;
		}
		if (size_parse(params[i].value, &bytes) < 0) {
			log_err("backend %s: capacity '%s' is not a size", tier->name,
				params[i].value);
			return -EINVAL;
		}
		tier->capacity_pages = bytes / (uint64_t)sysconf(_SC_PAGESIZE);
	}
	params[out].key = NULL;
	return 0;
}

static int tier_open_backend(const struct config *config, struct tier *tier,
			     const struct uhmm_backend_param *params)
{
	struct uhmm_backend_env env = {
		.size = sizeof(env),
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.tier_name = tier->name,
		.pages_dir = config->pages_dir,
		.log = log_write,
	};

	return tier->ops->tier_open(&env, params, &tier->backend);
}

/* A parsed specification; the strings lie in buf. */
struct tier_spec {
	char buf[1024];
	char *backend;
	struct uhmm_backend_param params[TIER_PARAMS_MAX + 1];
};

static int tier_parse_spec(const char *text, struct tier_spec *ret_spec)
{
	int err = spec_parse(text, ret_spec->buf, sizeof(ret_spec->buf), &ret_spec->backend,
			     ret_spec->params, TIER_PARAMS_MAX);

	if (err < 0)
		log_err("backend '%s': not of the form NAME or NAME:key=value,...", text);
	return err;
}

int tier_check_spec(const struct config *config, const char *spec)
{
	struct tier tier = { .name = "" };
	struct tier_spec parsed;
	int err = tier_parse_spec(spec, &parsed);

	if (err < 0)
		return err;
	snprintf(tier.name, sizeof(tier.name), "%s", parsed.backend);
	err = tier_take_capacity(&tier, parsed.params);
	if (err == 0)
		err = tier_load(config, parsed.backend, &tier);
	if (tier.module)
		dlclose(tier.module);
	return err;
}

int tier_open(const struct config *config, const char *spec, struct tier **ret_tier)
{
	struct tier_spec parsed;
	struct tier *tier;
	int err;

	err = tier_parse_spec(spec, &parsed);
	if (err < 0)
		return err;
	tier = calloc(1, sizeof(*tier));
	if (!tier)
		return -ENOMEM;
	tier->capacity_pages = UINT64_MAX;
	snprintf(tier->name, sizeof(tier->name), "%s", parsed.backend);
	err = tier_take_capacity(tier, parsed.params);
	if (err == 0)
		err = tier_load(config, parsed.backend, tier);
	if (err == 0)
		err = tier_open_backend(config, tier, parsed.params);
	if (err < 0) {
		tier_close(tier);
		return err;
	}
	*ret_tier = tier;
	return 0;
}

void tier_close(struct tier *tier)
{
	if (!tier)
		return;
	if (tier->backend)
		tier->ops->tier_close(tier->backend);
	if (tier->module)
		dlclose(tier->module);
	free(tier);
}

static void tier_note_peak(struct tier *tier, uint64_t used)
{
	uint64_t peak = __atomic_load_n(&tier->n_peak, __ATOMIC_RELAXED);

	while (used > peak && !__atomic_compare_exchange_n(&tier->n_peak, &peak, used, true,
							   __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

uint32_t tier_take(struct tier *tier, uint32_t n)
{
	uint64_t used = __atomic_load_n(&tier->n_used, __ATOMIC_RELAXED);
	uint64_t grant;

	do {
		grant = used >= tier->capacity_pages ? 0 : tier->capacity_pages - used;
		if (grant > n)
			grant = n;
	} while (!__atomic_compare_exchange_n(&tier->n_used, &used, used + grant, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	tier_note_peak(tier, used + grant);
	return (uint32_t)grant;
}

void tier_add_used(struct tier *tier, uint64_t n)
{
	tier_note_peak(tier, __atomic_add_fetch(&tier->n_used, n, __ATOMIC_RELAXED));
}

void tier_release(struct tier *tier, uint32_t n)
{
	__atomic_fetch_sub(&tier->n_used, n, __ATOMIC_RELAXED);
}

int tier_store_open(struct tier *tier, const char *name, struct uhmm_store **ret_store,
		    const void **ret_map)
{
	int err = tier->ops->store_open(tier->backend, name, ret_store);

	if (err == 0)
		*ret_map = tier->ops->store_map(*ret_store);
	return err;
}

void tier_store_close(struct tier *tier, struct uhmm_store *store)
{
	tier->ops->store_close(store);
}

int tier_store_reopen(struct tier *tier, const char *name, uint64_t n_slots,
		      struct uhmm_store **ret_store, const void **ret_map)
{
	int err = tier->ops->store_reopen(tier->backend, name, n_slots, ret_store);

	if (err == 0)
		*ret_map = tier->ops->store_map(*ret_store);
	return err;
}

void tier_store_leave(struct tier *tier, struct uhmm_store *store)
{
	tier->ops->store_leave(store);
}
