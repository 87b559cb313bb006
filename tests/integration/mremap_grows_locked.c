/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locked memory that grows is all here, as the kernel promises. */
#include "grow_locked.h"

#define ROUNDS 24
#define BULK (12 * MIB)

int main(void)
{
	char *bulk = map_private(BULK);

	pattern_fill(bulk, BULK, 1);
	send_away(bulk, BULK);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		char *grown = grow_locked(2 + i, 30);

		CHECK(present_pages(grown, GROW_NEW) == GROW_NEW / page_bytes());
		CHECK(munmap(grown, GROW_NEW) == 0);
	}
	pattern_check(bulk, BULK, 1);
	return 0;
}
