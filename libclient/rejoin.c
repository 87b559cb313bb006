/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an agent does while there is no daemon. Memory may be away, and its userfaultfd may be
 * the last: while that is open, whoever touches such memory waits; if it were closed they would
 * read zeros. So it keeps that, and those of children that have no agent of their own yet, and
 * hands them to the next daemon, as wire.h tells it ("Journey of `agent`").
 *
 * Freestanding: what agent.c says of itself is true here, too. Never here: a userfaultfd closed
 * but at a daemon's word; a wait that goes on when the program's own threads want it to end.
 */
#include "rejoin.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#define FIRST_NAP_MS 5L
#define LAST_NAP_MS 200L
/* After a refusal that time alone does not change. */
#define REFUSED_NAP_MS 2000L
/* For each of: taking what we send, WELCOME, READY. */
#define PATIENCE_MS 5000L

enum meeting {
	MEETING_JOINED,
	MEETING_FAILED, /* nobody, busy, or it hung up: again soon */
	MEETING_REFUSED,
	MEETING_NOWHERE, /* no path leads from here to a daemon, or a filter may guard it */
};

/* --- what it keeps ------------------------------------------------------------------- */

static bool token_equals(const uint8_t *a, const uint8_t *b)
{
	uint8_t differ = 0;

	for (unsigned int i = 0; i < UHMM_TOKEN_BYTES; i++)
		differ |= (uint8_t)(READ_ONCE(a[i]) ^ READ_ONCE(b[i]));
	return differ == 0;
}

static void token_copy(uint8_t *to, const uint8_t *from)
{
	for (unsigned int i = 0; i < UHMM_TOKEN_BYTES; i++)
		WRITE_ONCE(to[i], from[i]);
}

static void forget_child(struct uhmm_agent *agent, const uint8_t *token)
{
	for (uint32_t i = 0; i < agent->n_children; i++) {
		struct agent_child *child = &agent->children[i];
		struct agent_child *last = &agent->children[agent->n_children - 1];

		if (!token_equals(child->token, token))
			continue;
		sys_close(child->fd);
		token_copy(child->token, last->token);
		child->fd = last->fd;
		agent->n_children--;
		return;
	}
}

void rejoin_keep_child(struct uhmm_agent *agent, const struct uhmm_msg_child *msg, int fd)
{
	struct agent_child *child;

	forget_child(agent, msg->token);
	if (fd < 0)
		return;
	if (agent->n_children == UHMM_CHILDREN_MAX) {
		sys_close(fd);
		return;
	}
	child = &agent->children[agent->n_children];
	token_copy(child->token, msg->token);
	child->fd = fd;
	agent->n_children++;
}

/* All that was the old daemon's. Its commands are done, too: the same thread did them. */
static void let_go(struct uhmm_agent *agent)
{
	close_if_open(agent->sock);
	close_if_open(agent->event_fd);
	close_if_open(agent->mem_fd);
	agent->sock = agent->event_fd = agent->mem_fd = -1;
	for (uint32_t i = 0; i < agent->n_slot_files; i++)
		close_if_open(agent->slot_files[i]);
	agent->n_slot_files = 0;
	if (agent->object_number) {
		close_if_open(agent->object_fd);
		close_if_open(agent->object_slots_fd);
	}
	agent->object_number = 0;
}

/* --- the next daemon ----------------------------------------------------------------- */

static long show_all(const struct uhmm_agent *agent, int sock)
{
	long until_ms = agent_now_ms() + PATIENCE_MS;
	struct uhmm_msg_child msg;
	long err = agent_send(agent, sock, &agent->hello, agent->uffd, until_ms);

	msg.h.type = UHMM_MSG_CHILD;
	msg.h.len = sizeof(msg);
	for (uint32_t i = 0; err == 0 && i < agent->n_children; i++) {
		token_copy(msg.token, agent->children[i].token);
		err = agent_send(agent, sock, &msg, agent->children[i].fd, until_ms);
	}
	for (unsigned int i = 0; i < UHMM_TOKEN_BYTES; i++)
		WRITE_ONCE(msg.token[i], 0);
	if (err == 0)
		err = agent_send(agent, sock, &msg, -1, until_ms);
	/* It refused before it had read all: it says so. */
	return err == -EPIPE || err == -ECONNRESET ? 0 : err;
}

