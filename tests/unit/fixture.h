/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What unit tests share: a place for files, a log that fails the test, and a main.
 *
 * Check forks for each test: what a test makes is gone with its process, except files,
 * which live in a directory that fixture_main makes and removes.
 */
#ifndef TEST_FIXTURE_H
#define TEST_FIXTURE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

/* A directory on a tmpfs, as the daemon has it. */
extern char fixture_dir[];

/* A path in it; the name of the test's own process is part of it. Valid until the next
 * call. */
const char *fixture_path(const char *name);

/* Expect a line at LOG_ERR that contains `part`; any other one fails the test. */
void fixture_expect_error(const char *part);
/* How many such lines came. */
int fixture_errors_seen(void);

/* An arena of at most n_units, the header included. */
void fixture_arena(struct arena *arena, uint64_t n_units);

/* ck_assert_msg talks to its runner each time; this only when it fails. For loops. */
#define fixture_must(cond, ...)                           \
	do {                                              \
		if (!(cond))                              \
			fixture_fail(#cond, __VA_ARGS__); \
	} while (0)
void fixture_fail(const char *cond, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* A random seed, from UHMM_SEED or the clock; printed. */
uint64_t fixture_seed(void);
/* xorshift64*: the same everywhere for the same seed. */
uint64_t fixture_random(uint64_t *state);

/* Run the suite; the exit status for main. */
int fixture_main(Suite *suite);

#endif
