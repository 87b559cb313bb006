/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm run`: finds or starts a daemon, makes a group there, runs the command in it and
 * tells how it went. One thread. The command's own life never depends on ours: nothing
 * here stops it, and its status is passed on whatever became of the daemon.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "util/size.h"

#include "cli.h"
#include "client.h"
#include "command.h"
#include "paths.h"
#include "private.h"
#include "report.h"
#include "revival.h"

/* Its connections close a moment before it has ended. */
#define ENDING_MS 1000

struct run_options {
	uint64_t host_target_bytes;
	const char *backend;
	const char *socket;
	const char *report;
	bool private;
	bool progress;
	bool verbose;
	char **argv; /* the command */
};

struct run {
	struct run_options options;
	struct report_file report;
	struct progress progress;
	struct private_daemon daemon;
	struct revival revival; /* of that daemon */
	uint8_t group[UHMM_TOKEN_BYTES];
	char group_text[2 * UHMM_TOKEN_BYTES + 1];
	char preload[PATH_MAX];
	char socket[PATH_MAX]; /* absolute once connected: the command may change directory */
	int fd;                /* the runner's connection; -1: unmanaged, or the daemon is gone */
	bool managed;          /* the command was started in a group */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool environment_is_set(const char *name)
{
	const char *value = getenv(name);

	return value && *value && strcmp(value, "0") != 0;
}

/* Returns 0, or the exit status after one line; -1: help was asked for. */
static int run_take_option(const struct cli_command *cmd, int c, const char *shown,
			   struct run_options *options)
{
	switch (c) {
	case 'm':
		if (size_parse(optarg, &options->host_target_bytes) < 0 ||
		    !options->host_target_bytes)
			return cli_usage_error(cmd, "--host-ram: '%s' is no size", optarg);
		return 0;
	case 'b':
		options->backend = optarg;
		return *optarg ? 0 : cli_usage_error(cmd, "--backend needs a value");
	case 's':
		options->socket = optarg;
		return *optarg ? 0 : cli_usage_error(cmd, "--socket needs a value");
	case 'r':
		options->report = optarg;
		return *optarg ? 0 : cli_usage_error(cmd, "--report needs a value");
	case 'p':
		options->private = true;
		return 0;
	case 'P':
		options->progress = true;
		return 0;
	case 'v':
		options->verbose = true;
		return 0;
	case 'h':
		return -1;
	case ':':
		return cli_usage_error(cmd, "%s needs a value", shown);
	default:
		return cli_usage_error(cmd, "unknown option %s", shown);
	}
}

static int run_parse(const struct cli_command *cmd, int argc, char **argv,
		     struct run_options *ret_options)
{
	static const struct option longs[] = {
		{ "host-ram", required_argument, NULL, 'm' },
		{ "backend", required_argument, NULL, 'b' },
		{ "socket", required_argument, NULL, 's' },
		{ "report", required_argument, NULL, 'r' },
		{ "private", no_argument, NULL, 'p' },
		{ "progress", no_argument, NULL, 'P' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct run_options options = { 0 };
	int status;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:hv", longs, NULL)) != -1) {
		status = run_take_option(cmd, c, argv[optind - 1], &options);
		if (status)
			return status;
	}
	options.argv = argv + optind;
	if (!*options.argv)
		return cli_usage_error(cmd, "no command given");
	if (options.private && options.socket)
		return cli_usage_error(cmd, "--private and --socket exclude each other");
	*ret_options = options;
	return 0;
}

static int run_choose_group(struct run *run)
{
	if (getrandom(run->group, sizeof(run->group), 0) != sizeof(run->group)) {
		cli_error("no random bytes: %m");
		return -EIO;
	}
	for (size_t i = 0; i < sizeof(run->group); i++)
		snprintf(run->group_text + 2 * i, 3, "%02x", run->group[i]);
	return 0;
}

/* The loader splits LD_PRELOAD at these, and knows no quoting. */
static int run_find_preload(struct run *run)
{
	if (paths_find_preload(run->preload) < 0) {
		cli_error("the preload library is missing: neither %s nor " UHMM_INSTALLED_PRELOAD
			  " exists",
			  run->preload);
		return -ENOENT;
	}
	if (strpbrk(run->preload, " :\t\n")) {
		cli_error("LD_PRELOAD cannot name '%s': install uhmm below a path without spaces "
			  "and colons",
			  run->preload);
		return -EINVAL;
	}
	return 0;
}

static int run_start_private(struct run *run)
{
	const struct private_options options = {
		.backend = run->options.backend,
		.group = run->group_text,
		.verbose = run->options.verbose,
	};
	int error = private_start(&options, &run->daemon);

	if (error)
		return error;
	revival_init(&run->revival, &options);
	strcpy(run->socket, run->daemon.socket);
	error = client_connect(run->socket, &run->fd);
	if (error)
		client_explain_connect(run->socket, error);
	return error;
}

/* The daemon at the socket, or a private one if nobody is there. */
static int run_find_daemon(struct run *run)
{
	const char *path = cli_socket_path(run->options.socket);
	int error;

	if (run->options.private)
		return run_start_private(run);
	error = client_connect(path, &run->fd);
	if (!error && !realpath(path, run->socket))
		error = -errno;
	if (!error && run->options.backend) {
		cli_error("--backend is for a private daemon, and one listens at %s: add --private",
			  path);
		return -EINVAL;
	}
	if (error == -ENOENT || error == -ECONNREFUSED) {
		if (geteuid() == 0)
			return run_start_private(run);
		cli_error("no daemon listens at %s, and a private one needs root: start uhmmd, "
			  "name its socket with --socket or UHMM_SOCKET, or be root",
			  path);
	} else if (error) {
		client_explain_connect(path, error);
	}
	return error;
}

static int run_join(struct run *run)
{
	struct uhmm_msg_refuse refuse;
	int error =
		client_hello_runner(run->fd, run->group, run->options.host_target_bytes, &refuse);

	if (error == -ECONNREFUSED)
		cli_error("the daemon at %s refused (%s): %s", run->socket,
			  uhmm_reason_name(refuse.reason), refuse.text);
	else if (error)
		cli_error("the daemon at %s did not answer properly: %s", run->socket,
			  strerror(-error));
	return error;
}

static void run_drop_daemon(struct run *run)
{
	if (run->fd >= 0)
		(void)close(run->fd);
	run->fd = -1;
}

/* Everything before the command; each failure has been explained. */
static int run_set_up(struct run *run)
{
	int error = run_find_preload(run);

	if (!error)
		error = run_choose_group(run);
	if (!error)
		error = run_find_daemon(run);
	if (!error)
		error = run_join(run);
	if (!error)
		run->managed = true;
	else
		run_drop_daemon(run);
	return error;
}

static void run_note_daemon_gone(struct run *run)
{
	progress_clear(&run->progress);
	cli_error("the daemon went away: what it had moved out comes home when it is back");
	run_drop_daemon(run);
}

/* The same group, in a daemon that is new or the same. */
static void run_meet_again(struct run *run)
{
	int error;

	run_drop_daemon(run);
	error = client_connect(run->socket, &run->fd);
	if (error)
		client_explain_connect(run->socket, error);
	else if (run_join(run) < 0)
		run_drop_daemon(run);
}

static void run_tend_private(struct run *run)
{
	progress_clear(&run->progress);
	if (revival_step(&run->revival, &run->daemon))
		run_meet_again(run);
	else if (run->revival.state != REVIVAL_SERVING)
		run_drop_daemon(run);
}

/* The connection broke. A private daemon says more by its end. */
static void run_lose_daemon(struct run *run)
{
	struct pollfd pollfd = { .fd = run->daemon.pidfd, .events = POLLIN };

	if (run->revival.state != REVIVAL_NONE && poll(&pollfd, 1, ENDING_MS) == 1)
		run_tend_private(run);
	else
		run_note_daemon_gone(run);
}

static void run_sample(struct run *run, bool last)
{
	struct json_object *json;
	int error = client_request_json(run->fd, UHMM_REQ_REPORT, &json);

	if (error) {
		run_lose_daemon(run);
		return;
	}
	progress_show(&run->progress, json, now_ns(), last);
	json_object_put(json);
}

static int run_timeout_ms(const struct run *run, bool sampling)
{
	int sample_ms = (int)(PROGRESS_SAMPLE_NS / 1000000);
	int private_ms = revival_timeout_ms(&run->revival);

	if (!sampling)
		return private_ms;
	return private_ms >= 0 && private_ms < sample_ms ? private_ms : sample_ms;
}

/* Until the command has ended: pass on the private daemon's log and start it again should it
 * end, show progress. */
static void run_watch(struct run *run, pid_t pid)
{
	enum { COMMAND, LOG, DAEMON, PRIVATE, READY, N_FDS };
	int pidfd = pidfd_open(pid, 0);
	uint64_t next_ns = now_ns() + PROGRESS_SAMPLE_NS;
	int n;

	while (pidfd >= 0) {
		/* POLLHUP is always watched for; READY was the last word that nobody asked for. */
		struct pollfd fds[N_FDS] = {
			[COMMAND] = { .fd = pidfd, .events = POLLIN },
			[LOG] = { .fd = run->daemon.log_fd, .events = POLLIN },
			[DAEMON] = { .fd = run->fd, .events = POLLIN },
			[PRIVATE] = { .fd = run->daemon.pidfd, .events = POLLIN },
			[READY] = { .fd = run->daemon.ready_fd, .events = POLLIN },
		};
		bool sampling = run->progress.on && run->fd >= 0;

		n = poll(fds, N_FDS, run_timeout_ms(run, sampling));
		if (n < 0 && errno != EINTR)
			break;
		if (n > 0 && fds[COMMAND].revents)
			break;
		if (n > 0 && fds[LOG].revents) {
			progress_clear(&run->progress);
			(void)private_relay_log(&run->daemon);
		}
		if (n > 0 && (fds[PRIVATE].revents || fds[READY].revents))
			run_tend_private(run);
		else if (revival_timeout_ms(&run->revival) == 0)
			run_tend_private(run);
		else if (n > 0 && fds[DAEMON].revents)
			run_lose_daemon(run);
		else if (sampling && now_ns() >= next_ns) {
			run_sample(run, false);
			next_ns = now_ns() + PROGRESS_SAMPLE_NS;
		}
	}
	if (pidfd >= 0)
		(void)close(pidfd);
}

/* 0, or -errno with a message. */
static int run_report(struct run *run, int exit_status)
{
	struct json_object *json = NULL;
	int error = 0;

	if (run->fd >= 0)
		error = client_request_json(run->fd, UHMM_REQ_REPORT, &json);
	else if (run->managed)
		error = -ENOTCONN;
	if (error) {
		cli_error("no report from the daemon: %s", strerror(-error));
		return error;
	}
	if (json && run->progress.on)
		progress_show(&run->progress, json, now_ns(), true);
	if (run->options.report) {
		if (!json)
			json = json_object_new_object();
		json_object_object_add(json, "managed", json_object_new_boolean(run->managed));
		json_object_object_add(json, "exit_status", json_object_new_int(exit_status));
		error = report_file_write(&run->report, json);
		if (error)
			cli_error("cannot write %s: %s", run->options.report, strerror(-error));
	}
	json_object_put(json);
	return error;
}

/* The command's own failure says more than ours. */
static int run_finish(struct run *run, int status)
{
	int error = 0;

	progress_clear(&run->progress);
	if (revival_finish(&run->revival, &run->daemon))
		run_meet_again(run);
	if (run->options.report || run->progress.on)
		error = run_report(run, status);
	run_drop_daemon(run);
	private_release(&run->daemon);
	return error && !status ? CLI_EXIT_RUN_FAIL : status;
}

static int run_command(struct run *run)
{
	const struct command_env env = {
		.preload = run->managed ? run->preload : NULL,
		.socket = run->socket,
		.group = run->group_text,
	};
	int status;
	pid_t pid;
	int error;

	error = command_start(run->options.argv, &env, &pid, &status);
	if (error) {
		cli_error("cannot start %s: %s", run->options.argv[0], strerror(-error));
		status = CLI_EXIT_RUN_FAIL;
	} else if (!status) {
		run_watch(run, pid);
		status = command_wait(pid);
	}
	return run_finish(run, status);
}

int run_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct run run = {
		.daemon = { .pidfd = -1, .lifeline_fd = -1, .log_fd = -1, .ready_fd = -1 },
		.fd = -1,
	};
	int status = run_parse(cmd, argc, argv, &run.options);
	int error;

	if (status < 0) {
		cli_print_help(cmd);
		return cli_finish(CLI_EXIT_OK);
	}
	if (status)
		return CLI_EXIT_RUN_FAIL;
	if (run.options.report) {
		error = report_file_check(run.options.report, &run.report);
		if (error) {
			cli_error("cannot write a report to %s: %s", run.options.report,
				  strerror(-error));
			return CLI_EXIT_RUN_FAIL;
		}
	}
	progress_init(&run.progress, run.options.progress);
	if (run_set_up(&run) < 0) {
		private_release(&run.daemon);
		if (!environment_is_set("UHMM_OPTIONAL"))
			return CLI_EXIT_RUN_FAIL;
		if (!environment_is_set("UHMM_QUIET"))
			cli_error("%s runs unmanaged", run.options.argv[0]);
	}
	return run_command(&run);
}
