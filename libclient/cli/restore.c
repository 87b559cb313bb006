/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* `uhmm restore`: brings all pages of one process home. One thread. */
#include "cli.h"
#include "move.h"

int restore_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct cli_args args;
	int32_t pid;
	int status;

	if (!cli_parse(cmd, CLI_OPTION_HOLD, argc, argv, &args, &status))
		return status;
	status = move_operand_pid(cmd, &args, 1, &pid);
	if (status)
		return status;
	return move_pages(&args, UHMM_REQ_RESTORE, pid, 0, args.hold ? UHMM_REQ_FLAG_HOLD : 0);
}
