/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon that `uhmm run` starts for one command. */
#ifndef UHMM_CLI_PRIVATE_H
#define UHMM_CLI_PRIVATE_H

#include <limits.h>
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
	int ready_fd;    /* while it starts: what it will say of that; else -1 */
	char path[PATH_MAX]; /* of its program */
	char dir[64];
	char socket[96];
};

/* Start it and wait until it listens. Prints what went wrong, and leaves nothing then. */
int private_start(const struct private_options *options, struct private_daemon *ret_daemon);
/*
 * It ended although nobody had released it. private_take_end waits for it, passes on its last
 * words and says how it ended, for people. private_start_again starts it on the same directory,
 * without waiting: when ready_fd can be read, private_take_ready says whether it listens; if it
 * does not, it was told to end, and *ret_line is what it said. Both return 0 or a negative errno.
 */
void private_take_end(struct private_daemon *daemon, char *ret_how, size_t size);
int private_start_again(const struct private_options *options, struct private_daemon *daemon);
int private_take_ready(struct private_daemon *daemon, char *ret_line, size_t size);
/* Copy to stderr what the daemon has written so far. Never waits for it. False: no more
 * will come. */
bool private_relay_log(struct private_daemon *daemon);
/*
 * The command has ended: let go. The daemon lives on while a process needs it, so this
 * waits for a moment only; meanwhile its last words reach stderr.
 */
void private_release(struct private_daemon *daemon);

#endif
