/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libclient/agent.c with a bug, which the compiler is told (UHMM_PLANT_...): the agent can ask
 * nobody. Its system calls go through here.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "sys.h"
#include "uapi-mini.h"

#ifdef UHMM_PLANT_DONTNEED
/* A copy, and the page given up after: what is stored between the two is lost. Page by page, as
 * whoever asks is told. */
static long planted_move(int uffd, struct uhmm_uffdio_move *move)
{
	struct uffdio_copy copy;
	long err;

	for (uint64_t done = 0; done < move->len; done += 4096) {
		copy.dst = move->dst + done;
		copy.src = move->src + done;
		copy.len = 4096;
		copy.mode = 0;
		copy.copy = 0;
		err = sys_call3(SYS_ioctl, uffd, (long)UFFDIO_COPY, (long)&copy);
		if (err < 0)
			return err;
		(void)sys_call3(SYS_madvise, (long)(move->src + done), 4096, MADV_DONTNEED);
		move->move = (int64_t)(done + 4096);
	}
	return 0;
}
#else
static long planted_move(int uffd, struct uhmm_uffdio_move *move)
{
	return sys_call3(SYS_ioctl, uffd, (long)UHMM_UFFDIO_MOVE, (long)move);
}
#endif

static long planted_call3(long nr, long a1, long a2, long a3)
{
	if (nr == SYS_ioctl && a2 == (long)UHMM_UFFDIO_MOVE)
		return planted_move((int)a1, (struct uhmm_uffdio_move *)a3);
	return sys_call3(nr, a1, a2, a3);
}

static long planted_call4(long nr, long a1, long a2, long a3, long a4)
{
#ifdef UHMM_PLANT_TCB
	/* It does not look at what it moves. No object is so long that an offset in it could be
	 * taken for an address. */
	if (nr == SYS_pread64 && a4 >= 1l << 32)
		return a3;
#endif
	return sys_call4(nr, a1, a2, a3, a4);
}

#define sys_call3 planted_call3
#define sys_call4 planted_call4
#include "../../../libclient/agent.c"
