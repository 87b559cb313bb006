/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* `uhmm evict`: moves pages of one process out, now. One thread. */
#include <string.h>

#include "util/size.h"

#include "cli.h"
#include "move.h"

int evict_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct cli_args args;
	uint64_t bytes = 0; /* all */
	int32_t pid;
	int status;

	if (!cli_parse(cmd, CLI_OPTION_JSON, argc, argv, &args, &status))
		return status;
	status = move_operand_pid(cmd, &args, 2, &pid);
	if (status)
		return status;
	if (args.n_operands == 2 && strcmp(args.operands[1], "all") != 0 &&
	    (size_parse(args.operands[1], &bytes) < 0 || !bytes))
		return cli_usage_error(cmd, "'%s' is neither a size nor 'all'", args.operands[1]);
	return move_pages(&args, UHMM_REQ_EVICT, pid, bytes, 0);
}
