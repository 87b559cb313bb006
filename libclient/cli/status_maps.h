/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* `uhmm status PID --maps`. */
#ifndef UHMM_CLI_STATUS_MAPS_H
#define UHMM_CLI_STATUS_MAPS_H

struct cli_args;
struct cli_command;

/* The exit status. */
int status_maps(const struct cli_command *cmd, const struct cli_args *args);

#endif
