/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Kills the private daemon at random moments, and starts the next one. Runner only. */
#ifndef UHMM_TORTURE_KILLER_H
#define UHMM_TORTURE_KILLER_H

#include <stdbool.h>
#include <stdint.h>

#include "service.h"

#define PAUSES_MAX 65536u

struct killer {
	struct service *service;
	unsigned int mean_ms; /* between two kills; 0: none */
	bool kills_itself;    /* and may do so before it listens */
	uint64_t rng;
	uint64_t due_ns;    /* of the next kill */
	uint64_t killed_ns; /* nobody has been served since; 0: somebody has */
	uint64_t ready_ns;  /* the daemon listens since then; 0: not yet */
	uint32_t n_kills, n_pauses;
	uint32_t n_own; /* of the kills: by the daemon itself */
	uint32_t pauses_us[PAUSES_MAX];
};

void killer_init(struct killer *ret_killer, struct service *service, unsigned int mean_ms,
		 uint64_t seed);
/* Kill, start again, look how far it is. Never waits but for an end that it has caused. False: it
 * does not come up; that has been said. */
bool killer_step(struct killer *killer);
/* It has ended by itself, and was reaped. */
bool killer_follow(struct killer *killer);
/* Is a daemon there that can be asked? */
bool killer_has_daemon(const struct killer *killer);
/* Sleep so long, or until there is something to do. */
void killer_sleep(const struct killer *killer, long nsec);
/* No more kills. Waits until the daemon serves; false: it does not, within half a minute. */
bool killer_finish(struct killer *killer);
/* And how many children had to end for want of memory. */
void killer_print(struct killer *killer, uint32_t n_incomplete);

#endif
