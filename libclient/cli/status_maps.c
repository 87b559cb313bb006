/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm status PID --maps`: of one process, each range of its memory: how much of it is in host
 * RAM, how much on tiers, and why if it stays. One thread. Names are the process's to choose,
 * so they are made printable first.
 */
#include "status_maps.h"

#include <inttypes.h>
#include <stdio.h>

#include <json-c/json.h>

#include "answer.h"
#include "cli.h"
#include "client.h"
#include "move.h"

/* Bytes in each column. */
struct sums {
	uint64_t size, host, tiers, lost;
};

static struct sums map_sums(struct json_object *map)
{
	struct json_object *tiers;
	struct sums sums = {
		.size = cli_json_u64(map, "end") - cli_json_u64(map, "start"),
		.host = cli_json_u64(map, "host_bytes"),
		.lost = cli_json_u64(map, "lost_bytes"),
	};

	if (json_object_object_get_ex(map, "tier_bytes", &tiers) &&
	    json_object_is_type(tiers, json_type_object)) {
		json_object_object_foreach(tiers, name, value)
		{
			(void)name;
			sums.tiers += json_object_get_uint64(value);
		}
	}
	return sums;
}

static void sums_add(struct sums *sums, const struct sums *more)
{
	sums->size += more->size;
	sums->host += more->host;
	sums->tiers += more->tiers;
	sums->lost += more->lost;
}

static void size_print(uint64_t bytes)
{
	char size[CLI_SIZE_TEXT];

	printf(" %7s", bytes ? cli_format_size(bytes, size) : "-");
}

static void sums_print(const struct sums *sums)
{
	size_print(sums->size);
	size_print(sums->host);
	size_print(sums->tiers);
}

static void map_print(struct json_object *map, const struct sums *sums)
{
	const char *reason = cli_json_text(map, "reason");
	char text[128];

	printf("%012" PRIx64 "-%012" PRIx64, cli_json_u64(map, "start"), cli_json_u64(map, "end"));
	sums_print(sums);
	printf("  %-10s", *reason ? cli_printable(reason, text, sizeof(text)) : "-");
	printf(" %s", cli_printable(cli_json_text(map, "name"), text, sizeof(text)));
	if (sums->lost)
		printf(" (LOST: %" PRIu64 " bytes)", sums->lost);
	putchar('\n');
}

static void maps_print(struct json_object *json)
{
	struct json_object *maps = answer_array(json, "maps"), *flag;
	size_t n = maps ? json_object_array_length(maps) : 0;
	struct sums total = { 0 };
	char text[128];

	printf("%-25s %7s %7s %7s  %-10s %s\n", "RANGE", "SIZE", "HOST", "TIERS", "STAYS", "NAME");
	for (size_t i = 0; i < n; i++) {
		struct json_object *map = json_object_array_get_idx(maps, i);
		struct sums sums = map_sums(map);

		map_print(map, &sums);
		sums_add(&total, &sums);
	}
	printf("%-25s", "total");
	sums_print(&total);
	putchar('\n');
	if (json_object_object_get_ex(json, "managed", &flag) && !json_object_get_boolean(flag))
		printf("Nothing of it leaves any more: %s\n",
		       cli_printable(cli_json_text(json, "reason"), text, sizeof(text)));
	if (json_object_object_get_ex(json, "held", &flag) && json_object_get_boolean(flag))
		puts("Held in host RAM until `uhmm evict` or `uhmm restore --release`.");
}

int status_maps(const struct cli_command *cmd, const struct cli_args *args)
{
	struct json_object *json;
	int32_t pid;
	int status = move_operand_pid(cmd, args, 1, &pid);

	if (status)
		return status;
	json = answer_ask(args, UHMM_REQ_MAPS, pid, &status);
	if (!json)
		return status;
	maps_print(json);
	json_object_put(json);
	return cli_finish(CLI_EXIT_OK);
}
