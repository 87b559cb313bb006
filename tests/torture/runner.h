/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rounds of worlds, one after another, until the time is over or something differs. */
#ifndef UHMM_TORTURE_RUNNER_H
#define UHMM_TORTURE_RUNNER_H

#include <stdbool.h>

#include "service.h"

struct runner_options {
	struct service_options service;
	unsigned int seconds;
	unsigned int kill_ms; /* between two kills of the daemon, on average; 0: none */
	bool may_kill_itself; /* the daemon is one that does */
	const char *replay; /* NULL: draw */
	char **argv;	    /* the command line, to be told again */
	bool verbose;	    /* tell what the operations took */
	bool keep;	    /* leave everything stopped after a difference */
};

/* The torture; prints its last line. Returns the exit status. */
int runner_main(const struct runner_options *options);

#endif
