/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control thread: accepts clients, enrols programs, answers requests, watches sockets
 * and processes, keeps time. One thread, an io_uring loop (loop.h).
 */
#ifndef UHMMD_CONTROL_H
#define UHMMD_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "space.h"

struct control_params {
	const struct daemon_env *env;
	int listen_fd;
	int lifeline_fd; /* EOF: the runner is gone; -1: none */
	bool private_daemon;
};

/* Runs until told to stop and every page is home. */
int control_run(const struct control_params *params);

/* A worker is done with a request: queue the answer. Takes over the mail. Any thread. */
void control_complete(struct mail *mail);

/* The userfaultfd of a forked child that cannot be served: it stays open until the child has
 * ended. Any thread. */
void control_keep_stranded(int uffd);

/* A worker read a FORK event: a space for the child, that shares what the parent has and has
 * no process yet. Takes over uffd. On the parent's worker. */
int control_adopt_child(struct space *parent, int uffd, const uint8_t token[UHMM_TOKEN_BYTES],
			struct space **ret_child);

#endif
