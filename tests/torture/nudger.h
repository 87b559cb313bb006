/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes the daemon do things at random times that nobody in the worlds asked for. */
#ifndef UHMM_TORTURE_NUDGER_H
#define UHMM_TORTURE_NUDGER_H

#include <sys/types.h>

/* Fork it; it ends with the caller. -1. */
pid_t nudger_start(const char *socket);

#endif
