/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A tier that opens nothing, and counts. */
#ifndef TEST_FAKE_TIER_H
#define TEST_FAKE_TIER_H

#include "tier.h"

struct fake_tier {
	int n_open;		 /* stores */
	int fail_open;		 /* errno to fail with; 0: none */
	int fail_reopen;	 /* the same */
	unsigned int n_left;	 /* stores whose bytes stay */
	uint64_t n_added;	 /* pages that were there before */
	uint64_t last_n_slots;	 /* of the store that was opened again */
	unsigned int n_released; /* pages given back to the capacity */
	char last_name[64];
	void (*on_close)(void);	 /* called by each close; NULL: nothing */
};

extern struct fake_tier fake_tier;
/* What is passed around; only its name is ever read. */
extern struct tier fake_tier_handle;

#endif
