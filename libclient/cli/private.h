/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon that `uhmm run` starts for one command. */
#ifndef UHMM_CLI_PRIVATE_H
#define UHMM_CLI_PRIVATE_H

#include <stdbool.h>
#include <sys/types.h>

struct private_options {
	const char *backend; /* NULL: the daemon's default */
	const char *group;   /* 32 hex digits */
	const char *daemon;  /* NULL: the one that belongs to the running binary */
	bool verbose;
};

struct private_daemon {
	pid_t pid; /* 0: there is none */
	int pidfd;
	int lifeline_fd; /* its EOF tells the daemon that we are gone */
	int log_fd;      /* what the daemon writes to stderr */
	char dir[64];
	char socket[96];
};

/* Start it and wait until it listens. Prints what went wrong, and leaves nothing then. */
int private_start(const struct private_options *options, struct private_daemon *ret_daemon);
/* Copy to stderr what the daemon has written so far. Never waits for it. False: no more
 * will come. */
bool private_relay_log(struct private_daemon *daemon);
/*
 * The command has ended: let go. The daemon lives on while a process needs it, so this
 * waits for a moment only; meanwhile its last words reach stderr.
 */
void private_release(struct private_daemon *daemon);

#endif
