/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory that an enrolled process holds for uhmm, and the life of its agent thread.
 */
#ifndef UHMM_LIBCLIENT_SPAWN_H
#define UHMM_LIBCLIENT_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent.h"

/* A mapping; addr NULL: none. */
struct spawn_area {
	void *addr;
	size_t bytes;
};

size_t spawn_page_bytes(void);

/* Each returns 0 or a negative errno and writes *ret_area only on success. */
int spawn_map_ring(int ring_fd, size_t bytes, struct spawn_area *ret_area);
int spawn_map_staging(size_t bytes, struct spawn_area *ret_area);
int spawn_map_private(struct spawn_area *ret_area);
/* *ret_beacon: the page, which says UHMM_BEACON_HERE, between two that nobody can touch. */
int spawn_map_beacon(struct spawn_area *ret_area, struct uhmm_beacon **ret_beacon);
void spawn_unmap(struct spawn_area *area);

/* Where in its private area an agent has its data. */
struct uhmm_agent *spawn_agent_of(const struct spawn_area *private_area);

/*
 * Start the thread and wait until it has its own descriptors and no capability. All signals
 * are blocked by the caller. *ret_tid is written if a thread was made; with an error as well
 * (-ETIMEDOUT, -EPERM), it was told to end, and spawn_agent_gone says when it has.
 */
int spawn_agent(struct uhmm_agent *agent, const struct spawn_area *private_area,
		uint32_t *ret_tid);
void spawn_release(struct uhmm_agent *agent, enum agent_go go);

/* Wait until the kernel has forgotten the thread. False: it has not within timeout_ms. */
bool spawn_agent_gone(struct uhmm_agent *agent, uint32_t tid, long timeout_ms);

#endif
