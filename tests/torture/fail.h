/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of the torture: says what differs, and stops everybody. */
#ifndef UHMM_TORTURE_FAIL_H
#define UHMM_TORTURE_FAIL_H

#include "torture.h"

/* The page's bytes differ from the shadow, first in `word`. */
void fail_page(struct actor *a, const struct region *region, uint32_t page, uint32_t word,
	       const char *bytes, const char *how) __attribute__((noreturn));

/* Something else is not as the kernel promises. `a` NULL: no actor's doing. The first failure
 * wins; does not return in an actor, which is stopped here. */
void fail(struct actor *a, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/* The same, about a call on a region: shows how it is mapped. */
void fail_region(struct actor *a, const struct region *region, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));

/* The same, from outside (the runner): returns. */
void fail_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* errno, where the kernel promises success. */
#define MUST(a, cond)                                                                     \
	do {                                                                              \
		if (!(cond))                                                              \
			fail(a, "%s:%d: %s: %m", __FILE__, __LINE__, #cond);              \
	} while (0)

#define MUST_REGION(a, region, cond)                                                      \
	do {                                                                              \
		if (!(cond))                                                              \
			fail_region(a, region, "%s:%d: %s: %m", __FILE__, __LINE__, #cond); \
	} while (0)

/* SIGSEGV and SIGBUS, which nothing here may raise; installed in each world. */
void fail_install_handlers(void);

#endif