/* The daemon's answer, of this type and size; JOINED stands for that it came. */
static enum meeting hear(const struct uhmm_agent *agent, int sock, uint32_t type, size_t bytes,
			 union agent_packet *packet, int ret_fds[static 2])
{
	long n;

	ret_fds[0] = ret_fds[1] = -1;
	if (agent_await(agent, sock, agent_now_ms() + PATIENCE_MS) < 0)
		return MEETING_FAILED;
	n = agent_recv(sock, packet, ret_fds);
	/* It closed over what it had not read: said once, before what it sent. */
	if (n == -ECONNRESET)
		n = agent_recv(sock, packet, ret_fds);
	if (n < (long)sizeof(packet->h))
		return MEETING_FAILED;
	if (packet->h.type == type && packet->h.len == bytes && n == (long)bytes)
		return MEETING_JOINED;
	if (packet->h.type == UHMM_MSG_REFUSE && n == (long)sizeof(packet->refuse) &&
	    packet->refuse.reason == UHMM_REASON_BUSY)
		return MEETING_FAILED;
	return MEETING_REFUSED;
}

/* The ring and staging lie where they lie. */
static bool welcome_fits(const struct uhmm_agent *agent, const struct uhmm_msg_welcome *welcome)
{
	return welcome->ring_bytes == agent->ring_bytes &&
	       welcome->staging_chunk_bytes == agent->chunk_bytes &&
	       welcome->n_staging_chunks == agent->n_chunks &&
	       token_equals(welcome->token, agent->hello.token);
}

/* A ring, and not shorter than it says: a load beyond the end of a file kills. */
static bool is_ring(const struct uhmm_agent *agent, int fd)
{
	uint32_t magic = 0;
	uint8_t last;

	return sys_call4(SYS_pread64, fd, (long)&magic, sizeof(magic), 0) == sizeof(magic) &&
	       READ_ONCE(magic) == UHMM_WIRE_MAGIC &&
	       sys_call4(SYS_pread64, fd, (long)&last, 1, (long)agent->ring_bytes - 1) == 1;
}

/* In the old one's place: other threads, and children, look at its flags at any time. */
static bool replace_ring(const struct uhmm_agent *agent, int fd)
{
	struct uhmm_ring *ring = agent->ring;
	uint32_t flags = __atomic_load_n(&ring->flags, __ATOMIC_ACQUIRE);
	long addr = sys_call6(SYS_mmap, (long)ring, (long)agent->ring_bytes,
			      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);

	if (addr != (long)ring)
		return false;
	(void)__atomic_fetch_or(&ring->flags, flags, __ATOMIC_ACQ_REL);
	WRITE_ONCE(ring->agent_tid, agent->tid);
	__atomic_store_n(&ring->agent_state, UHMM_AGENT_READY, __ATOMIC_RELEASE);
	return true;
}

static enum meeting enrol_again(const struct uhmm_agent *agent, int sock)
{
	union agent_packet packet;
	enum meeting meeting;
	int fds[2];

	if (agent_send(agent, sock, &agent->enrol, -1, agent_now_ms() + PATIENCE_MS) < 0)
		return MEETING_FAILED;
	meeting = hear(agent, sock, UHMM_MSG_READY, sizeof(packet.h), &packet, fds);
	close_if_open(fds[0]);
	close_if_open(fds[1]);
	return meeting;
}

/* With what came with WELCOME, which the caller closes unless it was of use. */
static enum meeting enter(struct uhmm_agent *agent, int sock, const int fds[static 2])
{
	enum meeting meeting;

