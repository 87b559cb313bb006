/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From one daemon to the next, on the agent's thread.
 */
#ifndef UHMM_LIBCLIENT_REJOIN_H
#define UHMM_LIBCLIENT_REJOIN_H

#include <stdbool.h>

#include "agent_link.h"

/*
 * The daemon is gone, or dismissed an agent that is to stay: look for the next one until it has
 * said READY. False: `go` says ABORT.
 */
AGENT_OWN bool rejoin_daemon(struct uhmm_agent *agent);

/* CHILD came, with the child's userfaultfd or with -1. */
AGENT_OWN void rejoin_keep_child(struct uhmm_agent *agent, const struct uhmm_msg_child *msg,
				 int fd);

#endif
