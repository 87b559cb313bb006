/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon under torture: a private one, or one that listens already. Runner only. */
#ifndef UHMM_TORTURE_SERVICE_H
#define UHMM_TORTURE_SERVICE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <uhmm/wire.h>

#include "private.h"

struct service_options {
	bool plain;	     /* none at all: what the kernel alone does */
	const char *socket;  /* NULL: start a private daemon */
	const char *backend; /* NULL: the daemon's default */
	const char *daemon;  /* NULL: uhmmd beside the running binary */
	const char *preload; /* NULL: that of the running binary's build */
	uint64_t host_target_bytes;
};

struct service_numbers {
	uint64_t evictions, faults, lost_pages;
};

struct service {
	struct private_daemon daemon; /* pid 0: not ours */
	int fd;			      /* the runner's connection */
	char socket[PATH_MAX];
	char preload[PATH_MAX];
	char group[33];
	uint8_t token[UHMM_TOKEN_BYTES]; /* the group's */
	const struct service_options *options;
	struct service_numbers before; /* of the daemons that were killed */
	struct service_numbers last;   /* this one's last answer */
};

/* Prints what went wrong; a negative errno. */
int service_start(const struct service_options *options, struct service *ret_service);
/* Pass on what the daemon printed. False: our own daemon has ended. */
bool service_is_alive(struct service *service);
/* Summed over all daemons that there were; what one did between its last answer and its end is not
 * in it. */
int service_ask(struct service *service, struct service_numbers *ret_numbers);
/* End our own daemon with SIGKILL and start another on what it leaves; service_take_ready once
 * that is answering. */
int service_kill(struct service *service);
/* The same after it has ended by itself, and was reaped. */
int service_start_again(struct service *service);
bool service_is_answering(const struct service *service);
int service_take_ready(struct service *service);
/* Does a file of a process that has ended lie there still? The first one's name, or NULL. */
const char *service_find_left(const struct service *service);
void service_stop(struct service *service);

#endif
