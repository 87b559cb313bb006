/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uhmm-torture: options, and which of the parts this process is.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"
#include "ops.h"
#include "probe.h"
#include "runner.h"
#include "torture.h"
#include "trace.h"
#include "util/size.h"
#include "world.h"

/* What a process has beside its regions. */
#define BASE_BYTES (4u << 20)

static const char usage[] =
	"usage: uhmm-torture [--seed N] [--seconds S] [--threads T] [--processes P]\n"
	"                    [--backend SPEC] [--socket PATH] [--ops LIST] [--replay FILE]\n"
	"                    [--host-ram SIZE] [--pages N] [--daemon PATH] [--preload PATH]\n"
	"                    [--kill MS] [--kills-itself] [--plain] [--keep] [--verbose] [--list]\n"
	"Random operations on managed memory, checked against a shadow; see docs/torture.md.\n";

static unsigned int number(const char *text, unsigned int max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (!*text || *end || value == 0 || value > max) {
		fprintf(stderr, "uhmm-torture: '%s' is not a number from 1 to %u\n", text, max);
		exit(2);
	}
	return (unsigned int)value;
}

static void __attribute__((noreturn))
usage_error(const char *option, const char *text, const char *what)
{
	fprintf(stderr, "uhmm-torture: %s: '%s' is no %s\n", option, text, what);
	exit(2);
}

static void list_ops(void)
{
	for (uint32_t i = 0; i < ops_count(); i++)
		printf("%-16s %s\n", op_kind(i)->name, op_kind(i)->group);
	exit(0);
}

static void take_option(int c, struct runner_options *options, const char **ret_ops)
{
	char *end;

	switch (c) {
	case 's':
		ctl->seed = strtoull(optarg, &end, 0);
		if (!*optarg || *end)
			usage_error("--seed", optarg, "number");
		break;
	case 'S':
		options->seconds = number(optarg, 1000000);
		break;
	case 't':
		ctl->n_threads = number(optarg, 32);
		break;
	case 'p':
		ctl->n_processes = number(optarg, 16);
		break;
	case 'b':
		options->service.backend = optarg;
		break;
	case 'k':
		options->service.socket = optarg;
		break;
	case 'o':
		*ret_ops = optarg;
		break;
	case 'r':
		options->replay = optarg;
		break;
	case 'm':
		if (size_parse(optarg, &options->service.host_target_bytes) < 0)
			usage_error("--host-ram", optarg, "size");
		break;
	case 'g':
		ctl->pages_max = number(optarg, REGIONS_MAX * REGION_PAGES_MAX);
		break;
	case 'd':
		options->service.daemon = optarg;
		break;
	case 'l':
		options->service.preload = optarg;
		break;
	case 'X':
		options->kill_ms = number(optarg, 1000000);
		break;
	case 'C':
		options->may_kill_itself = true;
		break;
	case 'P':
		options->service.plain = true;
		break;
	case 'v':
		options->verbose = true;
		break;
	case 'K':
		options->keep = true;
		break;
	case 'L':
		list_ops();
		break;
	case 'h':
		printf("%s", usage);
		exit(0);
	default:
		fprintf(stderr, "%s", usage);
		exit(2);
	}
}

static void parse(int argc, char **argv, struct runner_options *options)
{
	static const struct option longs[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 'S' },
		{ "threads", required_argument, NULL, 't' },
		{ "processes", required_argument, NULL, 'p' },
		{ "backend", required_argument, NULL, 'b' },
		{ "socket", required_argument, NULL, 'k' },
		{ "ops", required_argument, NULL, 'o' },
		{ "replay", required_argument, NULL, 'r' },
		{ "host-ram", required_argument, NULL, 'm' },
		{ "pages", required_argument, NULL, 'g' },
		{ "daemon", required_argument, NULL, 'd' },
		{ "preload", required_argument, NULL, 'l' },
		{ "kill", required_argument, NULL, 'X' },
		{ "kills-itself", no_argument, NULL, 'C' },
		{ "plain", no_argument, NULL, 'P' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "keep", no_argument, NULL, 'K' },
		{ "list", no_argument, NULL, 'L' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *list = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "hv", longs, NULL)) != -1)
		take_option(c, options, &list);
	if (optind != argc)
		take_option('?', options, &list);
	/* Shared memory does not come back with its agents yet. */
	if ((options->kill_ms || options->may_kill_itself) && !list)
		list = "-shared,-common,-robust-process";
	if (options->kill_ms && (options->service.socket || options->service.plain)) {
		fprintf(stderr, "uhmm-torture: --kill is for a private daemon\n");
		exit(2);
	}
	if (ops_enable(list) < 0) {
		fprintf(stderr, "uhmm-torture: --ops: '%s' names what is not in --list\n", list);
		exit(2);
	}
	if (options->replay && trace_read(options->replay) < 0)
		exit(2);
	if (options->service.host_target_bytes == 0)
		options->service.host_target_bytes =
			ctl->n_processes * (BASE_BYTES + (uint64_t)ctl->n_threads *
								 ctl->pages_max *
								 ctl->page_size / 3);
}

/* uhmm-torture --world FD FIRST N, or --probe FD: what the runner executes. */
static int become_other(char **argv)
{
	int error = control_map(atoi(argv[2]));

	if (error) {
		fprintf(stderr, "uhmm-torture: cannot map the control file: %s\n",
			strerror(-error));
		return 2;
	}
	if (strcmp(argv[1], "--probe") == 0)
		return probe_main();
	return world_main((uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]));
}

int main(int argc, char **argv)
{
	struct runner_options options = { .seconds = 10, .argv = argv };
	int control_fd, error;

	ops_init();
	if (argc == 2 && strcmp(argv[1], "--noop") == 0)
		return 0; /* what a vfork executes */
	if ((argc == 5 && strcmp(argv[1], "--world") == 0) ||
	    (argc == 3 && strcmp(argv[1], "--probe") == 0))
		return become_other(argv);
	error = control_make(&control_fd);
	if (error) {
		fprintf(stderr, "uhmm-torture: no place for the shadow on a disk: %s\n",
			strerror(-error));
		return 2;
	}
	ctl->fd = control_fd;
	ctl->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	ctl->seed = 1;
	ctl->n_threads = 4;
	ctl->n_processes = 2;
	ctl->pages_max = 1536;
	parse(argc, argv, &options);
	if (geteuid() != 0 && !options.service.socket && !options.service.plain) {
		printf("SKIP: needs root\n");
		return 77;
	}
	return runner_main(&options);
}
