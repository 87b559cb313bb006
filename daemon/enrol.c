/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Enrolment, on the control thread: who may, with what, and is the userfaultfd really that
 * process's. Nothing of the program is registered here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "config.h"
#include "conn.h"
#include "log.h"
#include "uffd.h"
#include "wire.h"

/* ---- HELLO ------------------------------------------------------------------------------ */

static bool enrol_allowed(struct control *control, struct conn *conn,
			  const struct uhmm_msg_hello *hello)
{
	const struct config *config = control->params.env->config;
	unsigned int of_uid, all = space_count(conn->uid, &of_uid);
	char why[200];

	/* A child that was born with pages away must be known, to bring them home. */
	if (control->stopping && hello->role != UHMM_ROLE_CHILD) {
		conn_refuse(control, conn, UHMM_REASON_BUSY, "the daemon is stopping");
		return false;
	}
	if (control->params.private_daemon) {
		/* Whoever has the command's token is of its tree, whatever its uid is now. */
		if (memcmp(hello->group, config->group, UHMM_TOKEN_BYTES) == 0)
			return true;
		conn_refuse(control, conn, UHMM_REASON_POLICY,
			    "this daemon is another command's own");
		return false;
	}
	if (!config_policy_allows(config, conn->uid, conn->gid, why, sizeof(why))) {
		conn_refuse(control, conn, UHMM_REASON_POLICY, why);
		return false;
	}
	if (all >= config->max_spaces || of_uid >= config->max_spaces_per_uid) {
		conn_refuse(control, conn, UHMM_REASON_LIMIT, "too many processes are managed");
		return false;
	}
	return true;
}

