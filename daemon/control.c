/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control thread: accepts clients, reads their packets, checks them (wire.c) and hands
 * them to enrol.c and request.c; takes the workers' answers; keeps time; ends the daemon when
 * all is home. It never touches a program's pages and waits for nobody: a client that does not
 * read its answers is dropped.
 */
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "adopt.h"
#include "agent.h"
#include "announce.h"
#include "config.h"
#include "conn.h"
#include "log.h"
#include "survey.h"
#include "uffd.h"
#include "wire.h"

#define TICK_NS 20000000u
/* A client that says nothing, or stops in the middle of enrolment, is dropped after this. */
#define HANDSHAKE_NS 10000000000u
#define SAY_NS 5000000000u

static struct control control_state;

/* ---- answers of workers ----------------------------------------------------------------- */

static pthread_mutex_t completions_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list completions = LIST_INIT(completions);
static int completions_efd = -1;

void control_complete(struct mail *mail)
{
	uint64_t one = 1;

	if (mail->done) {
		mail->done(mail);
		return;
	}
	pthread_mutex_lock(&completions_lock);
	list_add_tail(&completions, &mail->link);
	pthread_mutex_unlock(&completions_lock);
	(void)!write(completions_efd, &one, sizeof(one));
}

static struct mail *completions_next(void)
{
	struct mail *mail = NULL;

	pthread_mutex_lock(&completions_lock);
	if (!list_empty(&completions)) {
		mail = list_entry(completions.next, struct mail, link);
		list_del(&mail->link);
	}
	pthread_mutex_unlock(&completions_lock);
	return mail;
}

static struct conn *conn_find(struct control *control, uint64_t id)
{
	struct list *pos;

	list_for_each(pos, &control->conns) {
		struct conn *conn = list_entry(pos, struct conn, link);

		if (conn->id == id)
			return conn;
	}
	return NULL;
}

static void mail_free(struct mail *mail)
{
	if (mail->type == MAIL_AGENT) {
		if (mail->attach.ring)
			munmap(mail->attach.ring, sizeof(*mail->attach.ring));
		if (mail->attach.ring_fd >= 0)
			close(mail->attach.ring_fd);
		if (mail->attach.sock >= 0)
			close(mail->attach.sock);
	}
	free(mail->where);
	survey_free(mail->survey);
	free(mail);
}

static void on_completions(struct loop_source *source)
{
	struct control *control = &control_state;
	struct mail *mail;
	uint64_t count;

	(void)!read(source->fd, &count, sizeof(count));
	while ((mail = completions_next())) {
		struct conn *conn = conn_find(control, mail->conn_id);

		if (mail->type == MAIL_QUIT)
			control->n_quits--;
		else if (conn && mail->type == MAIL_AGENT)
			enrol_attached(control, conn, mail);
		else if (conn)
			request_done(control, conn, mail);
		mail_free(mail);
	}
}

/* ---- connections ------------------------------------------------------------------------ */

static void conn_free(struct loop_source *source)
{
	struct conn *conn = list_entry(source, struct conn, source);

	close(conn->fd);
	if (conn->ring)
		munmap(conn->ring, sizeof(*conn->ring));
	if (conn->ring_fd >= 0)
		close(conn->ring_fd);
	if (conn->uffd >= 0)
		close(conn->uffd);
	for (uint32_t i = 0; conn->comeback && i < conn->comeback->n_children; i++)
		close(conn->comeback->children[i].uffd);
	free(conn->comeback);
	group_put(conn->group);
	space_unref(conn->space);
	free(conn);
}

void conn_close(struct control *control, struct conn *conn)
{
	list_del(&conn->link);
	if (conn->source.removed && !conn->source.armed)
		conn_free(&conn->source);
	else
		loop_remove(&control->loop, &conn->source, conn_free);
}

int conn_send(struct conn *conn, const void *msg, size_t len, const int *fds, size_t n_fds)
{
	int err = wire_send(conn->fd, msg, len, fds, n_fds, MSG_DONTWAIT);

	/* It does not read, or has gone: the hang-up is handled where it is polled. */
	if (err < 0)
		(void)shutdown(conn->fd, SHUT_RDWR);
	return err;
}

