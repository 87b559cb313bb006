/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What managed processes say. Where the daemon is killed, a child that was forked in that instant
 * may say that its memory is incomplete, and end; nobody else may.
 */
#ifndef UHMM_TORTURE_WORDS_H
#define UHMM_TORTURE_WORDS_H

#include <stdbool.h>
#include <stdint.h>

/* On the runner, before the first world: from now on its worlds speak into a file of ours. 0, or a
 * negative errno. */
int words_open(void);
/* In a process that is about to execute a world. */
void words_redirect(void);
/* On the runner, when all worlds of a round have ended: pass on what they said, and forget it.
 * Returns how many children have ended incomplete in that round. */
uint32_t words_pass_on(void);

/* In a world: is that the end of a child that may end so? Ask once of each. */
bool words_allow_end(int status);

#endif
