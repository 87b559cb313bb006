/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client's connection, on the control thread. conn.c speaks the protocol; enrol.c is what a
 * program says, request.c what an administrator or a runner asks.
 */
#ifndef UHMMD_CONN_H
#define UHMMD_CONN_H

#include "control.h"
#include "loop.h"
#include "space.h"
#include "uhmm/wire.h"

enum conn_state {
	CONN_NEW = 0,	/* nothing said yet */
	CONN_RETURNING, /* agent: it shows the children that it keeps */
	CONN_WELCOMED,	/* program or child: ENROL is expected */
	CONN_ATTACHING, /* child: its worker is at it */
	CONN_AGENT,	/* the socket is the agent's; nothing is expected from it */
	CONN_ASKING,	/* admin or runner */
	CONN_LINGERING, /* closed; its space is not gone yet */
};

struct conn {
	struct list link;
	struct loop_source source;
	uint64_t id;
	uint64_t made_ns;
	int fd; /* the space has a duplicate */
	enum conn_state state;
	enum uhmm_role role;
	pid_t pid;
	uid_t uid;
	gid_t gid;
	struct space *space; /* a reference */
	uint32_t agent_gen;  /* which of its agents this is */
	struct group *group; /* a reference; runner */
	int ring_fd;	     /* welcomed child: until its worker takes it over */
	struct uhmm_ring *ring;
	int uffd;	     /* that an agent brings back; -1 */
	struct comeback *comeback; /* and the children that it kept; heap */
};

struct control {
	struct control_params params;
	struct loop loop;
	struct loop_source listener, signals, completions, lifeline;
	struct list conns;
	uint64_t next_conn_id;
	int userfaultfd_dev;
	bool leaving;	 /* private: end when nobody needs us */
	bool stopping;	 /* bring everything home and end */
	unsigned int n_quits; /* workers that have not yet said that all is home */
	uint64_t said_ns; /* when the wait for pages was last mentioned */
};

/* Send REFUSE and close. */
void conn_refuse(struct control *control, struct conn *conn, enum uhmm_reason reason,
		 const char *text);
/* Drop a client that broke the protocol, with one line on the log. */
void conn_drop(struct control *control, struct conn *conn, const char *why);
void conn_close(struct control *control, struct conn *conn);
int conn_send(struct conn *conn, const void *msg, size_t len, const int *fds, size_t n_fds);

/* enrol.c */
void enrol_hello(struct control *control, struct conn *conn, const struct uhmm_msg_hello *hello);
void enrol_return(struct control *control, struct conn *conn, const struct uhmm_msg_hello *hello,
		  int *uffd);
void enrol_return_child(struct control *control, struct conn *conn,
			const struct uhmm_msg_child *msg, int *uffd);
void enrol_program(struct control *control, struct conn *conn, const struct uhmm_msg_enrol *msg,
		   int *uffd);
void enrol_attached(struct control *control, struct conn *conn, const struct mail *mail);
void enrol_agent_eof(struct conn *conn);

/* request.c */
void request_hello(struct control *control, struct conn *conn, const struct uhmm_msg_hello *hello);
void request_serve(struct control *control, struct conn *conn,
		   const struct uhmm_msg_request *request);
void request_done(struct control *control, struct conn *conn, const struct mail *mail);

#endif
