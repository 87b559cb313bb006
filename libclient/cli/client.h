/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A connection to uhmmd in the roles `admin` and `runner` (see uhmm/wire.h). */
#ifndef UHMM_CLI_CLIENT_H
#define UHMM_CLI_CLIENT_H

#include <stdint.h>

#include <uhmm/wire.h>

struct json_object;

/*
 * Connect; the descriptor is close-on-exec and gives up on an answer after half a
 * minute. -ENOENT or -ECONNREFUSED: nobody listens there. Says nothing.
 */
int client_connect(const char *path, int *ret_fd);

/*
 * Say HELLO as a runner and wait for the answer. -ECONNREFUSED: the daemon refused, and
 * ret_refuse says why.
 */
int client_hello_runner(int fd, const uint8_t group[static UHMM_TOKEN_BYTES],
			uint64_t host_target_bytes, struct uhmm_msg_refuse *ret_refuse);

/*
 * One request. *ret_text (NULL: not wanted) is all TEXT joined and terminated, the
 * caller's to free. 0 when the daemon answered, whatever ret_done->error says;
 * -ECONNREFUSED: REFUSE came instead, its text is in ret_done->text.
 */
int client_request(int fd, enum uhmm_request request, int32_t pid, uint64_t bytes, uint32_t flags,
		   char **ret_text, struct uhmm_msg_done *ret_done);

/* As client_request for what answers with a JSON object; the caller puts it. Says nothing. */
int client_request_json(int fd, enum uhmm_request request, struct json_object **ret_json);

/*
 * Does a daemon answer there? A socket unit takes connections for one that cannot start. 0;
 * -ETIMEDOUT or -ECONNRESET: nobody does; -EHOSTDOWN: somebody refuses, and *ret_done says why;
 * or as client_connect. Says nothing.
 */
int client_answers(const char *path, struct uhmm_msg_done *ret_done);

/* Connect as admin, ask, close. Prints what went wrong. */
int client_ask(const char *path, enum uhmm_request request, int32_t pid, uint64_t bytes,
	       uint32_t flags, char **ret_text, struct uhmm_msg_done *ret_done);

/* Why client_connect failed and what to do about it; one line. */
void client_explain_connect(const char *path, int error);

#endif
