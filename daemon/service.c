/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service manager's protocol. Main calls it before the daemon serves, the control thread
 * from then on. No library: the protocol is promised to stay, and small.
 *
 * Never here: waiting for the manager once programs are served.
 */
#define _GNU_SOURCE
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define LISTEN_FDS_START 3

/* A number of the environment; 0 if there is none, or it makes no sense. */
static uint64_t env_number(const char *name)
{
	const char *text = getenv(name);
	unsigned long long number;
	char *end;

	if (!text || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	number = strtoull(text, &end, 10);
	return *end || errno ? 0 : number;
}

static int socket_option(int fd, int option)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

/* 1: ours; 0: not a listening socket; -EINVAL: one that clients do not speak to. */
static int is_listener(int fd)
{
	if (socket_option(fd, SO_ACCEPTCONN) != 1)
		return 0;
	return socket_option(fd, SO_DOMAIN) == AF_UNIX &&
			       socket_option(fd, SO_TYPE) == SOCK_SEQPACKET ?
		       1 :
		       -EINVAL;
}

int service_take_listener(int *ret_fd)
{
	uint64_t n = env_number("LISTEN_FDS");
	int found = -1, r;

	/* A child of ours would see the variables too, without the descriptors. */
	if (n == 0 || env_number("LISTEN_PID") != (uint64_t)getpid())
		return -ENOENT;
	(void)unsetenv("LISTEN_FDS");
	for (int fd = LISTEN_FDS_START; fd < LISTEN_FDS_START + (int)n && n < 1u << 16; fd++) {
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			continue;
		r = is_listener(fd);
		if (r < 0) {
			log_err("the service manager handed over a listening socket, but not one "
				"of sequential packets (ListenSequentialPacket=)");
			return r;
		}
		if (r > 0 && found < 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
			found = fd;
	}
	if (found < 0)
		return -ENOENT;
	*ret_fd = found;
	return 0;
}

static int notify_address(struct sockaddr_un *ret_addr, socklen_t *ret_len)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	if (len < 2 || len >= sizeof(ret_addr->sun_path) || (path[0] != '/' && path[0] != '@'))
		return -ENOENT;
	*ret_addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret_addr->sun_path, path, len);
	if (path[0] == '@')
		ret_addr->sun_path[0] = '\0'; /* of the abstract kind */
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return 0;
}

static void notify_send(const char *lines, int flags)
{
	struct sockaddr_un addr;
	socklen_t len;
	int fd;

	if (notify_address(&addr, &len) < 0)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | flags, (struct sockaddr *)&addr,
		   len) < 0 &&
	    errno != EAGAIN)
		log_debug("the service manager cannot be told: %s", strerror(errno));
	close(fd);
}

void service_ready(const char *status)
{
	char lines[256];

	snprintf(lines, sizeof(lines), "READY=1\nSTATUS=%s", status);
	notify_send(lines, 0);
}

void service_notify(const char *lines)
{
	notify_send(lines, MSG_DONTWAIT);
}

uint64_t service_watchdog_ns(void)
{
	uint64_t pid = env_number("WATCHDOG_PID");

	if (pid && pid != (uint64_t)getpid())
		return 0;
	return env_number("WATCHDOG_USEC") * 1000u;
}
