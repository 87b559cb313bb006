/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon that kills itself. UHMM_CRASH=POINT:N: at some passing of that point, at random one
 * of the first 2 N, which is drawn anew in each process. A point is a function of the daemon's that
 * another of its files calls, once it has returned; "-before" it: when it is called. On any thread.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "comeback.h"
#include "conn.h"
#include "fork.h"
#include "pagemap.h"
#include "quiesce.h"
#include "agent.h"
#include "space.h"
#include "store_slots.h"
#include "uffd.h"

static char point[64];
static uint64_t left; /* passings, atomic; 0: none kills */

static void pass(const char *name)
{
	if (strcmp(name, point) == 0 && __atomic_fetch_sub(&left, 1, __ATOMIC_RELAXED) == 1)
		(void)kill(getpid(), SIGKILL);
}

#define WRAP(type, name, params, args)          \
	type __real_##name params;              \
	type __wrap_##name params;              \
	type __wrap_##name params               \
	{                                       \
		type ret;                       \
                                                \
		pass(#name "-before");          \
		ret = __real_##name args;       \
		pass(#name);                    \
		return ret;                     \
	}

#define WRAP_VOID(name, params, args)           \
	void __real_##name params;              \
	void __wrap_##name params;              \
	void __wrap_##name params               \
	{                                       \
		pass(#name "-before");          \
		__real_##name args;             \
		pass(#name);                    \
	}

/* A page leaves: slots, records, the gate, markers, the command or the write. */
WRAP(uint32_t, store_take_slots,
     (struct family * family, struct store *store, uint32_t n, uint64_t *ret_slots),
     (family, store, n, ret_slots))
WRAP(int, pagemap_set, (struct pagemap * map, uint64_t pgidx, struct page_rec rec),
     (map, pgidx, rec))
WRAP(enum uffd_result, uffd_register, (int uffd, uint64_t addr, uint64_t bytes, uint64_t mode),
     (uffd, addr, bytes, mode))
WRAP(enum uffd_result, uffd_unregister, (int uffd, uint64_t addr, uint64_t bytes),
     (uffd, addr, bytes))
WRAP(enum uffd_result, uffd_mark, (int uffd, uint64_t addr, uint64_t bytes), (uffd, addr, bytes))
/* It comes home. */
WRAP(enum uffd_result, uffd_copy,
     (int uffd, uint64_t addr, const void *src, uint64_t bytes, uint64_t *ret_done),
     (uffd, addr, src, bytes, ret_done))
/* Events: read; forks; mremap; munmap; madvise; all applied. */
WRAP_VOID(event_log_add, (struct event_log * log, uint32_t n), (log, n))
WRAP_VOID(fork_note, (struct space * space, struct uffd_msg *msg), (space, msg))
WRAP_VOID(fork_one, (struct space * space, struct heirs *heirs, struct uffd_msg *msg),
	  (space, heirs, msg))
WRAP_VOID(fork_finish, (struct space * space, struct heirs *heirs), (space, heirs))
WRAP(int, pagemap_fork, (struct pagemap * parent, struct pagemap *ret_child), (parent, ret_child))
WRAP(int, pagemap_move_onto, (struct pagemap * map, uint64_t from, uint64_t to, uint64_t n),
     (map, from, to, n))
WRAP(int, pagemap_drop, (struct pagemap * map, uint64_t first, uint64_t n), (map, first, n))
WRAP(int, pagemap_remove, (struct pagemap * map, uint64_t first, uint64_t n), (map, first, n))
WRAP_VOID(event_log_clear, (struct event_log * log), (log))
/* An agent comes, or comes back. */
WRAP(int, conn_send, (struct conn * conn, const void *packet, size_t bytes, const int *fds, size_t n),
     (conn, packet, bytes, fds, n))
WRAP_VOID(agent_swap, (struct space * space, struct attach *attach), (space, attach))
WRAP_VOID(quiesce_note_all, (struct space * space), (space))
WRAP_VOID(comeback_settle, (struct space * space), (space))

static void __attribute__((constructor)) point_choose(void)
{
	const char *text = getenv("UHMM_CRASH");
	unsigned long long n = 0;
	uint64_t random;

	if (!text)
		return;
	if (sscanf(text, "%63[a-z_-]:%llu", point, &n) != 2 || n == 0 ||
	    getrandom(&random, sizeof(random), 0) != sizeof(random)) {
		fprintf(stderr, "uhmmd-crashing: UHMM_CRASH is POINT:N\n");
		_exit(2);
	}
	left = 1 + random % (2 * n);
}
