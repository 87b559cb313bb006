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

/* Have the daemon end this process's agent, and wait until its thread is gone. */
int journey_end_agent(struct enrol *self);

#endif
