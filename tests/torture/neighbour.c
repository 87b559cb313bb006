/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The neighbour: an unmanaged process that touches memory of managed ones from outside. One
 * request of an actor at a time each; both sides sleep on futexes in the control file.
 */
#include "neighbour.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static void futex_wait(uint32_t *word, uint32_t value)
{
	(void)syscall(SYS_futex, word, FUTEX_WAIT, value, NULL);
}

static void futex_wake(uint32_t *word)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX);
}

static void serve(struct actor *a)
{
	struct ask *ask = &a->ask;
	struct iovec local = { .iov_base = a->bounce, .iov_len = ask->bytes };
	struct iovec remote = { .iov_base = (void *)ask->addr, .iov_len = ask->bytes };
	ssize_t n = ask->write ? process_vm_writev(a->pid, &local, 1, &remote, 1, 0)
			       : process_vm_readv(a->pid, &local, 1, &remote, 1, 0);

	ask->result = n < 0 ? -errno : n;
	__atomic_store_n(&ask->state, 2, __ATOMIC_RELEASE);
	futex_wake(&ask->state);
}

static void __attribute__((noreturn)) neighbour_run(void)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		uint32_t seen = __atomic_load_n(&ctl->n_asks, __ATOMIC_ACQUIRE);

		for (uint32_t i = 0; i < ACTORS_MAX && i < ctl->n_actors; i++)
			if (__atomic_load_n(&ctl->actors[i].ask.state, __ATOMIC_ACQUIRE) == 1)
				serve(&ctl->actors[i]);
		futex_wait(&ctl->n_asks, seen);
	}
}

pid_t neighbour_start(void)
{
	pid_t pid = fork();

	if (pid == 0)
		neighbour_run();
	return pid;
}

int64_t neighbour_ask(struct actor *a, void *addr, size_t bytes, bool write)
{
	a->ask.addr = (uintptr_t)addr;
	a->ask.bytes = bytes;
	a->ask.write = write;
	__atomic_store_n(&a->ask.state, 1, __ATOMIC_RELEASE);
	__atomic_fetch_add(&ctl->n_asks, 1, __ATOMIC_RELEASE);
	futex_wake(&ctl->n_asks);
	while (__atomic_load_n(&a->ask.state, __ATOMIC_ACQUIRE) != 2)
		futex_wait(&a->ask.state, 1);
	a->ask.state = 0;
	return a->ask.result;
}