void conn_refuse(struct control *control, struct conn *conn, enum uhmm_reason reason,
		 const char *text)
{
	struct uhmm_msg_refuse refuse = {
		.h = { .type = UHMM_MSG_REFUSE, .len = sizeof(refuse) },
		.reason = reason,
	};

	strncpy(refuse.text, text, sizeof(refuse.text) - 1);
	log_info("pid %d (uid %u): refused (%s): %s", conn->pid, conn->uid,
		 uhmm_reason_name(reason), text);
	(void)conn_send(conn, &refuse, sizeof(refuse), NULL, 0);
	conn_close(control, conn);
}

void conn_drop(struct control *control, struct conn *conn, const char *why)
{
	log_warn("pid %d (uid %u): dropped: %s", conn->pid, conn->uid, why);
	conn_close(control, conn);
}

static enum uhmm_msg_type conn_expects(const struct conn *conn)
{
	switch (conn->state) {
	case CONN_NEW:
		return UHMM_MSG_HELLO;
	case CONN_RETURNING:
		return UHMM_MSG_CHILD;
	case CONN_WELCOMED:
		return UHMM_MSG_ENROL;
	case CONN_ASKING:
		return UHMM_MSG_REQUEST;
	case CONN_ATTACHING:
	case CONN_AGENT:
	case CONN_LINGERING:
		break;
	}
	return UHMM_MSG_QUIT; /* that is: nothing */
}

static void conn_on_hello(struct control *control, struct conn *conn,
			  const struct uhmm_msg_hello *hello, int *fds)
{
	conn->role = (enum uhmm_role)hello->role;
	if (conn->role == UHMM_ROLE_PROGRAM || conn->role == UHMM_ROLE_CHILD)
		enrol_hello(control, conn, hello);
	else if (conn->role == UHMM_ROLE_AGENT)
		enrol_return(control, conn, hello, fds);
	else
		request_hello(control, conn, hello);
}

static void conn_on_enrol(struct control *control, struct conn *conn,
			  const struct uhmm_msg_enrol *msg, int *fds, size_t n_fds)
{
	const struct wire_terms terms = {
		.role = conn->role,
		.page_bytes = conn->space->page_size,
		.ring_bytes = sizeof(struct uhmm_ring),
		.staging_bytes = conn->space->n_batches * BATCH_PAGES_MAX * conn->space->page_size,
	};
	const char *why;

	if (wire_check_enrol(msg, n_fds, &terms, &why) < 0)
		conn_drop(control, conn, why);
	else
		enrol_program(control, conn, msg, fds);
}

static void conn_on_eof(struct control *control, struct conn *conn)
{
	if (conn->state == CONN_AGENT || conn->state == CONN_ATTACHING) {
		/* No more polling; the connection waits for its space to end, or for its worker. */
		conn->source.removed = true;
		conn->source.gone = NULL;
		if (conn->state == CONN_AGENT)
			enrol_agent_eof(conn);
		return;
	}
	if (conn->state == CONN_WELCOMED)
		log_debug("pid %d: left during enrolment", conn->pid);
	conn_close(control, conn);
}

static void conn_on_message(struct control *control, struct conn *conn, const void *buf, size_t len,
			    int *fds, size_t n_fds)
{
	const char *why = "a message that was not expected";
	enum uhmm_msg_type expected = conn_expects(conn);
	int err;

	if (conn->state == CONN_AGENT) {
		log_warn("pid %d (uid %u): its agent speaks out of turn: dismissed", conn->pid,
			 conn->uid);
		(void)shutdown(conn->fd, SHUT_RDWR);
		conn_on_eof(control, conn);
		return;
	}

	err = expected == UHMM_MSG_QUIT ? -EPROTO
					: wire_check(buf, len, n_fds, expected, &why);

	if (err == -EPROTONOSUPPORT) {
		conn_refuse(control, conn, UHMM_REASON_VERSION, why);
		return;
	}
	if (err < 0) {
		conn_drop(control, conn, why);
		return;
	}
	if (expected == UHMM_MSG_HELLO)
		conn_on_hello(control, conn, buf, fds);
	else if (expected == UHMM_MSG_CHILD)
		enrol_return_child(control, conn, buf, fds);
	else if (expected == UHMM_MSG_ENROL)
		conn_on_enrol(control, conn, buf, fds, n_fds);
	else
		request_serve(control, conn, buf);
}

