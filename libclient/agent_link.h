/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's socket: what link.h is to the program's threads, for the one thread that stands
 * on no library.
 */
#ifndef UHMM_LIBCLIENT_AGENT_LINK_H
#define UHMM_LIBCLIENT_AGENT_LINK_H

#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <uhmm/wire.h>

#include "agent.h"
#include "sys.h"

#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

/* Not even a table of addresses stands between the agent's objects. */
#define AGENT_OWN __attribute__((visibility("hidden")))

/* What a daemon sends to an agent. */
union agent_packet {
	struct uhmm_msg h;
	struct uhmm_msg_welcome welcome;
	struct uhmm_msg_refuse refuse;
	struct uhmm_msg_quit quit;
	struct uhmm_msg_object object;
	struct uhmm_msg_child child;
	unsigned char room[256];
};

static inline void close_if_open(int fd)
{
	if (fd >= 0)
		sys_close(fd);
}

static inline uint32_t agent_told(const struct uhmm_agent *agent)
{
	return __atomic_load_n(&agent->go, __ATOMIC_ACQUIRE);
}

/* Monotonic, in milliseconds. */
AGENT_OWN long agent_now_ms(void);

/* Sleep, for as long as `go` says `told`; ms < 0: without a bound. */
AGENT_OWN void agent_nap(const struct uhmm_agent *agent, uint32_t told, long ms);

/*
 * Wait for one packet. Its length, 0 at the end of the connection, or a negative errno. Its
 * first two descriptors, -1 where there is none, are the caller's; others are closed.
 */
AGENT_OWN long agent_recv(int sock, union agent_packet *packet, int ret_fds[static 2]);

/*
 * The rest works for a daemon that may never answer: none of it lasts longer than until
 * `until_ms`, nor than `go` says RUN by more than a moment. -ETIMEDOUT, -ECANCELED then.
 */
AGENT_OWN long agent_connect(const struct uhmm_agent *agent);
/* A packet whose header is filled in; pass_fd -1: no descriptor goes with it. */
AGENT_OWN long agent_send(const struct uhmm_agent *agent, int sock, const void *packet,
			  int pass_fd, long until_ms);
AGENT_OWN long agent_await(const struct uhmm_agent *agent, int sock, long until_ms);

#endif
