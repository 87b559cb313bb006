/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nudger: a process of its own, because the daemon takes its time for an answer and the
 * runner must not. It asks, as an administrator would, to evict so much of a random process, or
 * to bring it home.
 */
#include "nudger.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "torture.h"

static pid_t random_pid(uint64_t *rng)
{
	uint32_t n = __atomic_load_n(&ctl->n_actors, __ATOMIC_RELAXED);
	const struct actor *a;

	if (n == 0)
		return 0;
	a = &ctl->actors[random_next(rng) % (n < ACTORS_MAX ? n : ACTORS_MAX)];
	return __atomic_load_n(&a->state, __ATOMIC_ACQUIRE) == ACTOR_RUNNING ? a->pid : 0;
}

static int admin_connect(const char *socket)
{
	struct uhmm_msg_hello hello = {
		.h = { .type = UHMM_MSG_HELLO, .len = sizeof(hello) },
		.magic = UHMM_WIRE_MAGIC,
		.version = UHMM_WIRE_VERSION,
		.role = UHMM_ROLE_ADMIN,
		.page_size = (uint32_t)ctl->page_size,
	};
	const struct timeval for_ever = { 0 };
	int fd;

	if (client_connect(socket, &fd) < 0)
		return -1;
	/* It answers when the pages have moved. The watchdog sees to it that they do. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &for_ever, sizeof(for_ever));
	if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello)) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

/* Not while somebody wants none: see op_guard, op_rug. */
static bool restore_begin(void)
{
	__atomic_store_n(&ctl->restoring, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&ctl->n_unaided, __ATOMIC_SEQ_CST) == 0)
		return true;
	__atomic_store_n(&ctl->restoring, 0, __ATOMIC_SEQ_CST);
	return false;
}

static void __attribute__((noreturn)) nudger_run(const char *socket)
{
	uint64_t rng = hash2(ctl->seed, 0x6e756467);
	int fd = -1;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct timespec pause = { .tv_nsec = (long)(random_next(&rng) % 20000000) };
		uint64_t bytes = (1 + random_next(&rng) % 1024) * ctl->page_size;
		bool home = random_next(&rng) % 24 == 0;
		struct uhmm_msg_done done;
		pid_t pid = random_pid(&rng);

		(void)nanosleep(&pause, NULL);
		if (fd < 0)
			fd = admin_connect(socket);
		if (fd < 0 || pid == 0)
			continue;
		home = home && restore_begin();
		if (client_request(fd, home ? UHMM_REQ_RESTORE : UHMM_REQ_EVICT, pid, bytes, 0,
				   NULL, &done) < 0) {
			(void)close(fd);
			fd = -1;
		}
		__atomic_store_n(&ctl->restoring, 0, __ATOMIC_SEQ_CST);
	}
}

pid_t nudger_start(const char *socket)
{
	pid_t pid = fork();

	if (pid == 0)
		nudger_run(socket);
	return pid;
}
