/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the subcommands of `uhmm` share: their table, their options, their words.
 * The program is single-threaded.
 */
#ifndef UHMM_CLI_H
#define UHMM_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

/* Exit statuses. `run` has those of env(1), because its others are the command's. */
enum cli_exit {
	CLI_EXIT_OK = 0,
	CLI_EXIT_FAIL = 1,
	CLI_EXIT_USAGE = 2,
	CLI_EXIT_RUN_FAIL = 125,
	CLI_EXIT_NOT_EXECUTABLE = 126,
	CLI_EXIT_NOT_FOUND = 127,
};

struct cli_command {
	const char *name;
	const char *usage;   /* what follows the name on a usage line */
	const char *summary; /* one line */
	const char *options; /* help text, whole lines; NULL: only the common ones */
	int (*main)(const struct cli_command *cmd, int argc, char **argv);
};

int run_main(const struct cli_command *cmd, int argc, char **argv);
int status_main(const struct cli_command *cmd, int argc, char **argv);
int tiers_main(const struct cli_command *cmd, int argc, char **argv);
int evict_main(const struct cli_command *cmd, int argc, char **argv);
int restore_main(const struct cli_command *cmd, int argc, char **argv);
int enable_main(const struct cli_command *cmd, int argc, char **argv);
int disable_main(const struct cli_command *cmd, int argc, char **argv);
int core_main(const struct cli_command *cmd, int argc, char **argv);
int doctor_main(const struct cli_command *cmd, int argc, char **argv);
int version_main(const struct cli_command *cmd, int argc, char **argv);
int help_main(const struct cli_command *cmd, int argc, char **argv);

/* What the subcommands other than `run` take. */
enum cli_option {
	CLI_OPTION_JSON = 1u << 0,
	CLI_OPTION_HOLD = 1u << 1, /* and --release */
	CLI_OPTION_MAPS = 1u << 2,
};
struct cli_args {
	const char *socket; /* never NULL */
	bool json;
	bool hold, release;
	bool maps;
	int n_operands;
	char **operands;
};

/*
 * Parse; `options` of enum cli_option are allowed beside --socket and --help.
 * Returns true to go on. Else *ret_status is the exit status: help was printed, or
 * one line about what is wrong.
 */
bool cli_parse(const struct cli_command *cmd, unsigned int options, int argc, char **argv,
	       struct cli_args *ret_args, int *ret_status);
/* A process id: a whole positive number; -EINVAL. */
int cli_parse_pid(const char *text, int32_t *ret_pid);
/* --socket if given, else $UHMM_SOCKET, else the default. */
const char *cli_socket_path(const char *option);

/* One line on stderr, after "uhmm: ". */
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, and how to get help; returns CLI_EXIT_USAGE. */
int cli_usage_error(const struct cli_command *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void cli_print_help(const struct cli_command *cmd);
/* Flush stdout: the status, or CLI_EXIT_FAIL with a message if it cannot be written. */
int cli_finish(int status);

/* "63.9M"; at most 5 characters before the unit. */
#define CLI_SIZE_TEXT 16
const char *cli_format_size(uint64_t bytes, char out[static CLI_SIZE_TEXT]);
/* A copy that cannot do anything to a terminal: control bytes become '?'. */
const char *cli_printable(const char *text, char *out, size_t out_size);

/* `version` of the objects that --json prints; the daemon's own have it too. */
#define CLI_JSON_VERSION 1

/* A member of a JSON object, 0, "" or false when it is missing or of another type. */
uint64_t cli_json_u64(struct json_object *object, const char *key);
const char *cli_json_text(struct json_object *object, const char *key);

#endif
