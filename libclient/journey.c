/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a process enrols, packet by packet, as wire.h tells it. Called by enrol.c with its lock
 * held and all signals blocked, on the thread that enrols. A journey that fails leaves every
 * mapping and descriptor as it found them; each wait is bounded; nothing is printed or
 * allocated, and errno is left alone.
 */
#include "journey.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "link.h"
#include "sys.h"
#include "uapi-mini.h"
#include "util/size.h"

#define ANSWER_MS 5000
/* All that is away may have to come home before. */
#define HOME_MS 60000

static void fd_close(struct enrol *self, enum enrol_fd which)
{
	int fd = self->fds[which];

	/* Forgotten first: a child forked in between may leak it, but must not close a
	 * number that by then is the program's. */
	__atomic_store_n(&self->fds[which], -1, __ATOMIC_RELEASE);
	if (fd >= 0)
		sys_close(fd);
}

void journey_close_fds(struct enrol *self)
{
	for (int i = 0; i < FD_COUNT; i++)
		fd_close(self, (enum enrol_fd)i);
}

int journey_why(struct enrol_why *why, uint32_t reason, const char *text, int err)
{
	size_t len = strnlen(text, sizeof(why->text) - 1);

	why->reason = reason;
	memcpy(why->text, text, len);
	why->text[len] = '\0';
	return err;
}

