/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locked memory that grows by an mremap that has to move it: the kernel populates the new
 * ground before it says that anything moved, so whoever serves that fault cannot know yet.
 */
#ifndef UHMM_TEST_GROW_LOCKED_H
#define UHMM_TEST_GROW_LOCKED_H

#include "prog.h"

#define GROW_OLD (16 * page_bytes())
#define GROW_NEW (600 * page_bytes())

/* Returns the memory as it has grown, of GROW_NEW bytes. SIGALRM, if that takes longer. */
static inline char *grow_locked(uint64_t seed, unsigned int patience_sec)
{
	/* The page behind it is taken: it cannot grow in place. */
	char *mem = map_private(GROW_OLD + page_bytes()), *grown;

	pattern_fill(mem, GROW_OLD, seed);
	CHECK(mprotect(mem + GROW_OLD, page_bytes(), PROT_NONE) == 0);
	send_away(mem, GROW_OLD);
	if (mlock(mem, GROW_OLD))
		prog_skip("mlock refused: raise RLIMIT_MEMLOCK or run as root");
	alarm(patience_sec);
	grown = mremap(mem, GROW_OLD, GROW_NEW, MREMAP_MAYMOVE);
	alarm(0);
	CHECK(grown != MAP_FAILED && grown != mem);
	pattern_check(grown, GROW_OLD, seed);
	CHECK(is_zero(grown + GROW_OLD, GROW_NEW - GROW_OLD));
	return grown;
}

#endif