/* A ring: a memfd that nobody can shrink under us. */
static int enrol_make_ring(int *ret_fd, struct uhmm_ring **ret_ring)
{
	int fd = memfd_create("uhmm-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct uhmm_ring *ring;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(*ring)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		close(fd);
		return -EIO;
	}
	ring = mmap(NULL, sizeof(*ring), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	ring->magic = UHMM_WIRE_MAGIC;
	*ret_fd = fd;
	*ret_ring = ring;
	return 0;
}

static int enrol_welcome(struct control *control, struct conn *conn, int uffd)
{
	const struct config *config = control->params.env->config;
	struct uhmm_msg_welcome welcome = {
		.h = { .type = UHMM_MSG_WELCOME, .len = sizeof(welcome) },
		.space_id = conn->space->id,
		.ring_bytes = sizeof(struct uhmm_ring),
		.staging_chunk_bytes = (uint32_t)(BATCH_PAGES_MAX * conn->space->page_size),
		.n_staging_chunks = config->n_staging_chunks,
	};
	int fds[3] = { uffd, conn->ring_fd, conn->space->agent_efd };

	memcpy(welcome.token, conn->space->token, UHMM_TOKEN_BYTES);
	return conn_send(conn, &welcome, sizeof(welcome), fds, 3);
}

/* The runner's, the unit's, or the one of the user's programs that name neither. */
static struct group *enrol_group(const struct daemon_env *env, const struct conn *conn,
				 const struct uhmm_msg_hello *hello)
{
	static const uint8_t none[UHMM_TOKEN_BYTES];
	bool of_unit = hello->host_target_bytes != 0;
	uint64_t target_bytes = of_unit ? hello->host_target_bytes : env->config->host_ram;
	struct group *group;

	group = group_get(hello->group, conn->uid, of_unit ? GROUP_OF_UID : GROUP_SECRET, of_unit);
	if (group && !of_unit)
		return group; /* the runner has said what its target is */
	if (!group)
		group = group_get(none, conn->uid, GROUP_OF_UID, true);
	if (group)
		__atomic_store_n(&group->target_pages, target_bytes / env->page_size,
				 __ATOMIC_RELAXED);
	return group;
}

static int enrol_new_space(struct control *control, struct conn *conn,
			   const struct uhmm_msg_hello *hello)
{
	struct group *group = enrol_group(control->params.env, conn, hello);
	int err;

	if (!group)
		return -ENOMEM;
	err = space_new(control->params.env, group, -1, &conn->space);
	group_put(group);
	return err;
}

void enrol_hello(struct control *control, struct conn *conn, const struct uhmm_msg_hello *hello)
{
	int err, uffd = control->userfaultfd_dev;

	if (!enrol_allowed(control, conn, hello))
		return;
	if (conn->role == UHMM_ROLE_CHILD) {
		conn->space = space_find_token(hello->token);
		if (!conn->space ||
		    (__atomic_load_n(&conn->space->identified, __ATOMIC_ACQUIRE) &&
		     space_pid(conn->space) != conn->pid)) {
			conn_refuse(control, conn, UHMM_REASON_PROTOCOL, "no such token");
			return;
		}
		if (space_get_state(conn->space) == SPACE_ENROLLING) {
			conn_refuse(control, conn, UHMM_REASON_BUSY, "it is being taken over");
			return;
		}
		uffd = conn->space->uffd;
		err = 0;
	} else {
		err = enrol_new_space(control, conn, hello);
	}
	if (err == 0)
		err = enrol_make_ring(&conn->ring_fd, &conn->ring);
	if (err < 0) {
		log_warn("pid %d: cannot enrol: %s", conn->pid, strerror(-err));
		conn_refuse(control, conn, UHMM_REASON_LIMIT, "the daemon has no room");
		return;
	}
	conn->state = CONN_WELCOMED;
	(void)enrol_welcome(control, conn, uffd);
}

/* ---- an agent that comes back ------------------------------------------------------------ */

/* Is that its space? An orphan's process is known, though its number may be another's by now;
 * its agent's uid never changes. Another has lost its agent meanwhile. */
static bool may_return(const struct conn *conn, const struct space *space)
{
	if (__atomic_load_n(&space->orphan, __ATOMIC_ACQUIRE))
		return space->pid == conn->pid && space->uid == conn->uid;
	return space_get_state(space) == SPACE_SERVING && !space_has_agent(space) &&
	       (!__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
		space_pid(space) == conn->pid);
}

/* Is another connection at it? Each holds many descriptors. */
static bool is_returning(const struct control *control, const struct space *space)
{
	const struct list *pos;

	list_for_each(pos, &control->conns) {
		const struct conn *conn = list_entry(pos, struct conn, link);

		if (conn->space == space && conn->comeback)
			return true;
	}
	return false;
}

void enrol_return(struct control *control, struct conn *conn, const struct uhmm_msg_hello *hello,
		  int *uffd)
{
	struct space *space = space_find_token(hello->token);

	conn->space = space;
	/* What an orphan has out must come home first. */
	if (control->stopping && !(space && space->orphan)) {
		conn_refuse(control, conn, UHMM_REASON_BUSY, "the daemon is stopping");
		return;
	}
	if (!space || !may_return(conn, space)) {
		conn_refuse(control, conn, UHMM_REASON_PROTOCOL, "no such token");
		return;
	}
	if (space->orphan && space->unit->has_shared) {
		conn_refuse(control, conn, UHMM_REASON_SHARED,
			    "its shared memory cannot be taken over");
		return;
	}
	if (is_returning(control, space)) {
		conn_refuse(control, conn, UHMM_REASON_BUSY, "its agent is coming back already");
		return;
	}
	if (!uffd_is_used(*uffd)) {
		conn_refuse(control, conn, UHMM_REASON_PROTOCOL, "not a userfaultfd in use");
		return;
	}
	conn->comeback = calloc(1, sizeof(*conn->comeback));
	if (!conn->comeback) {
		conn_refuse(control, conn, UHMM_REASON_BUSY, "the daemon has no memory");
		return;
	}
	conn->uffd = *uffd;
	*uffd = -1;
	conn->state = CONN_RETURNING;
}

/* All children are known: the new ring. */
static void return_welcome(struct control *control, struct conn *conn)
{
	const struct config *config = control->params.env->config;
	struct uhmm_msg_welcome welcome = {
		.h = { .type = UHMM_MSG_WELCOME, .len = sizeof(welcome) },
		.space_id = conn->space->id,
		.ring_bytes = sizeof(struct uhmm_ring),
		.staging_chunk_bytes = (uint32_t)(BATCH_PAGES_MAX * conn->space->page_size),
		.n_staging_chunks = config->n_staging_chunks,
	};
	int fds[2] = { -1, conn->space->agent_efd };

	memcpy(welcome.token, conn->space->token, UHMM_TOKEN_BYTES);
	if (enrol_make_ring(&conn->ring_fd, &conn->ring) < 0) {
		conn_refuse(control, conn, UHMM_REASON_BUSY, "the daemon has no room");
		return;
	}
	fds[0] = conn->ring_fd;
	conn->state = CONN_WELCOMED;
	(void)conn_send(conn, &welcome, sizeof(welcome), fds, 2);
}

void enrol_return_child(struct control *control, struct conn *conn,
			const struct uhmm_msg_child *msg, int *uffd)
{
	static const uint8_t none[UHMM_TOKEN_BYTES];
	struct comeback *comeback = conn->comeback;
	struct kept_child *child;

	if (memcmp(msg->token, none, sizeof(none)) == 0) {
		return_welcome(control, conn);
		return;
	}
	if (*uffd < 0 || comeback->n_children == UHMM_CHILDREN_MAX) {
		conn_drop(control, conn, "children without a userfaultfd, or too many");
		return;
	}
	/* What is read of it is believed. */
	if (!uffd_is_used(*uffd)) {
		conn_drop(control, conn, "a child's descriptor that is no userfaultfd in use");
		return;
	}
	child = &comeback->children[comeback->n_children++];
	memcpy(child->token, msg->token, sizeof(child->token));
	child->uffd = *uffd;
	*uffd = -1;
}

/* ---- ENROL ------------------------------------------------------------------------------ */

static struct space_layout enrol_layout(const struct uhmm_msg_enrol *msg)
{
	return (struct space_layout){
		.staging_addr = msg->staging_addr,
		.private_addr = msg->private_addr,
		.private_bytes = msg->private_bytes,
		.ring_addr = msg->ring_addr,
		.ring_bytes = sizeof(struct uhmm_ring),
		.beacon_addr = msg->beacon_addr,
		.agent_tid = msg->agent_tid,
	};
}

/* READY, and what goes to each agent first. If it hung up, that is heard where it is polled. */
static void enrol_say_ready(struct conn *conn)
{
	struct uhmm_msg ready = { .type = UHMM_MSG_READY, .len = sizeof(ready) };

	if (conn_send(conn, &ready, sizeof(ready), NULL, 0) == 0 &&
	    agent_send_memory(conn->space, conn->fd) < 0)
		(void)shutdown(conn->fd, SHUT_RDWR);
}

/* The socket is the agent's from now on, and the space's. */
static void enrol_finish(struct conn *conn, uint32_t agent_gen)
{
	conn->state = CONN_AGENT;
	conn->agent_gen = agent_gen;
	log_debug("pid %d (%s): enrolled as space %llu", conn->pid, conn->space->command,
		  (unsigned long long)conn->space->id);
}

/* What the agent brings, out of its connection. */
static struct attach enrol_take(struct conn *conn, const struct uhmm_msg_enrol *msg)
{
	struct attach attach = {
		.pid = conn->pid,
		.uid = conn->uid,
		.gid = conn->gid,
		/* A descriptor of its own: the client may hang up before its worker looks. */
		.sock = fcntl(conn->fd, F_DUPFD_CLOEXEC, 0),
		.ring_fd = conn->ring_fd,
		.ring = conn->ring,
		.layout = enrol_layout(msg),
	};

	conn->ring_fd = -1;
	conn->ring = NULL;
	return attach;
}

/* A child's space belongs to its worker: it attaches the agent. */
static void enrol_child(struct control *control, struct conn *conn,
			const struct uhmm_msg_enrol *msg)
{
	struct mail *mail = calloc(1, sizeof(*mail));

	if (!mail) {
		conn_refuse(control, conn, UHMM_REASON_LIMIT, "the daemon has no memory");
		return;
	}
	list_init(&mail->link);
	mail->type = MAIL_AGENT;
	mail->conn_id = conn->id;
	mail->attach = enrol_take(conn, msg);
	conn->state = CONN_ATTACHING;
	space_post(conn->space, mail);
}

void enrol_attached(struct control *control, struct conn *conn, const struct mail *mail)
{
	if (mail->error < 0) {
		conn_refuse(control, conn, UHMM_REASON_PROTOCOL, strerror(-mail->error));
		return;
	}
	enrol_finish(conn, mail->attach.gen); /* its worker has said READY */
	/* It hung up meanwhile. */
	if (conn->source.removed)
		enrol_agent_eof(conn);
}

/* Does it stand where it stood, and is the userfaultfd its own? NULL: yes. */
static const char *return_verify(struct conn *conn, const struct uhmm_msg_enrol *msg)
{
	struct space *space = conn->space;

	if (msg->staging_addr != space->layout.staging_addr ||
	    msg->beacon_addr != space->layout.beacon_addr)
		return "an agent that moved";
	if (fcntl(space->uffd, F_SETFL, O_NONBLOCK) < 0 || space_open_proc(space, conn->pid) < 0)
		return "its files in /proc cannot be opened";
	return space_verify_again(space, msg->staging_addr) < 0 ? "a userfaultfd of another process"
								: NULL;
}

static void enrol_orphan(struct control *control, struct conn *conn,
			 const struct uhmm_msg_enrol *msg)
{
	struct space *space = conn->space;
	struct attach attach;
	const char *why;

	space->uffd = conn->uffd;
	conn->uffd = -1;
	why = return_verify(conn, msg);
	if (why) {
		close(space->uffd);
		space->uffd = -1;
		space_close_proc(space);
		__atomic_store_n(&space->orphan, true, __ATOMIC_RELEASE);
		log_err("pid %d: cannot be taken over: %s", conn->pid, why);
		conn_refuse(control, conn, UHMM_REASON_PROTOCOL, why);
		return;
	}
	space->pidfd = (int)syscall(SYS_pidfd_open, conn->pid, 0);
	attach = enrol_take(conn, msg);
	agent_swap(space, &attach);
	space->comeback = conn->comeback;
	conn->comeback = NULL;
	__atomic_store_n(&space->state, SPACE_SERVING, __ATOMIC_RELEASE);
	enrol_say_ready(conn);
	enrol_finish(conn, attach.gen);
	if (space_start_worker(space) < 0)
		log_err("pid %d: no thread to serve it", conn->pid);
	space_unref(space); /* what it had as an orphan */
}

void enrol_program(struct control *control, struct conn *conn, const struct uhmm_msg_enrol *msg,
		   int *uffd)
{
	struct space *space = conn->space;
	struct attach attach;
	const char *why = NULL;
	int err;

	if (conn->role == UHMM_ROLE_AGENT &&
	    space_claim_orphan(space->token, space->family, false)) {
		enrol_orphan(control, conn, msg);
		return;
	}
	/* Its process had ended meanwhile, and somebody else has the socket. */
	if (space_get_state(space) == SPACE_ENROLLING && conn->role == UHMM_ROLE_AGENT) {
		conn_refuse(control, conn, UHMM_REASON_BUSY, "it has been given up");
		return;
	}
	if (conn->role != UHMM_ROLE_PROGRAM) {
		enrol_child(control, conn, msg);
		return;
	}
	space->uffd = *uffd;
	*uffd = -1;
	err = uffd_is_one(space->uffd) ? uffd_api(space->uffd) : -ENOTTY;
	if (err < 0)
		why = "not a userfaultfd, or one that has been used";
	if (!why && fcntl(space->uffd, F_SETFL, O_NONBLOCK) < 0)
		why = "a userfaultfd that cannot be read without waiting";
	if (!why && space_open_proc(space, conn->pid) < 0)
		why = "its files in /proc cannot be opened";
	if (!why && space_verify(space, msg->staging_addr) < 0)
		why = "a userfaultfd of another process";
	if (why) {
		conn_drop(control, conn, why);
		return;
	}
	space->pidfd = (int)syscall(SYS_pidfd_open, conn->pid, 0);
	attach = enrol_take(conn, msg);
	agent_swap(space, &attach);
	__atomic_store_n(&space->state, SPACE_SERVING, __ATOMIC_RELEASE);
	enrol_say_ready(conn);
	enrol_finish(conn, attach.gen);
}

/* The agent's table was closed: exec, exit, or it was told to end. If the address space lives
 * on it is served without an agent; the worker, or the tick, finds out when it ends. */
void enrol_agent_eof(struct conn *conn)
{
	(void)agent_dismiss(conn->space, conn->agent_gen, UHMM_REASON_NO_AGENT, false);
	agent_leave_wards(conn->space);
	conn->state = CONN_LINGERING;
}

int control_adopt_child(struct space *parent, int uffd, const uint8_t token[UHMM_TOKEN_BYTES],
			struct space **ret_child)
{
	struct space *child;
	int err = space_new_child(parent, uffd, token, &child);

	if (err < 0)
		return err;
	child->layout = parent->layout;
	/* Neither staging nor the agent's memory was inherited. */
	child->layout.staging_addr = 0;
	child->layout.private_addr = child->layout.private_bytes = 0;
	child->unit->layout = child->layout;
	__atomic_store_n(&child->uid, parent->uid, __ATOMIC_RELAXED);
	child->gid = parent->gid;
	memcpy(child->command, parent->command, sizeof(child->command));
	child->stack_top_addr = parent->stack_top_addr;
	child->beacon_out = true;
	child->agent_reason = UHMM_REASON_NO_AGENT;
	*ret_child = child;
	return 0;
}
