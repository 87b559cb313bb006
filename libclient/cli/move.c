/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What `uhmm evict` and `uhmm restore` share: one of the two journeys, asked for by hand.
 * Called by them on the only thread; the daemon answers when it is done.
 */
#include "move.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "client.h"

int move_pages(const struct cli_args *args, enum uhmm_request request, int32_t pid, uint64_t bytes,
	       uint32_t flags)
{
	struct uhmm_msg_done done = { 0 };
	char size[CLI_SIZE_TEXT];
	char text[sizeof(done.text)];
	uint64_t moved_bytes;

	if (client_ask(args->socket, request, pid, bytes, flags, NULL, &done) < 0)
		return CLI_EXIT_FAIL;
	if (done.error) {
		cli_error("%s %" PRId32 ": %s%s%s", request == UHMM_REQ_EVICT ? "evict" : "restore",
			  pid, strerror(-done.error), *done.text ? ": " : "",
			  cli_printable(done.text, text, sizeof(text)));
		return CLI_EXIT_FAIL;
	}
	moved_bytes = done.pages * (uint64_t)sysconf(_SC_PAGESIZE);
	if (args->json)
		printf("{\"version\":%d,\"pid\":%" PRId32 ",\"pages\":%" PRIu64
		       ",\"bytes\":%" PRIu64 "}\n",
		       CLI_JSON_VERSION, pid, done.pages, moved_bytes);
	else
		printf("%" PRIu64 " pages (%s) moved %s\n", done.pages,
		       cli_format_size(moved_bytes, size),
		       request == UHMM_REQ_EVICT ? "out" : "home");
	return cli_finish(CLI_EXIT_OK);
}

int move_operand_pid(const struct cli_command *cmd, const struct cli_args *args, int n_max,
		     int32_t *ret_pid)
{
	if (args->n_operands < 1)
		return cli_usage_error(cmd, "which process? A PID is missing");
	if (args->n_operands > n_max)
		return cli_usage_error(cmd, "'%s' is one operand too many", args->operands[n_max]);
	if (cli_parse_pid(args->operands[0], ret_pid) < 0)
		return cli_usage_error(cmd, "'%s' is no process id", args->operands[0]);
	return 0;
}
