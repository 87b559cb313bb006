/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's socket as the command line sees it: connect, HELLO, request, answer.
 * Owns nothing beyond a call; every descriptor goes to the caller. Called on the only
 * thread. An answer is never believed: lengths are checked before use, and only
 * what moves pages waits without a bound.
 */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli.h"

#define ANSWER_TIMEOUT_SEC 30
/* Longer than a daemon takes that is started now. */
#define PROBE_TIMEOUT_SEC 5
/* A thousand processes need less than one of these. */
#define TEXT_MAX_BYTES (64u << 20)

union packet {
	struct uhmm_msg h;
	struct uhmm_msg_refuse refuse;
	struct uhmm_msg_done done;
	char bytes[UHMM_MSG_MAX];
};

int client_connect(const char *path, int *ret_fd)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_SEC };
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int error = -errno;

		(void)close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

static int packet_send(int fd, const struct uhmm_msg *msg)
{
	ssize_t n;

	do
		n = send(fd, msg, msg->len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return (size_t)n == msg->len ? 0 : -EIO;
}

static int packet_receive(int fd, union packet *packet)
{
	bool again = true;
	ssize_t n;

	do {
		n = recv(fd, packet, sizeof(*packet), MSG_TRUNC);
		/* A peer that closed over unread bytes: said once, before what it sent. */
		if (n < 0 && errno == ECONNRESET && again)
			again = false;
		else if (n >= 0 || errno != EINTR)
			break;
	} while (true);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n == 0)
		return -ECONNRESET;
	if ((size_t)n < sizeof(packet->h) || (size_t)n > sizeof(*packet) ||
	    packet->h.len != (size_t)n)
		return -EPROTO;
	return 0;
}

/* -ECONNREFUSED, or -EPROTO when it is no proper REFUSE. */
static int packet_take_refuse(union packet *packet, struct uhmm_msg_refuse *ret_refuse)
{
	if (packet->h.type != UHMM_MSG_REFUSE || packet->h.len < sizeof(packet->refuse))
		return -EPROTO;
	packet->refuse.text[sizeof(packet->refuse.text) - 1] = '\0';
	cli_printable(packet->refuse.text, ret_refuse->text, sizeof(ret_refuse->text));
	ret_refuse->h = packet->h;
	ret_refuse->reason = packet->refuse.reason;
	return -ECONNREFUSED;
}

static void hello_init(struct uhmm_msg_hello *ret_hello, enum uhmm_role role)
{
	*ret_hello = (struct uhmm_msg_hello){
		.h = { .type = UHMM_MSG_HELLO, .len = sizeof(*ret_hello) },
		.magic = UHMM_WIRE_MAGIC,
		.version = UHMM_WIRE_VERSION,
		.role = role,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
	};
}

int client_hello_runner(int fd, const uint8_t group[static UHMM_TOKEN_BYTES],
			uint64_t host_target_bytes, struct uhmm_msg_refuse *ret_refuse)
{
	static union packet packet;
	struct uhmm_msg_hello hello;
	int error;

	hello_init(&hello, UHMM_ROLE_RUNNER);
	memcpy(hello.group, group, sizeof(hello.group));
	hello.host_target_bytes = host_target_bytes;
	error = packet_send(fd, &hello.h);
	if (!error)
		error = packet_receive(fd, &packet);
	if (error)
		return error;
	return packet.h.type == UHMM_MSG_READY ? 0 : packet_take_refuse(&packet, ret_refuse);
}

/* Read TEXT packets into `out` until DONE. */
static int answer_receive(int fd, FILE *out, struct uhmm_msg_done *ret_done)
{
	static union packet packet;
	struct uhmm_msg_refuse refuse;
	size_t total = 0;
	int error;

	for (;;) {
		error = packet_receive(fd, &packet);
		if (error)
			return error;
		switch (packet.h.type) {
		case UHMM_MSG_READY: /* the answer to an admin's HELLO, not waited for */
			break;
		case UHMM_MSG_TEXT:
			total += packet.h.len - sizeof(packet.h);
			if (total > TEXT_MAX_BYTES)
				return -EMSGSIZE;
			fwrite(packet.bytes + sizeof(packet.h), 1, packet.h.len - sizeof(packet.h),
			       out);
			break;
		case UHMM_MSG_DONE:
			if (packet.h.len < sizeof(packet.done))
				return -EPROTO;
			*ret_done = packet.done;
			ret_done->text[sizeof(ret_done->text) - 1] = '\0';
			return 0;
		default:
			error = packet_take_refuse(&packet, &refuse);
			if (error == -ECONNREFUSED)
				cli_printable(refuse.text, ret_done->text, sizeof(ret_done->text));
			return error;
		}
	}
}

