/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm status`: the managed processes as a table, or as the daemon told them. One
 * thread. Names of processes are theirs to choose, so they are made printable first.
 */
#include <inttypes.h>
#include <stdio.h>

#include <json-c/json.h>

#include "answer.h"
#include "cli.h"
#include "client.h"
#include "status_maps.h"

/* "ram 448.0M, cuda 1.0G"; "-" when there is nothing. */
static void size_map_print(struct json_object *object, const char *key)
{
	struct json_object *map;
	const char *separator = "";
	char size[CLI_SIZE_TEXT];
	char name[64];

	if (json_object_object_get_ex(object, key, &map) &&
	    json_object_is_type(map, json_type_object)) {
		json_object_object_foreach(map, entry, value)
		{
			uint64_t bytes = json_object_get_uint64(value);

			if (!bytes)
				continue;
			printf("%s%s %s", separator, cli_printable(entry, name, sizeof(name)),
			       cli_format_size(bytes, size));
			separator = ", ";
		}
	}
	if (!*separator)
		putchar('-');
}

static void space_print(struct json_object *space)
{
	struct json_object *managed, *held;
	char size[CLI_SIZE_TEXT];
	char text[128];
	uint64_t lost = cli_json_u64(space, "lost_pages");

	printf("%8" PRIu64 " %6" PRIu64 " %8s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 "  ",
	       cli_json_u64(space, "pid"), cli_json_u64(space, "uid"),
	       cli_format_size(cli_json_u64(space, "host_bytes"), size),
	       cli_json_u64(space, "pages_evicted"), cli_json_u64(space, "pages_returned"),
	       cli_json_u64(space, "faults"));
	puts(cli_printable(cli_json_text(space, "command"), text, sizeof(text)));
	printf("         on tiers: ");
	size_map_print(space, "tier_bytes");
	printf("; stays in host RAM: ");
	size_map_print(space, "why_not");
	putchar('\n');
	if (json_object_object_get_ex(space, "managed", &managed) &&
	    !json_object_get_boolean(managed))
		printf("         not managed: %s\n",
		       cli_printable(cli_json_text(space, "reason"), text, sizeof(text)));
	if (json_object_object_get_ex(space, "held", &held) && json_object_get_boolean(held))
		puts("         held in host RAM until `uhmm evict` or `uhmm restore --release`");
	if (lost)
		printf("         LOST: %" PRIu64 " pages; touching one raises SIGBUS\n", lost);
}

static void spaces_print(struct json_object *spaces)
{
	size_t n = spaces ? json_object_array_length(spaces) : 0;

	if (!n) {
		puts("No process is managed.");
		return;
	}
	printf("%8s %6s %8s %10s %10s %10s  %s\n", "PID", "UID", "HOST", "PAGES-OUT", "HOME",
	       "FAULTS", "COMMAND");
	for (size_t i = 0; i < n; i++)
		space_print(json_object_array_get_idx(spaces, i));
}

int status_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct json_object *json;
	struct cli_args args;
	int status;

	if (!cli_parse(cmd, CLI_OPTION_JSON | CLI_OPTION_MAPS, argc, argv, &args, &status))
		return status;
	if (args.maps)
		return status_maps(cmd, &args);
	if (args.n_operands)
		return cli_usage_error(cmd, "takes no operand, unless with --maps");
	json = answer_ask(&args, UHMM_REQ_STATUS, 0, &status);
	if (!json)
		return status;
	spaces_print(answer_array(json, "spaces"));
	putchar('\n');
	answer_print_tiers(answer_array(json, "tiers"));
	json_object_put(json);
	return cli_finish(CLI_EXIT_OK);
}