	if (fds[1] < 0 || !is_ring(agent, fds[0]) || !replace_ring(agent, fds[0]))
		return MEETING_REFUSED;
	meeting = enrol_again(agent, sock);
	if (meeting != MEETING_JOINED)
		return meeting;
	agent->sock = sock;
	agent->event_fd = fds[1];
	return MEETING_JOINED;
}

static enum meeting meet(struct uhmm_agent *agent, int sock)
{
	union agent_packet packet;
	enum meeting meeting;
	int fds[2];

	if (show_all(agent, sock) < 0)
		return MEETING_FAILED;
	meeting = hear(agent, sock, UHMM_MSG_WELCOME, sizeof(packet.welcome), &packet, fds);
	if (meeting == MEETING_JOINED)
		meeting = welcome_fits(agent, &packet.welcome) ? enter(agent, sock, fds)
							       : MEETING_REFUSED;
	close_if_open(fds[0]);
	if (meeting != MEETING_JOINED)
		close_if_open(fds[1]);
	return meeting;
}

/* A filter came that this thread did not start with: each call may be the program's death. */
static bool is_sandboxed(const struct uhmm_agent *agent)
{
	return __atomic_load_n(&agent->ring->flags, __ATOMIC_ACQUIRE) & UHMM_RING_SANDBOXED;
}

static enum meeting try_daemon(struct uhmm_agent *agent)
{
	enum meeting meeting;
	long sock;

	if (agent->daemon.sun_path[0] == '\0' || is_sandboxed(agent))
		return MEETING_NOWHERE;
	let_go(agent);
	sock = agent_connect(agent);
	if (sock < 0)
		return MEETING_FAILED;
	meeting = meet(agent, (int)sock);
	if (meeting != MEETING_JOINED)
		sys_close((int)sock);
	return meeting;
}

/* --- until then ---------------------------------------------------------------------- */

static void say_where(struct uhmm_agent *agent, enum agent_at at)
{
	__atomic_store_n(&agent->at, (uint32_t)at, __ATOMIC_RELEASE);
	(void)sys_call3(SYS_futex, (long)&agent->at, FUTEX_WAKE_PRIVATE, 0x7fffffff);
}

/* One of the program's threads wants us out of its way, or still: it decides what comes next.
 * A single call, that may last: under a filter each further one may be the program's death. */
static void rest(struct uhmm_agent *agent)
{
	say_where(agent, AGENT_AT_REST);
	while (agent_told(agent) == AGENT_GO_LINGER)
		agent_nap(agent, AGENT_GO_LINGER, -1);
	if (agent_told(agent) == AGENT_GO_RUN)
		say_where(agent, AGENT_AT_LOSS);
}

/* A daemon that dies at once every time must not be met in a hot loop. */
static long longer_nap(long ms)
{
	return 2 * ms < LAST_NAP_MS ? 2 * ms : LAST_NAP_MS;
}

bool rejoin_daemon(struct uhmm_agent *agent)
{
	long nap_ms = FIRST_NAP_MS;

	/* At once, so that a daemon that dismissed us sees the end of us. */
	if (!is_sandboxed(agent))
		let_go(agent);
	say_where(agent, AGENT_AT_LOSS);
	for (;;) {
		uint32_t told = agent_told(agent);

		if (told == AGENT_GO_ABORT)
			return false;
		if (told == AGENT_GO_LINGER) {
			rest(agent);
			continue;
		}
		switch (try_daemon(agent)) {
		case MEETING_JOINED:
			say_where(agent, AGENT_AT_WORK);
			return true;
		case MEETING_FAILED:
			agent_nap(agent, AGENT_GO_RUN, nap_ms);
			nap_ms = longer_nap(nap_ms);
			break;
		case MEETING_REFUSED:
			agent_nap(agent, AGENT_GO_RUN, REFUSED_NAP_MS);
			break;
		case MEETING_NOWHERE:
			agent_nap(agent, AGENT_GO_RUN, -1);
			break;
		}
	}
}
