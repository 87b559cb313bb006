/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process that is run one instruction at a time, so that it can be looked at after each. */
#ifndef TEST_STEP_H
#define TEST_STEP_H

#include <stdbool.h>

/* Can this process trace its children? */
bool step_is_possible(void);
/* A step is two switches between the processes; on one CPU they cost a fifth. */
void step_stay_on_this_cpu(void);

/* Run `change` in a child, and call look(n) before its first instruction and after each. Returns
 * how many there were; fails the test if the child does not end well. */
unsigned long step_through(const char *name, void (*change)(void), void (*look)(unsigned long n));
/* Run it in a child at once. */
void step_over(const char *name, void (*change)(void));

#endif
