/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the other parts of uhmm are: beside the running binary, else as installed. */
#ifndef UHMM_CLI_PATHS_H
#define UHMM_CLI_PATHS_H

#include <limits.h>

/* -ENOENT: at none of the places; `out` then names the first of them. */
int paths_find_daemon(char out[static PATH_MAX]);
int paths_find_preload(char out[static PATH_MAX]);
int paths_find_backends(char out[static PATH_MAX]);

#endif
