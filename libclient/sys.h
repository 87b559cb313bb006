/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raw system calls, x86-64. Each returns what the kernel returned: a value, or a negative
 * errno. They touch neither errno nor thread-local storage, are no cancellation points and
 * cannot be interposed, so the agent, a fork handler and a constructor may all use them.
 */
#ifndef UHMM_LIBCLIENT_SYS_H
#define UHMM_LIBCLIENT_SYS_H

#include <stdint.h>
#include <sys/syscall.h>

#ifndef __x86_64__
/* System calls, the agent's clone and the wrapper of syscall(2) are written in its assembly. */
#error "uhmm's client library runs on x86-64 only"
#endif

static inline long sys_call6(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	register long r10 __asm__("r10") = a4;
	register long r8 __asm__("r8") = a5;
	register long r9 __asm__("r9") = a6;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a1), "S"(a2), "d"(a3), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static inline long sys_call4(long nr, long a1, long a2, long a3, long a4)
{
	return sys_call6(nr, a1, a2, a3, a4, 0, 0);
}

static inline long sys_call3(long nr, long a1, long a2, long a3)
{
	return sys_call6(nr, a1, a2, a3, 0, 0, 0);
}

static inline long sys_call2(long nr, long a1, long a2)
{
	return sys_call6(nr, a1, a2, 0, 0, 0, 0);
}

static inline long sys_call1(long nr, long a1)
{
	return sys_call6(nr, a1, 0, 0, 0, 0, 0);
}

static inline long sys_call0(long nr)
{
	return sys_call6(nr, 0, 0, 0, 0, 0, 0);
}

static inline void sys_close(int fd)
{
	(void)sys_call1(SYS_close, fd);
}

#endif
