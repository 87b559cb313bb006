/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What administrators, runners and the C library ask for. On the control thread: requests that
 * need a worker become mail, everything else is answered at once.
 *
 * Who may what: root everything; others see and move processes of their own uid only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent.h"
#include "config.h"
#include "conn.h"
#include "status.h"
#include "uffd.h"

#define REQUEST_TEXT_MAX 32768u
/* Pages that one QUERY may ask for. */
#define REQUEST_QUERY_MAX (16u << 20)

static void request_answer(struct conn *conn, int error, uint64_t pages, const char *text)
{
	struct uhmm_msg_done done = {
		.h = { .type = UHMM_MSG_DONE, .len = sizeof(done) },
		.error = error,
		.pages = pages,
	};

	snprintf(done.text, sizeof(done.text), "%s", text);
	(void)conn_send(conn, &done, sizeof(done), NULL, 0);
}

static int request_send_text(struct conn *conn, const void *text, size_t len)
{
	char buf[sizeof(struct uhmm_msg) + REQUEST_TEXT_MAX];
	int err = 0;

	for (size_t at = 0; at < len && err == 0;) {
		size_t n = len - at < REQUEST_TEXT_MAX ? len - at : REQUEST_TEXT_MAX;
		struct uhmm_msg head = { .type = UHMM_MSG_TEXT,
					 .len = (uint32_t)(sizeof(head) + n) };

		memcpy(buf, &head, sizeof(head));
		memcpy(buf + sizeof(head), (const char *)text + at, n);
		err = conn_send(conn, buf, sizeof(head) + n, NULL, 0);
		at += n;
	}
	return err;
}

static void request_json(struct conn *conn, char *json)
{
	if (!json) {
		request_answer(conn, -ENOMEM, 0, "no memory");
		return;
	}
	if (request_send_text(conn, json, strlen(json)) == 0)
		request_answer(conn, 0, 0, "");
	free(json);
}

void request_hello(struct control *control, struct conn *conn, const struct uhmm_msg_hello *hello)
{
	struct uhmm_msg ready = { .type = UHMM_MSG_READY, .len = sizeof(ready) };
	const struct config *config = control->params.env->config;
	int big = 64 << 20;

	/* Answers are sent without waiting: a reader that is slow must not stop anybody. */
	(void)setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
	if (conn->role == UHMM_ROLE_RUNNER) {
		if (control->params.private_daemon &&
		    memcmp(hello->group, config->group, UHMM_TOKEN_BYTES) != 0) {
			conn_refuse(control, conn, UHMM_REASON_POLICY,
				    "this daemon is another command's own");
			return;
		}
		conn->group = group_get(hello->group, conn->uid, GROUP_SECRET, true);
		if (!conn->group || (conn->group->uid != conn->uid && conn->uid != 0)) {
			conn_refuse(control, conn, UHMM_REASON_POLICY, "this group is another's");
			return;
		}
		__atomic_store_n(&conn->group->target_pages,
				 (hello->host_target_bytes ? hello->host_target_bytes
							   : config->host_ram) /
					 control->params.env->page_size,
				 __ATOMIC_RELAXED);
	}
	conn->state = CONN_ASKING;
	if (conn->role == UHMM_ROLE_RUNNER)
		(void)conn_send(conn, &ready, sizeof(ready), NULL, 0);
}

/* The space that a request is about, if the client may ask. */
static struct space *request_space(struct conn *conn, const struct uhmm_msg_request *request,
				   bool own)
{
	struct space *space = space_find_pid(own ? conn->pid : request->pid);

	if (!space) {
		request_answer(conn, -ESRCH, 0, own ? "this process is not managed"
						    : "no managed process has this pid");
		return NULL;
	}
	if (!own && conn->uid != 0 && conn->uid != space_uid(space)) {
		request_answer(conn, -EPERM, 0, "this process is another user's");
		space_unref(space);
		return NULL;
	}
	return space;
}

static bool request_fill_query(struct conn *conn, const struct uhmm_msg_request *request,
			       const struct space *space, struct mail *mail)
{
	uint64_t end = request->addr + request->bytes;

	if (request->bytes == 0 || end < request->addr ||
	    request->bytes / space->page_size > REQUEST_QUERY_MAX) {
		request_answer(conn, -EINVAL, 0, "no such range");
		return false;
	}
	mail->n_where = (size_t)(space_pgidx(space, end - 1) - space_pgidx(space, request->addr) + 1);
	mail->where = calloc(mail->n_where, 1);
	if (!mail->where)
		request_answer(conn, -ENOMEM, 0, "no memory");
	return mail->where != NULL;
}

