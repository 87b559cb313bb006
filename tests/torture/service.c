/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon under torture, and our place as a runner in it: a group with a low host target, and
 * its report. The same sources as `uhmm run` do the work. Runner only, one thread.
 */
#include "service.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli.h"
#include "client.h"
#include "paths.h"

static int service_find_preload(struct service *service, const char *given)
{
	int error = 0;

	if (given)
		error = realpath(given, service->preload) ? 0 : -errno;
	else
		error = paths_find_preload(service->preload);
	if (error)
		fprintf(stderr, "uhmm-torture: no preload library: %s\n", strerror(-error));
	return error;
}

static int service_join(struct service *service)
{
	struct uhmm_msg_refuse refuse = { .text = "" };
	int error = client_connect(service->socket, &service->fd);

	if (error) {
		client_explain_connect(service->socket, error);
		return error;
	}
	error = client_hello_runner(service->fd, service->token,
				    service->options->host_target_bytes, &refuse);
	if (error)
		fprintf(stderr, "uhmm-torture: the daemon refuses: %s %s\n", strerror(-error),
			refuse.text);
	return error;
}

static struct private_options service_private(const struct service *service)
{
	return (struct private_options){
		.backend = service->options->backend,
		.group = service->group,
		.daemon = service->options->daemon,
	};
}

int service_start(const struct service_options *options, struct service *ret_service)
{
	struct service *service = ret_service;
	struct private_options private;
	uint8_t *token = service->token;
	int error = service_find_preload(service, options->preload);

	service->daemon.pid = 0;
	service->fd = -1;
	service->options = options;
	service->before = service->last = (struct service_numbers){ 0 };
	private = service_private(service);
	if (error)
		return error;
	if (getrandom(token, UHMM_TOKEN_BYTES, 0) != UHMM_TOKEN_BYTES)
		return -EIO;
	for (size_t i = 0; i < UHMM_TOKEN_BYTES; i++)
		snprintf(service->group + 2 * i, 3, "%02x", token[i]);
	if (!options->socket) {
		error = private_start(&private, &service->daemon);
		snprintf(service->socket, sizeof(service->socket), "%s", service->daemon.socket);
	} else if (!realpath(options->socket, service->socket)) {
		error = -errno;
		client_explain_connect(options->socket, error);
	}
	return error ? error : service_join(service);
}

bool service_is_alive(struct service *service)
{
	struct pollfd pollfd = { .fd = service->daemon.pidfd, .events = POLLIN };

	if (service->daemon.pid == 0)
		return true;
	if (service->daemon.log_fd >= 0)
		(void)private_relay_log(&service->daemon);
	return poll(&pollfd, 1, 0) == 0;
}

static void numbers_add(struct service_numbers *sum, const struct service_numbers *more)
{
	sum->evictions += more->evictions;
	sum->faults += more->faults;
	sum->lost_pages += more->lost_pages;
}

int service_ask(struct service *service, struct service_numbers *ret_numbers)
{
	struct json_object *json;
	int error = client_request_json(service->fd, UHMM_REQ_REPORT, &json);

	if (error)
		return error;
	service->last = (struct service_numbers){
		.evictions = cli_json_u64(json, "pages_evicted"),
		.faults = cli_json_u64(json, "faults"),
		.lost_pages = cli_json_u64(json, "lost_pages"),
	};
	json_object_put(json);
	*ret_numbers = service->before;
	numbers_add(ret_numbers, &service->last);
	return 0;
}

/* ---- a daemon that is killed ---------------------------------------------------------------- */

static int start_next(struct service *service)
{
	const struct private_options private = service_private(service);

	numbers_add(&service->before, &service->last);
	service->last = (struct service_numbers){ 0 };
	return private_start_again(&private, &service->daemon);
}

int service_kill(struct service *service)
{
	char how[32];

	if (service->fd >= 0)
		(void)close(service->fd);
	service->fd = -1;
	(void)kill(service->daemon.pid, SIGKILL);
	private_take_end(&service->daemon, how, sizeof(how));
	if (strcmp(how, "signal 9") != 0) {
		fprintf(stderr, "uhmm-torture: the daemon had ended before: %s\n", how);
		return -ECHILD;
	}
	return start_next(service);
}

int service_start_again(struct service *service)
{
	char how[32];

	if (service->fd >= 0)
		(void)close(service->fd);
	service->fd = -1;
	private_take_end(&service->daemon, how, sizeof(how));
	return start_next(service);
}

bool service_is_answering(const struct service *service)
{
	struct pollfd pollfd = { .fd = service->daemon.ready_fd, .events = POLLIN };

	return service->daemon.ready_fd >= 0 && poll(&pollfd, 1, 0) == 1;
}

int service_take_ready(struct service *service)
{
	char line[256];
	int error = private_take_ready(&service->daemon, line, sizeof(line));

	if (error) {
		fprintf(stderr, "uhmm-torture: the daemon says: %s\n", line);
		return error;
	}
	return service_join(service);
}

/* The first file of a directory. */
static bool find_file(const char *path, char *ret_name, size_t size)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir)))
		if (entry->d_name[0] != '.') {
			found = true;
			snprintf(ret_name, size, "%s/%s", path, entry->d_name);
		}
	if (dir)
		(void)closedir(dir);
	return found;
}

const char *service_find_left(const struct service *service)
{
	static const char *const subdirs[] = { "state", "pages" };
	static char name[PATH_MAX];

	for (size_t i = 0; i < sizeof(subdirs) / sizeof(*subdirs); i++) {
		char path[96];

		snprintf(path, sizeof(path), "%s/%s", service->daemon.dir, subdirs[i]);
		if (find_file(path, name, sizeof(name)))
			return name;
	}
	return NULL;
}

void service_stop(struct service *service)
{
	if (service->fd >= 0)
		(void)close(service->fd);
	service->fd = -1;
	private_release(&service->daemon);
}
