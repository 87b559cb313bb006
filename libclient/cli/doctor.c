/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm doctor`: can `uhmm run` work here, for this user? Owns the list of results; the
 * checks add to it. One thread. It only looks: no check may change anything, and a check
 * that cannot look says so instead of guessing.
 */
#include "doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli.h"
#include "client.h"

static const char *const level_words[] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_WARN] = "warn",
	[DOCTOR_FAIL] = "FAIL",
};

void doctor_note(struct doctor *doctor, enum doctor_level level, const char *name,
		 const char *remedy, const char *fmt, ...)
{
	struct json_object *check = json_object_new_object();
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_object_object_add(check, "check", json_object_new_string(name));
	json_object_object_add(check, "result", json_object_new_string(level_words[level]));
	json_object_object_add(check, "text", json_object_new_string(text));
	if (remedy && level != DOCTOR_OK)
		json_object_object_add(check, "remedy", json_object_new_string(remedy));
	json_object_array_add(doctor->checks, check);
	if (level == DOCTOR_FAIL)
		doctor->failed = true;
}

bool doctor_read_number(const char *path, uint64_t *ret_number)
{
	unsigned long long number;
	FILE *file = fopen(path, "re");
	int n;

	if (!file)
		return false;
	n = fscanf(file, "%llu", &number);
	(void)fclose(file);
	if (n != 1)
		return false;
	*ret_number = number;
	return true;
}

bool doctor_read_status(const char *key, int base, uint64_t *ret_number)
{
	FILE *file = fopen("/proc/self/status", "re");
	size_t key_length = strlen(key);
	char line[256];
	bool found = false;

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, key_length) && line[key_length] == ':') {
			*ret_number = strtoull(line + key_length + 1, NULL, base);
			found = true;
		}
	(void)fclose(file);
	return found;
}

static void doctor_print_text(const struct doctor *doctor)
{
	size_t n = json_object_array_length(doctor->checks);

	for (size_t i = 0; i < n; i++) {
		struct json_object *check = json_object_array_get_idx(doctor->checks, i);
		const char *remedy = cli_json_text(check, "remedy");

		printf("%-4s  %-14s %s%s%s\n", cli_json_text(check, "result"),
		       cli_json_text(check, "check"), cli_json_text(check, "text"),
		       *remedy ? ": " : "", remedy);
	}
	puts(doctor->failed ? "`uhmm run` cannot work here for this user."
			    : "`uhmm run` can work here.");
}

static void doctor_print_json(const struct doctor *doctor)
{
	struct json_object *json = json_object_new_object();

	json_object_object_add(json, "version", json_object_new_int(CLI_JSON_VERSION));
	json_object_object_add(json, "ok", json_object_new_boolean(!doctor->failed));
	json_object_object_add(json, "checks", json_object_get(doctor->checks));
	puts(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN |
							  JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(json);
}

int doctor_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct uhmm_msg_done done = { .error = 0 };
	struct doctor doctor = { .daemon_refusal = done.text };
	struct cli_args args;
	int status;

	if (!cli_parse(cmd, CLI_OPTION_JSON, argc, argv, &args, &status))
		return status;
	if (args.n_operands)
		return cli_usage_error(cmd, "takes no operand");
	doctor.socket = args.socket;
	doctor.root = geteuid() == 0;
	doctor.daemon_error = client_answers(args.socket, &done);
	doctor.checks = json_object_new_array();
	doctor_check_kernel(&doctor);
	doctor_check_system(&doctor);
	doctor_check_parts(&doctor);
	doctor_check_units(&doctor);
	if (args.json)
		doctor_print_json(&doctor);
	else
		doctor_print_text(&doctor);
	json_object_put(doctor.checks);
	return cli_finish(doctor.failed ? CLI_EXIT_FAIL : CLI_EXIT_OK);
}
