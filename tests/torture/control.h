/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory that all processes of the torture share, and that uhmm leaves alone. */
#ifndef UHMM_TORTURE_CONTROL_H
#define UHMM_TORTURE_CONTROL_H

/* Make it (the runner), or map it from an inherited descriptor (a world). The descriptor
 * stays open and survives exec. 0 or a negative errno. */
int control_make(int *ret_fd);
int control_map(int fd);
/* Before each round: no actors, no scripts, nothing failed. */
void control_reset(void);

/* A regular file without a name on a file system that is no tmpfs; a negative errno. */
int control_open_file(int flags);

#endif
