/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the daemon and the service manager that runs it tell each other, as sd_notify(3) and
 * sd_listen_fds(3) describe it: a few variables of the environment and datagrams of a line.
 * Without a manager every call does nothing.
 */
#ifndef UHMMD_SERVICE_H
#define UHMMD_SERVICE_H

#include <stdint.h>

/*
 * The listening socket that a socket unit handed over, close-on-exec and non-blocking; at most
 * once. -ENOENT: none was handed over. -EINVAL: one of another kind was; logged.
 * Before any thread runs.
 */
int service_take_listener(int *ret_fd);

/* The daemon serves: waits for the manager to take note. Before any thread runs. */
void service_ready(const char *status);

/*
 * Lines "NAME=value", separated by newlines. Never waits: what the manager does not read in time
 * is lost. One thread at a time.
 */
void service_notify(const char *lines);

/* Without WATCHDOG=1 for so long the manager takes the daemon for dead; 0: it never does. */
uint64_t service_watchdog_ns(void);

#endif