static void on_conn(struct loop_source *source)
{
	struct control *control = &control_state;
	struct conn *conn = list_entry(source, struct conn, source);
	static char buf[UHMM_MSG_MAX] __attribute__((aligned(8)));
	int fds[UHMM_MSG_FDS_MAX];
	size_t len = 0, n_fds = 0;
	int err = wire_recv(conn->fd, buf, sizeof(buf), &len, fds, &n_fds);

	if (err == -EAGAIN || err == -EINTR)
		return;
	if (err == -EMSGSIZE || err == -ETOOMANYREFS) {
		conn_drop(control, conn, "a message that is too long, or with too many descriptors");
		return;
	}
	if (err < 0 || len == 0) {
		conn_on_eof(control, conn);
		return;
	}
	conn_on_message(control, conn, buf, len, fds, n_fds);
	for (size_t i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void on_listener(struct loop_source *source)
{
	struct control *control = &control_state;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct conn *conn;

	if (fd < 0)
		return;
	conn = calloc(1, sizeof(*conn));
	if (!conn || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
		free(conn);
		close(fd);
		return;
	}
	conn->fd = fd;
	conn->ring_fd = conn->uffd = -1;
	conn->id = ++control->next_conn_id;
	conn->made_ns = clock_now_ns();
	conn->pid = cred.pid;
	conn->uid = cred.uid;
	conn->gid = cred.gid;
	list_add_tail(&control->conns, &conn->link);
	if (loop_add(&control->loop, &conn->source, fd, on_conn) < 0) {
		list_del(&conn->link);
		conn_free(&conn->source);
	}
}

/* ---- time, and the end ------------------------------------------------------------------ */

/* Spaces whose agent has gone and that have no worker to notice the end of the process. */
static bool space_has_ended(struct space *space)
{
	bool has_worker;

	if (space_get_state(space) == SPACE_DEAD)
		return true;
	registry_lock();
	has_worker = space->worker_started;
	registry_unlock();
	return !has_worker && uffd_alive(space->uffd) == UFFD_GONE;
}

static void control_sweep(struct control *control)
{
	uint64_t now_ns = clock_now_ns();
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &control->conns) {
		struct conn *conn = list_entry(pos, struct conn, link);

		if (conn->state == CONN_LINGERING && space_has_ended(conn->space))
			conn_close(control, conn);
		else if ((conn->state == CONN_NEW || conn->state == CONN_RETURNING ||
			  conn->state == CONN_WELCOMED) &&
			 now_ns - conn->made_ns > HANDSHAKE_NS)
			conn_drop(control, conn, "silent during the handshake");
	}
}

/* Does any process still need us? One whose memory is all home does not. */
static bool control_is_needed(uint64_t *ret_pages)
{
	uint64_t pages = 0;
	bool needed = false;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		const struct space *space = list_entry(pos, struct space, link);

		if (space_get_state(space) == SPACE_DEAD)
			continue;
		pages += stats_get(&space->tier_pages);
		/* Of one that has not come back nobody knows what is registered. */
		needed |= stats_get(&space->tier_pages) != 0 ||
			  stats_get(&space->registered_bytes) != 0 ||
			  (__atomic_load_n(&space->orphan, __ATOMIC_ACQUIRE) &&
			   !space->unit->has_shared);
	}
	/* Shared memory too. */
	list_for_each(pos, &registry_groups)
		needed |= __atomic_load_n(&list_entry(pos, struct group, link)->tier_pages,
					  __ATOMIC_RELAXED) > 0;
	registry_unlock();
	*ret_pages = pages;
	return needed;
}

/* Everything comes home, and nothing leaves any more; also of children born since the last call. */
static void control_send_home(struct control *control)
{
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);
		struct mail *mail;

		__atomic_store_n(&space->hold, true, __ATOMIC_RELAXED);
		/* Without a worker there is nothing away, and now none will start. */
		if (!space->worker_started || space->told_to_quit ||
		    space_get_state(space) == SPACE_DEAD)
			continue;
		mail = calloc(1, sizeof(*mail));
		if (!mail)
			continue;
		space->told_to_quit = true;
		list_init(&mail->link);
		mail->type = MAIL_QUIT;
		control->n_quits++;
		space_post_started(space, mail);
	}
	registry_unlock();
}

