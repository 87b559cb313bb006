/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's own directories: state and pages. On the main thread. */
#ifndef UHMMD_DIRS_H
#define UHMMD_DIRS_H

#include <stdbool.h>

struct config;

/*
 * Make them, root-only, and clear what an earlier daemon left that nobody can need. They are this
 * daemon's until it ends; -EWOULDBLOCK: another one has them. Logs.
 */
int dirs_make(const struct config *config);
/* Everything is home: forget the files; a private daemon's directories too. */
void dirs_remove(const struct config *config, bool private_daemon);

#endif
