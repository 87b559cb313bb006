/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `uhmm evict` and `uhmm restore` share. */
#ifndef UHMM_CLI_MOVE_H
#define UHMM_CLI_MOVE_H

#include <stdint.h>

#include <uhmm/wire.h>

struct cli_args;
struct cli_command;

/* The process that the first of at most n_max operands names. 0, or the exit status
 * after one line. */
int move_operand_pid(const struct cli_command *cmd, const struct cli_args *args, int n_max,
		     int32_t *ret_pid);
/* Ask for it and print what moved; the exit status. */
int move_pages(const struct cli_args *args, enum uhmm_request request, int32_t pid, uint64_t bytes,
	       uint32_t flags);

#endif