static void request_post(struct control *control, struct conn *conn,
			 const struct uhmm_msg_request *request, enum mail_type type, bool own)
{
	struct space *space;
	struct mail *mail;

	/* A worker that is started now would not be told to bring everything home. */
	if (control->stopping) {
		request_answer(conn, -EBUSY, 0, "the daemon is stopping");
		return;
	}
	space = request_space(conn, request, own);
	if (!space)
		return;
	mail = calloc(1, sizeof(*mail));
	if (!mail) {
		request_answer(conn, -ENOMEM, 0, "no memory");
		space_unref(space);
		return;
	}
	mail->type = type;
	mail->conn_id = conn->id;
	mail->addr = request->addr;
	mail->bytes = request->bytes;
	mail->home = request->flags & UHMM_REQ_FLAG_HOME;
	mail->hold = request->flags & UHMM_REQ_FLAG_HOLD;
	mail->release = request->flags & UHMM_REQ_FLAG_RELEASE;
	list_init(&mail->link);
	if ((type == MAIL_MIGRATE && (mail->bytes == 0 || mail->addr + mail->bytes < mail->addr)) ||
	    (type == MAIL_QUERY && !request_fill_query(conn, request, space, mail))) {
		if (type == MAIL_MIGRATE)
			request_answer(conn, -EINVAL, 0, "no such range");
		free(mail);
	} else {
		space_post(space, mail);
	}
	space_unref(space);
}

static void request_agent_quit(struct control *control, struct conn *conn,
			       const struct uhmm_msg_request *request)
{
	struct space *space = request_space(conn, request, true);
	struct agent_view view;

	if (!space)
		return;
	if (agent_view(space, &view))
		(void)agent_dismiss(space, view.gen, UHMM_REASON_NO_AGENT, true);
	space_unref(space);
	if (request->flags & UHMM_REQ_FLAG_HOME)
		request_post(control, conn, request, MAIL_RESTORE, true);
	else
		request_answer(conn, 0, 0, "");
}

static void request_report(struct control *control, struct conn *conn)
{
	if (!conn->group) {
		request_answer(conn, -EINVAL, 0, "only a runner has a report");
		return;
	}
	request_json(conn, status_report_json(control->params.env, conn->group));
}

void request_serve(struct control *control, struct conn *conn,
		   const struct uhmm_msg_request *request)
{
	switch ((enum uhmm_request)request->request) {
	case UHMM_REQ_STATUS:
		request_json(conn, status_json(control->params.env, conn->uid));
		return;
	case UHMM_REQ_TIERS:
		request_json(conn, status_tiers_json(control->params.env));
		return;
	case UHMM_REQ_REPORT:
		request_report(control, conn);
		return;
	case UHMM_REQ_EVICT:
		request_post(control, conn, request, MAIL_EVICT, false);
		return;
	case UHMM_REQ_RESTORE:
		request_post(control, conn, request, MAIL_RESTORE, false);
		return;
	case UHMM_REQ_MIGRATE:
		request_post(control, conn, request, MAIL_MIGRATE, true);
		return;
	case UHMM_REQ_QUERY:
		request_post(control, conn, request, MAIL_QUERY, true);
		return;
	case UHMM_REQ_MAPS:
		request_post(control, conn, request, MAIL_MAPS, false);
		return;
	case UHMM_REQ_AGENT_QUIT:
		request_agent_quit(control, conn, request);
		return;
	}
	conn_drop(control, conn, "unknown request");
}

void request_done(struct control *control, struct conn *conn, const struct mail *mail)
{
	const char *why = mail->error == -ESRCH	     ? "the process has ended"
			  : mail->error == -ENOTCONN ? "the process has no agent (see status)"
			  : mail->error == -EBUSY    ? "the process is held in host RAM"
			  : mail->error == -EAGAIN   ? "too many requests wait for the process"
			  : mail->error < 0	     ? strerror(-mail->error)
						     : "";

	if (mail->error == 0 && mail->survey) {
		request_json(conn, status_maps_json(control->params.env, mail->survey));
		return;
	}
	if (mail->error == 0 && mail->where &&
	    request_send_text(conn, mail->where, mail->n_where) < 0)
		return;
	request_answer(conn, mail->error, mail->pages, why);
}
