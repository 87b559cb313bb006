/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The words that all subcommands share: options, usage errors, sizes, JSON members.
 * Called by every subcommand on the only thread. Nothing here talks to the daemon, and
 * nothing that came from outside reaches the terminal but through cli_printable().
 */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <uhmm/wire.h>

void cli_error(const char *fmt, ...)
{
	va_list ap;

	fputs("uhmm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int cli_usage_error(const struct cli_command *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "uhmm %s: ", cmd->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (see `uhmm help %s`)\n", cmd->name);
	return CLI_EXIT_USAGE;
}

void cli_print_help(const struct cli_command *cmd)
{
	printf("Usage: uhmm %s%s%s\n\n%s.\n", cmd->name, *cmd->usage ? " " : "", cmd->usage,
	       cmd->summary);
	if (cmd->options)
		printf("\n%s", cmd->options);
}

int cli_finish(int status)
{
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	cli_error("cannot write the output: %m");
	return CLI_EXIT_FAIL;
}

const char *cli_socket_path(const char *option)
{
	const char *path = option ? option : getenv("UHMM_SOCKET");

	return path && *path ? path : UHMM_SOCKET_DEFAULT;
}

bool cli_parse(const struct cli_command *cmd, unsigned int options, int argc, char **argv,
	       struct cli_args *ret_args, int *ret_status)
{
	static const struct option longs[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ "json", no_argument, NULL, 'j' },
		{ "hold", no_argument, NULL, 'H' },
		{ "release", no_argument, NULL, 'R' },
		{ "maps", no_argument, NULL, 'M' },
		{ NULL, 0, NULL, 0 },
	};
	struct cli_args args = { 0 };
	const char *path = NULL;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (c == 's' && *optarg) {
			path = optarg;
		} else if (c == 'j' && (options & CLI_OPTION_JSON)) {
			args.json = true;
		} else if (c == 'H' && (options & CLI_OPTION_HOLD)) {
			args.hold = true;
		} else if (c == 'R' && (options & CLI_OPTION_HOLD)) {
			args.release = true;
		} else if (c == 'M' && (options & CLI_OPTION_MAPS)) {
			args.maps = true;
		} else if (c == 'h') {
			cli_print_help(cmd);
			*ret_status = cli_finish(CLI_EXIT_OK);
			return false;
		} else {
			*ret_status = cli_usage_error(cmd,
						      c == ':' || c == 's' ? "%s needs a value"
									   : "unknown option %s",
						      c == 's' ? "--socket" : argv[optind - 1]);
			return false;
		}
	}
	args.socket = cli_socket_path(path);
	args.n_operands = argc - optind;
	args.operands = argv + optind;
	*ret_args = args;
	return true;
}

int cli_parse_pid(const char *text, int32_t *ret_pid)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value <= 0 || value > INT32_MAX)
		return -EINVAL;
	*ret_pid = (int32_t)value;
	return 0;
}

const char *cli_format_size(uint64_t bytes, char out[static CLI_SIZE_TEXT])
{
	static const char units[] = "BKMGTPE";
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && units[unit + 1]) {
		value /= 1024;
		unit++;
	}
	if (!unit)
		snprintf(out, CLI_SIZE_TEXT, "%" PRIu64, bytes);
	else
		snprintf(out, CLI_SIZE_TEXT, "%.*f%c", value < 100 ? 1 : 0, value, units[unit]);
	return out;
}

const char *cli_printable(const char *text, char *out, size_t out_size)
{
	size_t i;

	for (i = 0; text[i] && i + 1 < out_size; i++) {
		unsigned char c = (unsigned char)text[i];

		out[i] = c < 0x20 || c >= 0x7f ? '?' : (char)c;
	}
	out[i] = '\0';
	return out;
}

uint64_t cli_json_u64(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return 0;
	return json_object_get_uint64(value);
}

const char *cli_json_text(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value) ||
	    !json_object_is_type(value, json_type_string))
		return "";
	return json_object_get_string(value);
}
