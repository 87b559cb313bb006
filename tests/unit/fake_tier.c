/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_tier.h"

#include <stdio.h>
#include <stdlib.h>

struct fake_tier fake_tier;
struct tier fake_tier_handle = { .name = "fake" };

int tier_store_open(struct tier *tier, const char *name, struct uhmm_store **ret_store,
		    const void **ret_map)
{
	if (fake_tier.fail_open != 0)
		return -fake_tier.fail_open;
	*ret_store = (struct uhmm_store *)tier;
	*ret_map = NULL;
	snprintf(fake_tier.last_name, sizeof(fake_tier.last_name), "%s", name);
	fake_tier.n_open++;
	return 0;
}

void tier_store_close(struct tier *tier, struct uhmm_store *store)
{
	(void)tier;
	(void)store;
	fake_tier.n_open--;
	if (fake_tier.on_close != NULL)
		fake_tier.on_close();
}

uint32_t tier_take(struct tier *tier, uint32_t n)
{
	(void)tier;
	return n;
}

void tier_release(struct tier *tier, uint32_t n)
{
	(void)tier;
	fake_tier.n_released += n;
}

void tier_add_used(struct tier *tier, uint64_t n)
{
	(void)tier;
	fake_tier.n_added += n;
}

int tier_store_reopen(struct tier *tier, const char *name, uint64_t n_slots,
		      struct uhmm_store **ret_store, const void **ret_map)
{
	if (fake_tier.fail_reopen != 0)
		return -fake_tier.fail_reopen;
	fake_tier.last_n_slots = n_slots;
	return tier_store_open(tier, name, ret_store, ret_map);
}

void tier_store_leave(struct tier *tier, struct uhmm_store *store)
{
	(void)tier;
	(void)store;
	fake_tier.n_open--;
	fake_tier.n_left++;
}
