/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's JSON answers, for the subcommands that print them. Called by `status` and
 * `tiers` on the only thread. A member that is missing or of another type prints as
 * nothing, never as a crash.
 */
#include "answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "cli.h"
#include "client.h"

static void tier_print(struct json_object *tier)
{
	char used[CLI_SIZE_TEXT];
	char capacity[CLI_SIZE_TEXT];
	char name[64];
	char backend[64];

	printf("%-12s %-12s %8s %8s %12" PRIu64 " %12" PRIu64 " %8" PRIu64 "\n",
	       cli_printable(cli_json_text(tier, "name"), name, sizeof(name)),
	       cli_printable(cli_json_text(tier, "backend"), backend, sizeof(backend)),
	       cli_format_size(cli_json_u64(tier, "used_bytes"), used),
	       cli_json_u64(tier, "capacity_bytes")
		       ? cli_format_size(cli_json_u64(tier, "capacity_bytes"), capacity)
		       : "-",
	       cli_json_u64(tier, "pages_in"), cli_json_u64(tier, "pages_out"),
	       cli_json_u64(tier, "errors"));
}

void answer_print_tiers(struct json_object *tiers)
{
	size_t n = tiers ? json_object_array_length(tiers) : 0;

	printf("%-12s %-12s %8s %8s %12s %12s %8s\n", "TIER", "BACKEND", "USED", "CAPACITY",
	       "PAGES-IN", "PAGES-OUT", "ERRORS");
	for (size_t i = 0; i < n; i++)
		tier_print(json_object_array_get_idx(tiers, i));
}

struct json_object *answer_array(struct json_object *json, const char *key)
{
	struct json_object *array = json;

	if (json_object_is_type(json, json_type_object) &&
	    !json_object_object_get_ex(json, key, &array))
		return NULL;
	return json_object_is_type(array, json_type_array) ? array : NULL;
}

struct json_object *answer_ask(const struct cli_args *args, enum uhmm_request request, int32_t pid,
			       int *ret_status)
{
	struct uhmm_msg_done done = { 0 };
	char why[sizeof(done.text)];
	struct json_object *json = NULL;
	char *text;

	*ret_status = CLI_EXIT_FAIL;
	if (client_ask(args->socket, request, pid, 0, 0, &text, &done) < 0)
		return NULL;
	if (done.error)
		cli_error("the daemon could not answer: %s",
			  *done.text ? cli_printable(done.text, why, sizeof(why))
				     : strerror(-done.error));
	else
		json = json_tokener_parse(text);
	if (!json && !done.error)
		cli_error("the daemon's answer is not JSON");
	if (json && args->json) {
		puts(text);
		*ret_status = cli_finish(CLI_EXIT_OK);
		json_object_put(json);
		json = NULL;
	}
	free(text);
	return json;
}
