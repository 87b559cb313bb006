/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Turns away whoever waits at the socket, for a daemon that cannot serve. */
#ifndef UHMMD_DECLINE_H
#define UHMMD_DECLINE_H

/* Refuse every client that waits now, with this text. Does not wait for any. */
void decline_all(int listen_fd, const char *text);

#endif
