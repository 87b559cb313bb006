/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm enable` and `uhmm disable`: a drop-in that has the programs of a service enrol, and its
 * removal. One thread. Neither starts, stops or restarts anything: when the service may be
 * interrupted is the administrator's to say.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/size.h"

#include "cli.h"
#include "paths.h"
#include "unit.h"

struct enable_args {
	const char *host_ram; /* NULL: none */
	const char *socket;   /* NULL: the default one */
	char *root;	      /* to be freed; NULL: the running system */
	bool runtime;
	char name[UNIT_NAME_BYTES];
};

static int enable_take_option(const struct cli_command *cmd, int c, const char *shown,
			      struct enable_args *args)
{
	uint64_t bytes;

	switch (c) {
	case 'm':
		if (size_parse(optarg, &bytes) < 0 || !bytes)
			return cli_usage_error(cmd, "--host-ram: '%s' is no size", optarg);
		args->host_ram = optarg;
		return 0;
	case 's':
		args->socket = optarg;
		return *optarg == '/' ? 0 : cli_usage_error(cmd, "--socket needs an absolute path");
	case 'r':
		free(args->root);
		args->root = realpath(optarg, NULL);
		return args->root ? 0 : cli_usage_error(cmd, "--root: %s: %m", optarg);
	case 't':
		args->runtime = true;
		return 0;
	case 'h':
		return -1;
	case ':':
		return cli_usage_error(cmd, "%s needs a value", shown);
	default:
		return cli_usage_error(cmd, "unknown option %s", shown);
	}
}

/* 0; else the exit status: help was printed, or one line about what is wrong. */
static int enable_parse(const struct cli_command *cmd, bool enabling, int argc, char **argv,
			struct enable_args *args, bool *ret_done)
{
	static const struct option longs[] = {
		{ "host-ram", required_argument, NULL, 'm' },
		{ "socket", required_argument, NULL, 's' },
		{ "root", required_argument, NULL, 'r' }, /* `disable` has these */
		{ "runtime", no_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const struct option *first = enabling ? longs : longs + 2;
	int c, status = 0;

	opterr = 0;
	*ret_done = false;
	while (status == 0 && (c = getopt_long(argc, argv, ":h", first, NULL)) != -1)
		status = enable_take_option(cmd, c, argv[optind - 1], args);
	if (status < 0) {
		*ret_done = true;
		cli_print_help(cmd);
		return cli_finish(CLI_EXIT_OK);
	}
	if (status == 0 && argc == optind)
		status = cli_usage_error(cmd, "which service? A UNIT is missing");
	else if (status == 0 && argc > optind + 1)
		status = cli_usage_error(cmd, "'%s' is one operand too many", argv[optind + 1]);
	else if (status == 0 && unit_name(argv[optind], args->name) < 0)
		status = cli_usage_error(cmd, "'%s' is no service", argv[optind]);
	return status;
}

/* systemd expands %, and ends a word at what is excluded here. */
static int put_path(FILE *out, const char *name, const char *path)
{
	if (strpbrk(path, " \t\n\"'\\") || (!strcmp(name, "LD_PRELOAD") && strchr(path, ':'))) {
		cli_error("a unit cannot name '%s': a path without spaces, quotes and colons is "
			  "needed",
			  path);
		return -EINVAL;
	}
	fprintf(out, "Environment=%s=", name);
	for (; *path; path++)
		fprintf(out, "%s%c", *path == '%' ? "%" : "", *path);
	fputc('\n', out);
	return 0;
}

/* As the programs will see it. Another system has its own, where it is installed. */
static int find_preload(const struct enable_args *args, char out[static PATH_MAX])
{
	int n, error;

	if (!args->root) {
		error = paths_find_preload(out);
		if (error)
			cli_error("the preload library is missing: neither %s nor "
				  UHMM_INSTALLED_PRELOAD " exists",
				  out);
		return error;
	}
	n = snprintf(out, PATH_MAX, "%s" UHMM_INSTALLED_PRELOAD, args->root);
	if (n < 0 || n >= PATH_MAX || access(out, F_OK) < 0) {
		cli_error("the preload library is missing: there is no %s", out);
		return -ENOENT;
	}
	strcpy(out, UHMM_INSTALLED_PRELOAD);
	return 0;
}

static int dropin_print(FILE *out, const struct enable_args *args)
{
	char preload[PATH_MAX];
	int error = find_preload(args, preload);

	if (error)
		return error;
	fprintf(out,
		"# Written by `uhmm enable`; `uhmm disable %s` removes it.\n"
		"[Unit]\n"
		"# The daemon is there first, and ends last: what is away has to come home.\n"
		"Wants=uhmmd.service\n"
		"After=uhmmd.service\n"
		"\n"
		"[Service]\n"
		"# If the service has a system call filter, find out whether it lets pass what is "
		"needed.\n"
		"Environment=UHMM_FILTER=try\n",
		args->name);
	error = put_path(out, "LD_PRELOAD", preload);
	if (!error && args->socket)
		error = put_path(out, "UHMM_SOCKET", args->socket);
	if (args->host_ram)
		fprintf(out,
			"# What the programs of each user in it may keep in host RAM together.\n"
			"Environment=UHMM_HOST_RAM=%s\n",
			args->host_ram);
	return error;
}

static int dropin_write(const struct enable_args *args, const char *path)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	int error = out ? dropin_print(out, args) : -ENOMEM;

	if (out && fclose(out) && !error)
		error = -ENOMEM;
	if (!error) {
		error = unit_dropin_write(path, text);
		if (error)
			cli_error("cannot write %s: %s", path, strerror(-error));
	}
	free(text);
	return error;
}

/* Make the manager read its files again, and say when that takes effect. */
static int enable_reload(const struct enable_args *args, const char *what)
{
	static const char *const reload[] = { "daemon-reload", NULL };

	if (args->root || !unit_manager_runs()) {
		printf("%s: %s\n", args->name, what);
		return cli_finish(CLI_EXIT_OK);
	}
	if (unit_systemctl(reload, NULL, 0)) {
		cli_error("%s: %s, but systemd does not know yet: systemctl daemon-reload",
			  args->name, what);
		return CLI_EXIT_FAIL;
	}
	printf("%s: %s from its next start on: systemctl restart %s\n", args->name, what,
	       args->name);
	return cli_finish(CLI_EXIT_OK);
}

static int enable_unit(struct enable_args *args)
{
	const struct unit_place place = { args->root ? args->root : "", args->runtime };
	char path[PATH_MAX];

	if (unit_check(&place, args->name) < 0)
		return CLI_EXIT_FAIL;
	if (unit_dropin_path(&place, args->name, path, sizeof(path)) < 0 ||
	    dropin_write(args, path) < 0)
		return CLI_EXIT_FAIL;
	return enable_reload(args, "managed");
}

/* From both places, whichever it was written to; a unit that is gone is disabled all the same. */
static int disable_unit(struct enable_args *args)
{
	struct unit_place place = { args->root ? args->root : "", false };
	char path[PATH_MAX];
	bool removed = false;

	if (!args->root)
		unit_resolve(args->name);
	for (int i = 0; i < 2; i++) {
		int error;

		place.runtime = i == 1;
		if (!place.runtime && args->runtime)
			continue;
		error = unit_dropin_path(&place, args->name, path, sizeof(path));
		if (!error)
			error = unit_dropin_remove(path);
		if (error && error != -ENOENT) {
			cli_error("cannot remove %s: %s", path, strerror(-error));
			return CLI_EXIT_FAIL;
		}
		removed |= !error;
	}
	if (!removed) {
		cli_error("%s: it was not enabled", args->name);
		return CLI_EXIT_FAIL;
	}
	return enable_reload(args, "no longer managed");
}

static int enable_or_disable(const struct cli_command *cmd, bool enabling, int argc, char **argv)
{
	struct enable_args args = { 0 };
	bool done;
	int status = enable_parse(cmd, enabling, argc, argv, &args, &done);

	if (!status && !done)
		status = enabling ? enable_unit(&args) : disable_unit(&args);
	free(args.root);
	return status;
}

int enable_main(const struct cli_command *cmd, int argc, char **argv)
{
	return enable_or_disable(cmd, true, argc, argv);
}

int disable_main(const struct cli_command *cmd, int argc, char **argv)
{
	return enable_or_disable(cmd, false, argc, argv);
}
