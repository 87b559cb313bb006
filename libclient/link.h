/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection to the daemon: packets of wire.h over a SEQPACKET socket, every wait
 * bounded. By raw system calls: no errno, no allocation, any context.
 */
#ifndef UHMM_LIBCLIENT_LINK_H
#define UHMM_LIBCLIENT_LINK_H

#include <stddef.h>
#include <stdint.h>
#include <uhmm/wire.h>

#define LINK_PATH_MAX 108u /* sun_path, terminating zero included */
#define LINK_FOREVER (-1L)

/* Monotonic, in milliseconds. */
long link_now_ms(void);

/* Returns a close-on-exec socket, or a negative errno. timeout_ms bounds this and each send. */
int link_connect(const char *path, long timeout_ms);

/* Send one packet whose header this fills in; pass_fd -1: no descriptor goes with it. */
int link_send(int sock, uint32_t type, void *packet, size_t bytes, int pass_fd);

/*
 * Receive one packet into `packet` (room bytes), and up to UHMM_MSG_FDS_MAX descriptors, which
 * are then the caller's. Returns the packet's length. -ETIMEDOUT; -ENOTCONN: the daemon went
 * away; -EPROTO: not a whole packet.
 */
long link_recv(int sock, void *packet, size_t room, int fds[static UHMM_MSG_FDS_MAX],
	       unsigned int *ret_n_fds, long timeout_ms);

#endif
