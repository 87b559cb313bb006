/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process that outlives the daemon by an instant, for what must not be lost in between: see
 * guard.c.
 */
#ifndef UHMMD_GUARD_H
#define UHMMD_GUARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct guard_note;

/* Start it, while there is one thread. 0, or a negative errno: then there is none, and the rest
 * does nothing. */
int guard_start(void);

/* Whose table of descriptors is the daemon's own; 0: nobody's. */
pid_t guard_pid(void);

/*
 * FORK events may be read now, as one of at most n messages at this place of a log's file. If the
 * daemon dies before guard_end, whose child they bring goes to the agent at `sock`, under the token
 * in the message, or one that is put there. NULL: nobody sees to that. Any thread.
 */
struct guard_note *guard_begin(int sock, int log_fd, uint64_t log_off, uint32_t n);
/* All of them have been passed on. NULL is fine. */
void guard_end(struct guard_note *note);

/* For a daemon that starts: may what another one has still, a lock or a socket that answers, be a
 * guard's that ends in a moment? Sleeps for a part of it, if so; *waited_ms begins at 0. */
bool guard_may_be_ending(unsigned int *waited_ms);

#endif
