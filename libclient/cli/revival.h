/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The private daemon of `uhmm run` is started again when it ends before its time. */
#ifndef UHMM_CLI_REVIVAL_H
#define UHMM_CLI_REVIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "private.h"

struct revival {
	enum {
		REVIVAL_NONE, /* there is no private daemon */
		REVIVAL_SERVING,
		REVIVAL_WAITING, /* it ended; to be started at due_ns */
		REVIVAL_STARTING, /* given up at due_ns */
	} state;
	struct private_options options;
	uint64_t since_ns; /* SERVING */
	uint64_t due_ns;
	unsigned int delay_ms; /* before the next start */
	bool explained;	       /* why it does not start */
};

/* It listens. The options are read again at each start. */
void revival_init(struct revival *ret_revival, const struct private_options *options);

/*
 * Look after it; never waits. To be called when the daemon's pidfd or ready_fd can be read, and
 * after revival_timeout_ms (-1: no need). Prints what happens. True: it listens again.
 */
bool revival_step(struct revival *revival, struct private_daemon *daemon);
int revival_timeout_ms(const struct revival *revival);

/* The command has ended; what it left behind may need the daemon. One that is not there is
 * started once more, and waited for. True: it listens again. */
bool revival_finish(struct revival *revival, struct private_daemon *daemon);

#endif
