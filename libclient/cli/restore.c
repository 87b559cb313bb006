/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* `uhmm restore`: brings all pages of one process home, and may keep them there. One thread. */
#include "cli.h"
#include "move.h"

int restore_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct cli_args args;
	uint32_t flags;
	int32_t pid;
	int status;

	if (!cli_parse(cmd, CLI_OPTION_HOLD | CLI_OPTION_JSON, argc, argv, &args, &status))
		return status;
	if (args.hold && args.release)
		return cli_usage_error(cmd, "--hold and --release exclude each other");
	status = move_operand_pid(cmd, &args, 1, &pid);
	if (status)
		return status;
	flags = args.hold ? UHMM_REQ_FLAG_HOLD : args.release ? UHMM_REQ_FLAG_RELEASE : 0;
	return move_pages(&args, UHMM_REQ_RESTORE, pid, 0, flags);
}
