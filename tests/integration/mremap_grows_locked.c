/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locked memory that grows by an mremap that has to move it: the kernel populates the new
 * ground before it says that anything moved, so whoever serves that fault cannot know yet.
 */
#include "prog.h"

#define ROUNDS 24
#define OLD (16 * page_bytes())
#define NEW (600 * page_bytes())
#define BULK (12 * MIB)

int main(void)
{
	char *bulk = map_private(BULK);

	pattern_fill(bulk, BULK, 1);
	send_away(bulk, BULK);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		/* The page behind it is taken: it cannot grow in place. */
		char *mem = map_private(OLD + page_bytes()), *grown;

		pattern_fill(mem, OLD, 2 + i);
		CHECK(mprotect(mem + OLD, page_bytes(), PROT_NONE) == 0);
		send_away(mem, OLD);
		if (mlock(mem, OLD))
			prog_skip("mlock refused: raise RLIMIT_MEMLOCK or run as root");
		alarm(30);
		grown = mremap(mem, OLD, NEW, MREMAP_MAYMOVE);
		alarm(0);
		CHECK(grown != MAP_FAILED && grown != mem);
		pattern_check(grown, OLD, 2 + i);
		CHECK(is_zero(grown + OLD, NEW - OLD));
		CHECK(present_pages(grown, NEW) == NEW / page_bytes());
		CHECK(munmap(grown, NEW) == 0);
	}
	pattern_check(bulk, BULK, 1);
	return 0;
}
