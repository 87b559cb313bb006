/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a successor makes of an arena, at any instant of a change: it accepts it, its books are
 * exact, and every page record of every space is either the one before the change or the one
 * after it.
 */
#ifndef TEST_CRASH_RECOVER_H
#define TEST_CRASH_RECOVER_H

#include "family.h"

/* Make the change in another process to see what it comes to, and undo it. Pages of spaces are
 * compared below CRASH_PAGES, spaces whose ids are below CRASH_SPACES. */
#define CRASH_PAGES (8u * 512u)
#define CRASH_SPACES 8u
void crash_expect(struct family *family, const char *name, void (*change)(void));
/* Recover a copy of the arena as it is now, unless it was the same the last time. */
void crash_look(void);
/* Undo the change again; how many copies were recovered. */
unsigned long crash_done(void);

#endif
