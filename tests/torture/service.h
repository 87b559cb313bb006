/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon under torture: a private one, or one that listens already. Runner only. */
#ifndef UHMM_TORTURE_SERVICE_H
#define UHMM_TORTURE_SERVICE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "private.h"

struct service_options {
	bool plain;	     /* none at all: what the kernel alone does */
	const char *socket;  /* NULL: start a private daemon */
	const char *backend; /* NULL: the daemon's default */
	const char *daemon;  /* NULL: uhmmd beside the running binary */
	const char *preload; /* NULL: that of the running binary's build */
	uint64_t host_target_bytes;
};

struct service {
	struct private_daemon daemon; /* pid 0: not ours */
	int fd;			      /* the runner's connection */
	char socket[PATH_MAX];
	char preload[PATH_MAX];
	char group[33];
};

struct service_numbers {
	uint64_t evictions, faults, lost_pages;
};

/* Prints what went wrong; a negative errno. */
int service_start(const struct service_options *options, struct service *ret_service);
/* Pass on what the daemon printed. False: our own daemon has ended. */
bool service_is_alive(struct service *service);
int service_ask(struct service *service, struct service_numbers *ret_numbers);
void service_stop(struct service *service);

#endif
