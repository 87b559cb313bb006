/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of this process's enrolment, and the journeys that change it.
 */
#ifndef UHMM_LIBCLIENT_JOURNEY_H
#define UHMM_LIBCLIENT_JOURNEY_H

#include <stdbool.h>
#include <stdint.h>
#include <uhmm/wire.h>

#include "enrol.h"
#include "link.h"
#include "sandbox.h"
#include "spawn.h"

/* The descriptors that are open while a journey lasts. */
enum enrol_fd {
	FD_SOCK,
	FD_DEVICE, /* role program: /dev/userfaultfd */
	FD_UFFD,
	FD_RING,
	FD_EVENT,
	FD_COUNT,
};

/* An agent that is told to end gets this long: more than it needs unless it is stopped. */
#define JOURNEY_END_MS 1000

/* What an agent held, in the program's own table, from its end to the start of the next one. */
struct kept {
	int uffd; /* -1: nothing */
	uint32_t n_children;
	struct agent_child children[UHMM_CHILDREN_MAX];
};

/* Owned by enrol.c, guarded by its lock; a forked child finds a copy. */
struct enrol {
	uint32_t busy;	/* the lock */
	bool enrolled;	/* the daemon said READY to this process */
	bool sandboxed; /* make no system call */
	bool has_atfork;
	struct sandbox sandbox; /* what we were started in */
	int32_t pid; /* whose state this is: a child of vfork or raw clone finds another's */
	char path[LINK_PATH_MAX];
	uint8_t token[UHMM_TOKEN_BYTES]; /* what the next role child shows */
	struct uhmm_msg_welcome terms;	 /* of the last journey that arrived */
	uint32_t agent_tid;		 /* of the last agent */
	struct kept kept;
	int fds[FD_COUNT];		 /* -1, or to be closed by a child forked just now */
	struct uhmm_beacon *beacon;	 /* NULL until it says HERE */
	struct spawn_area ring, staging, private, beacon_area;
};

void journey_close_fds(struct enrol *self);

/* HELLO; token is shown by role child, may be NULL for the others. */
int journey_send_hello(int sock, enum uhmm_role role, const uint8_t *token);

/* The whole journey of role program or child. 0, or a negative errno with *ret_why filled. */
int journey_enrol(struct enrol *self, enum uhmm_role role, struct enrol_why *ret_why);

/* Fill *ret_why (err is returned). */
int journey_why(struct enrol_why *ret_why, uint32_t reason, const char *text, int err);
int journey_why_refused(struct enrol_why *ret_why, const struct uhmm_msg_refuse *refuse);

/* No daemon gives an agent: start one with what was kept, which holds it and looks for the next
 * daemon. What was kept stays open here as well. */
int journey_hold(struct enrol *self);

/* Have the daemon send QUIT to this process's agent; and, if `home`, bring everything home before
 * it answers. */
int journey_dismiss_agent(struct enrol *self, bool home);

#endif
