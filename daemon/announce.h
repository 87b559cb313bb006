/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service manager is told while the daemon serves. On the control thread. */
#ifndef UHMMD_ANNOUNCE_H
#define UHMMD_ANNOUNCE_H

#include <stdbool.h>

/* Ready to serve. */
void announce_ready(void);
/* At every tick: that we are alive, and what is going on if that has changed. */
void announce_tick(bool stopping);

#endif
