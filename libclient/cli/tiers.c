/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* `uhmm tiers`: the tiers as a table, or as the daemon told them. One thread. */
#include <json-c/json.h>

#include "answer.h"
#include "cli.h"
#include "client.h"

int tiers_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct json_object *json;
	struct cli_args args;
	int status;

	if (!cli_parse(cmd, CLI_OPTION_JSON, argc, argv, &args, &status))
		return status;
	if (args.n_operands)
		return cli_usage_error(cmd, "takes no operand");
	json = answer_ask(&args, UHMM_REQ_TIERS, 0, &status);
	if (!json)
		return status;
	answer_print_tiers(answer_array(json, "tiers"));
	json_object_put(json);
	return cli_finish(CLI_EXIT_OK);
}