/* ---- what cannot be served -------------------------------------------------------------- */

static pthread_mutex_t stranded_lock = PTHREAD_MUTEX_INITIALIZER;
static int *stranded;
static size_t n_stranded, stranded_cap;

void control_keep_stranded(int uffd)
{
	int *more;

	pthread_mutex_lock(&stranded_lock);
	if (n_stranded == stranded_cap) {
		more = realloc(stranded, (stranded_cap + 16) * sizeof(*more));
		if (more) {
			stranded = more;
			stranded_cap += 16;
		}
	}
	/* One that cannot be remembered stays open until the daemon ends. */
	if (n_stranded < stranded_cap)
		stranded[n_stranded++] = uffd;
	pthread_mutex_unlock(&stranded_lock);
}

static void control_sweep_stranded(void)
{
	pthread_mutex_lock(&stranded_lock);
	for (size_t i = 0; i < n_stranded;) {
		if (uffd_alive(stranded[i]) != UFFD_GONE) {
			i++;
			continue;
		}
		close(stranded[i]);
		stranded[i] = stranded[--n_stranded];
	}
	pthread_mutex_unlock(&stranded_lock);
}

static void control_tick(void *data)
{
	struct control *control = data;
	uint64_t pages;

	control_sweep(control);
	adopt_sweep();
	announce_tick(control->stopping);
	control_sweep_stranded();
	if (!control->stopping && !control->leaving)
		return;
	if (control->stopping)
		control_send_home(control);
	if (!control_is_needed(&pages)) {
		/* Make sure that it stays so, then end. */
		if (!control->stopping) {
			control->stopping = true;
			control_send_home(control);
		} else if (control->n_quits == 0) {
			control->loop.stop = true;
		}
		return;
	}
	if (control->stopping && clock_now_ns() - control->said_ns > SAY_NS) {
		control->said_ns = clock_now_ns();
		log_info("stopping: %llu pages are still away", (unsigned long long)pages);
	}
}

/* The agents keep userfaultfds alive for a daemon that comes back; this one does not. */
static void control_dismiss_agents(void)
{
	struct agent_view view;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (agent_view(space, &view))
			(void)agent_dismiss(space, view.gen, UHMM_REASON_BUSY, true);
	}
	registry_unlock();
}

static void on_signal(struct loop_source *source)
{
	struct control *control = &control_state;
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (!control->stopping) {
		log_info("signal %u: bringing all pages home", info.ssi_signo);
		control->stopping = true;
		control->said_ns = clock_now_ns();
		control_send_home(control);
	}
}

static void on_lifeline(struct loop_source *source)
{
	struct control *control = &control_state;
	char byte;

	if (read(source->fd, &byte, 1) > 0)
		return;
	control->leaving = true;
	loop_remove(&control->loop, source, NULL);
}

static int control_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int control_run(const struct control_params *params)
{
	struct control *control = &control_state;
	int signal_fd, err;

	control->params = *params;
	list_init(&control->conns);
	control->userfaultfd_dev = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	if (control->userfaultfd_dev < 0)
		return -errno;
	completions_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	signal_fd = control_signals();
	if (completions_efd < 0 || signal_fd < 0)
		return -errno;
	err = loop_init(&control->loop, TICK_NS, control_tick, control);
	if (err < 0)
		return err;
	err = loop_add(&control->loop, &control->listener, params->listen_fd, on_listener);
	if (err == 0)
		err = loop_add(&control->loop, &control->signals, signal_fd, on_signal);
	if (err == 0)
		err = loop_add(&control->loop, &control->completions, completions_efd,
			       on_completions);
	if (err == 0 && params->lifeline_fd >= 0)
		err = loop_add(&control->loop, &control->lifeline, params->lifeline_fd,
			       on_lifeline);
	if (err == 0)
		err = loop_run(&control->loop);
	control_dismiss_agents();
	loop_deinit(&control->loop);
	return err;
}
