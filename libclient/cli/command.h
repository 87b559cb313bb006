/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command of `uhmm run`: started as env(1) would, its end told as a status. */
#ifndef UHMM_CLI_COMMAND_H
#define UHMM_CLI_COMMAND_H

#include <sys/types.h>

struct command_env {
	const char *preload; /* NULL: unmanaged, the environment stays as it is */
	const char *socket;
	const char *group; /* 32 hex digits */
};

/*
 * Start argv. From then on SIGINT and SIGQUIT are the command's alone.
 * *ret_status is set when it is not 0: the exit status of a command that could not be
 * started, with a message printed.
 */
int command_start(char **argv, const struct command_env *env, pid_t *ret_pid, int *ret_status);
/* Wait for its end; the exit status, or 128 + the signal that ended it. */
int command_wait(pid_t pid);

#endif
