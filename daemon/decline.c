/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A socket unit starts the daemon because a client waits. If the daemon ended without having
 * looked at it, the client would still wait, and the daemon would be started again at once, and
 * so on. Called by main, when it is known that this daemon will never serve.
 */
#define _GNU_SOURCE
#include "decline.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

/* So many at a time: no client can keep us here. */
#define DECLINE_MAX 4096

void decline_all(int listen_fd, const char *text)
{
	struct uhmm_msg_refuse refuse = {
		.h = { .type = UHMM_MSG_REFUSE, .len = sizeof(refuse) },
		.reason = UHMM_REASON_BUSY,
	};
	char said[UHMM_MSG_MAX];
	int fd;

	strncpy(refuse.text, text, sizeof(refuse.text) - 1);
	for (int i = 0; i < DECLINE_MAX; i++) {
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			return;
		/* What is left unread would be a reset to the client, before our answer. */
		while (recv(fd, said, sizeof(said), MSG_DONTWAIT) > 0)
			;
		(void)wire_send(fd, &refuse, sizeof(refuse), NULL, 0, MSG_DONTWAIT);
		close(fd);
	}
}
