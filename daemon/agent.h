/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent of a space: how another one takes its place, and how threads that are not the
 * space's worker see it and tell it to end. See agent.c for the lock.
 */
#ifndef UHMMD_AGENT_H
#define UHMMD_AGENT_H

#include "space.h"

/* One agent, as it was at one moment. */
struct agent_view {
	uint32_t gen; /* which of the space's agents: 1 is the first */
	pid_t pid, tid;
	uid_t uid;
};

/* Any thread; false: there is none. */
bool agent_view(struct space *space, struct agent_view *ret_view);

/* Where the ring that we share with it lies in the program; 0: nowhere. Any thread. */
uint64_t agent_ring_addr(struct space *space);

/* Agent `gen` is to end, or has: nothing is asked of it any more. `tell`: send it QUIT; without,
 * a word more could kill the program, or it has gone. False: that agent is not there any more,
 * and nothing was done. Any thread, never blocks. */
bool agent_dismiss(struct space *space, uint32_t gen, enum uhmm_reason reason, bool tell);
/* The same, and it is told once nothing is away any more. False also: not now. With the registry's
 * lock held. */
bool agent_retire(struct space *space, uint32_t gen, enum uhmm_reason reason);
/* It has ended, or will, and with it the userfaultfds of children that it kept: another agent of the
 * family keeps them, or what of these is away comes home. Takes the registry's lock. */
void agent_leave_wards(struct space *warden);
/* The same for one that its parent's agent could not take, before its worker starts. */
void agent_leave_ward(struct space *child);
/* Are there still some of them? Takes the registry's lock. */
bool agent_has_wards(const struct space *warden);
/* On the worker: nothing is away. */
void agent_end_retired(struct space *space, uint32_t gen);

/* ---- on the space's worker --------------------------------------------------------------- */

/* A new agent for a space that has none: -EBUSY, it has one; -EAGAIN, try again when events are
 * read and the agent before has let go. Takes over what it can use of `attach`. */
int agent_attach(struct space *space, struct attach *attach);

/* What an agent brings becomes the space's; on the control thread for a space's first, which
 * nobody else knows yet. */
void agent_swap(struct space *space, struct attach *attach);

/* Have the agent keep a forked child's userfaultfd for a successor, until it is told to forget
 * it. False: there is none, or it cannot take it. Any thread. */
bool agent_keep_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES], int uffd);
void agent_forget_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES]);
/* Nobody else need keep the userfaultfd of this space, a forked child's, any more. */
void agent_free_warden(struct space *space);
/* Send a new agent, after READY, what it looks at pages through before it moves them. On the
 * control thread for one that enrols there. */
int agent_send_memory(const struct space *space, int sock);
/* Send the agent a write-only descriptor of the space's slot file. */
int agent_send_slots(struct space *space);

/* Is a seccomp filter in force in the program? */
bool agent_is_sandboxed(const struct space *space);

#endif