int client_request(int fd, enum uhmm_request request, int32_t pid, uint64_t bytes, uint32_t flags,
		   char **ret_text, struct uhmm_msg_done *ret_done)
{
	struct uhmm_msg_request msg = {
		.h = { .type = UHMM_MSG_REQUEST, .len = sizeof(msg) },
		.request = request,
		.flags = flags,
		.pid = pid,
		.bytes = bytes,
	};
	char *text = NULL;
	size_t text_size = 0;
	FILE *out;
	int error;

	error = packet_send(fd, &msg.h);
	/* A daemon that refuses closes at once: its REFUSE says more than our EPIPE. */
	if (error && error != -EPIPE)
		return error;
	out = open_memstream(&text, &text_size);
	if (!out)
		return -errno;
	error = answer_receive(fd, out, ret_done);
	if (fclose(out) && !error)
		error = -ENOMEM;
	if (error || !ret_text)
		free(text);
	else
		*ret_text = text;
	return error;
}

int client_request_json(int fd, enum uhmm_request request, struct json_object **ret_json)
{
	struct uhmm_msg_done done;
	struct json_object *json;
	char *text;
	int error;

	error = client_request(fd, request, 0, 0, 0, &text, &done);
	if (error)
		return error;
	json = json_tokener_parse(text);
	free(text);
	if (done.error || !json_object_is_type(json, json_type_object)) {
		json_object_put(json);
		return done.error ? done.error : -EBADMSG;
	}
	*ret_json = json;
	return 0;
}

int client_answers(const char *path, struct uhmm_msg_done *ret_done)
{
	const struct timeval patience = { .tv_sec = PROBE_TIMEOUT_SEC };
	struct uhmm_msg_hello hello;
	int fd;
	int error = client_connect(path, &fd);

	if (error)
		return error;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	hello_init(&hello, UHMM_ROLE_ADMIN);
	error = packet_send(fd, &hello.h);
	if (!error)
		error = client_request(fd, UHMM_REQ_TIERS, 0, 0, 0, NULL, ret_done);
	(void)close(fd);
	return error == -ECONNREFUSED ? -EHOSTDOWN : error == -EPIPE ? -ECONNRESET : error;
}

void client_explain_connect(const char *path, int error)
{
	switch (-error) {
	case ENOENT:
	case ECONNREFUSED:
		cli_error("no daemon listens at %s: start uhmmd, or name its socket with "
			  "--socket or UHMM_SOCKET",
			  path);
		break;
	case EACCES:
	case EPERM:
		cli_error("no permission for %s: ask for access to the daemon's socket, or be "
			  "root",
			  path);
		break;
	default:
		cli_error("cannot connect to %s: %s", path, strerror(-error));
	}
}

int client_ask(const char *path, enum uhmm_request request, int32_t pid, uint64_t bytes,
	       uint32_t flags, char **ret_text, struct uhmm_msg_done *ret_done)
{
	const struct timeval for_ever = { 0 };
	struct uhmm_msg_hello hello;
	int fd;
	int error = client_connect(path, &fd);

	if (error) {
		client_explain_connect(path, error);
		return error;
	}
	/* Gigabytes take their time on a slow tier; a person waits, and has ^C. */
	if (request == UHMM_REQ_EVICT || request == UHMM_REQ_RESTORE)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &for_ever, sizeof(for_ever));
	hello_init(&hello, UHMM_ROLE_ADMIN);
	error = packet_send(fd, &hello.h);
	if (!error)
		error = client_request(fd, request, pid, bytes, flags, ret_text, ret_done);
	(void)close(fd);
	if (error == -ECONNREFUSED)
		cli_error("the daemon at %s refused: %s", path, ret_done->text);
	else if (error)
		cli_error("the daemon at %s did not answer properly: %s", path, strerror(-error));
	return error;
}