int journey_why_refused(struct enrol_why *why, const struct uhmm_msg_refuse *refuse)
{
	switch (refuse->reason) {
	case UHMM_REASON_VERSION:
	case UHMM_REASON_PROTOCOL:
		return journey_why(why, refuse->reason, refuse->text, -EPROTO);
	case UHMM_REASON_LIMIT:
		return journey_why(why, refuse->reason, refuse->text, -EUSERS);
	case UHMM_REASON_BUSY:
		return journey_why(why, refuse->reason, refuse->text, -EAGAIN);
	default:
		return journey_why(why, refuse->reason, refuse->text, -EACCES);
	}
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* 32 hexadecimal digits; anything else is no group. */
static bool read_group(const char *name, uint8_t group[static UHMM_TOKEN_BYTES])
{
	const char *hex = getenv(name);

	memset(group, 0, UHMM_TOKEN_BYTES);
	if (!hex || strlen(hex) != 2 * UHMM_TOKEN_BYTES)
		return false;
	for (size_t i = 0; i < UHMM_TOKEN_BYTES; i++) {
		int high = hex_value(hex[2 * i]);
		int low = hex_value(hex[2 * i + 1]);

		if (high < 0 || low < 0) {
			memset(group, 0, UHMM_TOKEN_BYTES);
			return false;
		}
		group[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* The group of the `uhmm run` that we are below; else that of the unit that we are of, if it is
 * to have a target: the service manager gives each start of a unit a name. */
static void name_group(struct uhmm_msg_hello *hello, enum uhmm_role role)
{
	const char *host_ram = getenv("UHMM_HOST_RAM");

	if (read_group("UHMM_GROUP", hello->group) || role != UHMM_ROLE_PROGRAM || !host_ram ||
	    size_parse(host_ram, &hello->host_target_bytes) < 0 || !hello->host_target_bytes)
		return;
	if (!read_group("INVOCATION_ID", hello->group))
		hello->host_target_bytes = 0;
}

static struct uhmm_msg_hello make_hello(enum uhmm_role role, const uint8_t *token)
{
	struct uhmm_msg_hello hello = {
		.h = { .type = UHMM_MSG_HELLO, .len = sizeof(hello) },
		.magic = UHMM_WIRE_MAGIC,
		.version = UHMM_WIRE_VERSION,
		.role = (uint32_t)role,
		.page_size = (uint32_t)spawn_page_bytes(),
	};

	if (role == UHMM_ROLE_CHILD || role == UHMM_ROLE_AGENT)
		memcpy(hello.token, token, sizeof(hello.token));
	if (role == UHMM_ROLE_CHILD || role == UHMM_ROLE_PROGRAM)
		name_group(&hello, role);
	return hello;
}

int journey_send_hello(int sock, enum uhmm_role role, const uint8_t *token)
{
	struct uhmm_msg_hello hello = make_hello(role, token);

	return link_send(sock, UHMM_MSG_HELLO, &hello, sizeof(hello), -1);
}

union answer {
	struct uhmm_msg h;
	struct uhmm_msg_welcome welcome;
	struct uhmm_msg_refuse refuse;
	struct uhmm_msg_done done;
};

/* Receive a packet of type `want` and `bytes` with n_fds descriptors; REFUSE becomes *why. */
static int recv_answer(int sock, uint32_t want, size_t bytes, union answer *answer,
		       int fds[static UHMM_MSG_FDS_MAX], unsigned int want_fds,
		       long bound_ms, struct enrol_why *why)
{
	unsigned int n_fds;
	long n = link_recv(sock, answer, sizeof(*answer), fds, &n_fds, bound_ms);

	if (n == -ETIMEDOUT)
		return journey_why(why, UHMM_REASON_BUSY, "the daemon does not answer", (int)n);
	if (n < 0)
		return journey_why(why, UHMM_REASON_PROTOCOL, "the daemon hung up", (int)n);
	if (answer->h.type == want && (size_t)n == bytes && n_fds == want_fds)
		return 0;
	for (unsigned int i = 0; i < n_fds; i++)
		sys_close(fds[i]);
	if (answer->h.type == UHMM_MSG_REFUSE && (size_t)n == sizeof(answer->refuse))
		return journey_why_refused(why, &answer->refuse);
	return journey_why(why, UHMM_REASON_PROTOCOL, "the daemon's answer makes no sense",
			   -EPROTO);
}

static bool welcome_is_sane(const struct uhmm_msg_welcome *welcome)
{
	return welcome->ring_bytes >= sizeof(struct uhmm_ring) &&
	       welcome->n_staging_chunks >= 1 &&
	       welcome->n_staging_chunks <= UHMM_RING_BOXES &&
	       welcome->staging_chunk_bytes >= spawn_page_bytes() &&
	       welcome->staging_chunk_bytes <= 1u << 30 &&
	       welcome->staging_chunk_bytes % spawn_page_bytes() == 0;
}

static int why_no_connection(struct enrol_why *why, const char *what, const char *path, int err)
{
	size_t len = strlen(what);

	(void)journey_why(why, UHMM_REASON_NONE, what, err);
	memcpy(why->text + len, path, strnlen(path, LINK_PATH_MAX) + 1);
	return err;
}

static int connect_to(struct enrol *self, struct enrol_why *why)
{
	int sock = link_connect(self->path, ANSWER_MS);

	self->fds[FD_SOCK] = sock < 0 ? -1 : sock;
	switch (sock) {
	case -ENOENT:
	case -ECONNREFUSED:
		return why_no_connection(why, "no daemon at ", self->path, sock);
	case -EACCES:
	case -EPERM:
		return why_no_connection(why, "no right to use ", self->path, sock);
	default:
		if (sock < 0)
			return why_no_connection(why, "cannot connect to ", self->path, sock);
		return 0;
	}
}

/* Up to and with WELCOME; FD_UFFD, FD_RING and FD_EVENT are open afterwards. */
static int greet(struct enrol *self, enum uhmm_role role, struct uhmm_msg_welcome *ret_welcome,
		 struct enrol_why *why)
{
	int fds[UHMM_MSG_FDS_MAX];
	union answer answer;
	int err = connect_to(self, why);

	if (err)
		return err;
	err = journey_send_hello(self->fds[FD_SOCK], role, self->token);
	if (err)
		return journey_why(why, UHMM_REASON_PROTOCOL, "the daemon hung up", err);
	err = recv_answer(self->fds[FD_SOCK], UHMM_MSG_WELCOME, sizeof(answer.welcome), &answer,
			  fds, 3, ANSWER_MS, why);
	if (err)
		return err;
	self->fds[role == UHMM_ROLE_CHILD ? FD_UFFD : FD_DEVICE] = fds[0];
	self->fds[FD_RING] = fds[1];
	self->fds[FD_EVENT] = fds[2];
	if (!welcome_is_sane(&answer.welcome))
		return journey_why(why, UHMM_REASON_PROTOCOL, "the daemon's answer makes no sense",
				   -EPROTO);
	*ret_welcome = answer.welcome;
	if (role == UHMM_ROLE_CHILD)
		return 0;
	err = (int)sys_call3(SYS_ioctl, self->fds[FD_DEVICE], USERFAULTFD_IOC_NEW,
			     O_CLOEXEC | O_NONBLOCK);
	if (err < 0)
		return journey_why(why, UHMM_REASON_NONE, "the kernel gives no userfaultfd", err);
	self->fds[FD_UFFD] = err;
	return 0;
}

/*
 * What one journey makes. Staging, private area and beacon are kept from an earlier enrolment
 * of this process where there is one: staging may hold the only copy of a page that was on its
 * way out when the last agent ended.
 */
struct attempt {
	struct spawn_area ring, staging, private, beacon_area;
	struct uhmm_beacon *beacon;
	struct uhmm_agent *agent; /* NULL: no thread was made */
	uint32_t tid;
};

static int map_all(const struct enrol *self, const struct uhmm_msg_welcome *welcome,
		   struct attempt *new)
{
	size_t staging_bytes = (size_t)welcome->n_staging_chunks * welcome->staging_chunk_bytes;
	int err = spawn_map_ring(self->fds[FD_RING], welcome->ring_bytes, &new->ring);

	if (!err && self->staging.addr && self->staging.bytes != staging_bytes)
		err = -EPROTO;
	if (!err && !self->staging.addr)
		err = spawn_map_staging(staging_bytes, &new->staging);
	if (!err && !self->private.addr)
		err = spawn_map_private(&new->private);
	if (!err && !self->beacon)
		err = spawn_map_beacon(&new->beacon_area, &new->beacon);
	return err;
}

/*
 * Another thread may fork from READY on, when the daemon may take memory away, so its child
 * must find the beacon by then; what it says is in it before.
 */
static void publish_beacon(struct enrol *self, struct uhmm_beacon *beacon,
			   struct spawn_area area)
{
	self->beacon_area = area;
	__atomic_store_n(&self->beacon, beacon, __ATOMIC_RELEASE);
}

static const struct spawn_area *newest(const struct spawn_area *new, const struct spawn_area *old)
{
	return new->addr ? new : old;
}

static struct uhmm_msg_enrol make_enrol(const struct enrol *self, const struct attempt *new)
{
	const struct spawn_area *private = newest(&new->private, &self->private);

	return (struct uhmm_msg_enrol){
		.h = { .type = UHMM_MSG_ENROL, .len = sizeof(struct uhmm_msg_enrol) },
		.staging_addr = (uint64_t)newest(&new->staging, &self->staging)->addr,
		.private_addr = (uint64_t)private->addr,
		.private_bytes = private->bytes,
		.ring_addr = (uint64_t)new->ring.addr,
		.beacon_addr = (uint64_t)self->beacon,
	};
}

/* What it shows to the daemon after this one; a path that it could not follow is none. */
static void prepare_to_rejoin(const struct enrol *self, const struct uhmm_msg_welcome *welcome,
			      struct uhmm_agent *agent)
{
	agent->daemon.sun_family = AF_UNIX;
	if (self->path[0] == '/')
		memcpy(agent->daemon.sun_path, self->path, sizeof(self->path));
	agent->ring_bytes = welcome->ring_bytes;
	agent->hello = make_hello(UHMM_ROLE_AGENT, welcome->token);
	agent->n_children = self->kept.n_children;
	memcpy(agent->children, self->kept.children, sizeof(agent->children));
}

static int start_agent(const struct enrol *self, const struct uhmm_msg_welcome *welcome,
		       struct attempt *new)
{
	const struct spawn_area *private = newest(&new->private, &self->private);
	struct uhmm_agent *agent = spawn_agent_of(private);
	int err;

	memset(agent, 0, sizeof(*agent));
	agent->ring = new->ring.addr;
	agent->enrol = make_enrol(self, new);
	agent->staging_addr = agent->enrol.staging_addr;
	agent->chunk_bytes = welcome->staging_chunk_bytes;
	agent->n_chunks = welcome->n_staging_chunks;
	agent->page_bytes = spawn_page_bytes();
	agent->scratch = private->addr;
	agent->mem_fd = -1;
	agent->sock = self->fds[FD_SOCK];
	agent->uffd = self->fds[FD_UFFD];
	agent->event_fd = self->fds[FD_EVENT];
	agent->filtered = self->sandbox.filtered;
	agent->has_caps = self->sandbox.has_caps;
	prepare_to_rejoin(self, welcome, agent);
	err = spawn_agent(agent, private, &new->tid);
	agent->enrol.agent_tid = (int32_t)new->tid;
	if (new->tid)
		new->agent = agent;
	return err;
}

static int send_enrol(const struct enrol *self, enum uhmm_role role, const struct attempt *new)
{
	struct uhmm_msg_enrol enrol = new->agent->enrol;

	return link_send(self->fds[FD_SOCK], UHMM_MSG_ENROL, &enrol, sizeof(enrol),
			 role == UHMM_ROLE_CHILD ? -1 : self->fds[FD_UFFD]);
}

/* From WELCOME to READY. */
static int join(struct enrol *self, enum uhmm_role role, const struct uhmm_msg_welcome *welcome,
		struct attempt *new, struct enrol_why *why)
{
	int fds[UHMM_MSG_FDS_MAX];
	union answer answer;
	int err = map_all(self, welcome, new);

	if (err)
		return journey_why(why, UHMM_REASON_NO_AGENT, "no address space for the agent",
				   err);
	if (new->beacon)
		publish_beacon(self, new->beacon, new->beacon_area);
	err = start_agent(self, welcome, new);
	if (err)
		return journey_why(why, UHMM_REASON_NO_AGENT, "the agent could not be started",
				   err);
	err = send_enrol(self, role, new);
	if (err)
		return journey_why(why, UHMM_REASON_PROTOCOL, "the daemon hung up", err);
	return recv_answer(self->fds[FD_SOCK], UHMM_MSG_READY, sizeof(answer.h), &answer, fds, 0,
			   ANSWER_MS, why);
}

static void abandon(struct enrol *self, struct attempt *new)
{
	if (new->beacon)
		publish_beacon(self, NULL, (struct spawn_area){ 0 });
	/* An agent that will not end now keeps what it stands on. */
	if (new->agent) {
		spawn_release(new->agent, AGENT_GO_ABORT);
		if (!spawn_agent_gone(new->agent, new->tid, JOURNEY_END_MS))
			return;
	}
	spawn_unmap(&new->ring);
	spawn_unmap(&new->staging);
	spawn_unmap(&new->private);
	spawn_unmap(&new->beacon_area);
}

static void replace_area(struct spawn_area *old, const struct spawn_area *new)
{
	struct spawn_area gone = *old;

	if (!new->addr)
		return;
	*old = *new;
	spawn_unmap(&gone);
}

int journey_enrol(struct enrol *self, enum uhmm_role role, struct enrol_why *why)
{
	struct attempt new = { .tid = 0 };
	struct uhmm_msg_welcome welcome;
	int err = greet(self, role, &welcome, why);

	if (!err)
		err = join(self, role, &welcome, &new, why);
	if (err) {
		abandon(self, &new);
	} else {
		memcpy(self->token, welcome.token, sizeof(self->token));
		self->terms = welcome;
		self->agent_tid = new.tid;
		replace_area(&self->ring, &new.ring);
		replace_area(&self->staging, &new.staging);
		replace_area(&self->private, &new.private);
		self->enrolled = true;
		spawn_release(new.agent, AGENT_GO_RUN);
	}
	/* What stays open is in the agent's own table. */
	journey_close_fds(self);
	return err;
}

int journey_hold(struct enrol *self)
{
	struct attempt new = { .ring = self->ring };
	int err;

	self->fds[FD_UFFD] = self->kept.uffd;
	err = start_agent(self, &self->terms, &new);
	self->fds[FD_UFFD] = -1;
	if (!err) {
		self->agent_tid = new.tid;
		spawn_release(new.agent, AGENT_GO_RUN);
	}
	return err;
}

int journey_dismiss_agent(struct enrol *self, bool home)
{
	struct uhmm_msg_request request = {
		.request = UHMM_REQ_AGENT_QUIT,
		.flags = home ? UHMM_REQ_FLAG_HOME : 0,
		.pid = (int32_t)sys_call0(SYS_getpid),
	};
	int fds[UHMM_MSG_FDS_MAX];
	struct enrol_why why;
	union answer answer;
	int err = connect_to(self, &why);

	if (!err)
		err = journey_send_hello(self->fds[FD_SOCK], UHMM_ROLE_ADMIN, NULL);
	if (!err)
		err = link_send(self->fds[FD_SOCK], UHMM_MSG_REQUEST, &request, sizeof(request),
				-1);
	if (!err)
		err = recv_answer(self->fds[FD_SOCK], UHMM_MSG_DONE, sizeof(answer.done), &answer,
				  fds, 0, home ? HOME_MS : ANSWER_MS, &why);
	if (!err)
		err = answer.done.error;
	journey_close_fds(self);
	return err;
}
