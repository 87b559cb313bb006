/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon under torture, and our place as a runner in it: a group with a low host target, and
 * its report. The same sources as `uhmm run` do the work. Runner only, one thread.
 */
#include "service.h"

#include <errno.h>
#include <poll.h>
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

static int service_join(struct service *service, const uint8_t token[static UHMM_TOKEN_BYTES],
			uint64_t host_target_bytes)
{
	struct uhmm_msg_refuse refuse = { .text = "" };
	int error = client_connect(service->socket, &service->fd);

	if (error) {
		client_explain_connect(service->socket, error);
		return error;
	}
	error = client_hello_runner(service->fd, token, host_target_bytes, &refuse);
	if (error)
		fprintf(stderr, "uhmm-torture: the daemon refuses: %s %s\n", strerror(-error),
			refuse.text);
	return error;
}

int service_start(const struct service_options *options, struct service *ret_service)
{
	struct service *service = ret_service;
	struct private_options private = {
		.backend = options->backend,
		.group = service->group,
		.daemon = options->daemon,
	};
	uint8_t token[UHMM_TOKEN_BYTES];
	int error = service_find_preload(service, options->preload);

	service->daemon.pid = 0;
	service->fd = -1;
	if (error)
		return error;
	if (getrandom(token, sizeof(token), 0) != sizeof(token))
		return -EIO;
	for (size_t i = 0; i < sizeof(token); i++)
		snprintf(service->group + 2 * i, 3, "%02x", token[i]);
	if (!options->socket) {
		error = private_start(&private, &service->daemon);
		snprintf(service->socket, sizeof(service->socket), "%s", service->daemon.socket);
	} else if (!realpath(options->socket, service->socket)) {
		error = -errno;
		client_explain_connect(options->socket, error);
	}
	return error ? error : service_join(service, token, options->host_target_bytes);
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

int service_ask(struct service *service, struct service_numbers *ret_numbers)
{
	struct json_object *json;
	int error = client_request_json(service->fd, UHMM_REQ_REPORT, &json);

	if (error)
		return error;
	*ret_numbers = (struct service_numbers){
		.evictions = cli_json_u64(json, "pages_evicted"),
		.faults = cli_json_u64(json, "faults"),
		.lost_pages = cli_json_u64(json, "lost_pages"),
	};
	json_object_put(json);
	return 0;
}

void service_stop(struct service *service)
{
	if (service->fd >= 0)
		(void)close(service->fd);
	service->fd = -1;
	private_release(&service->daemon);
}
