/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libuhmm-preload.so: enrols an unmodified program before its main, and keeps the agent out of
 * the way of the few calls that a second thread would make fail or that would make it fail:
 * unshare, setns, and those that put a seccomp filter in force. No memory call is touched.
 *
 * It depends on the C library for getenv, getauxval, errno's address and the fork registry
 * only, the last weakly, so that it loads into a program with another C library and leaves it
 * alone. errno, signal mask and descriptors are for the program as if it were not here.
 */
#include <errno.h>
#include <linux/auxvec.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

#include "enrol.h"
#include "preload.h"
#include "sys.h"

#define EXPORT __attribute__((visibility("default")))

/* --- enrolment ----------------------------------------------------------------------- */

struct line {
	char text[512];
	size_t len;
};

static void line_add(struct line *line, const char *text)
{
	size_t len = strnlen(text, sizeof(line->text) - 1 - line->len);

	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void report(const struct enrol_why *why)
{
	const char *quiet = getenv("UHMM_QUIET");
	struct line line = { .len = 0 };

	if (quiet && strcmp(quiet, "1") == 0)
		return;
	line_add(&line, "uhmm: not managed: ");
	line_add(&line, why->text);
	if (why->reason != UHMM_REASON_NONE) {
		line_add(&line, " (");
		line_add(&line, uhmm_reason_name(why->reason));
		line_add(&line, ")");
	}
	line.text[line.len++] = '\n';
	(void)sys_call3(SYS_write, 2, (long)line.text, (long)line.len);
}

__attribute__((constructor)) static void preload_init(void)
{
	struct enrol_why why = { .reason = UHMM_REASON_NONE };

	/* A set-user-id program must not talk to a socket that its caller names. */
	if (getauxval(AT_SECURE))
		return;
	if (enrol_process(enrol_default_path(), &why) < 0)
		report(&why);
}

EXPORT int uhmm_preload_enrol(const char *path)
{
	struct enrol_why why;

	return enrol_process(path, &why);
}

/* --- wrappers ------------------------------------------------------------------------ */

static long with_errno(long ret)
{
	if (ret >= 0)
		return ret;
	errno = (int)-ret;
	return -1;
}

/*
 * Both are tried as they are first: most uses do not mind a second thread, and the kernel
 * refuses the others before it has changed anything. Only then the agent makes way.
 */
static bool minds_threads(long ret)
{
	/* EUSERS is setns' word for it with a time namespace. */
	return ret == -EINVAL || ret == -EUSERS;
}

EXPORT int unshare(int flags)
{
	long ret = sys_call1(SYS_unshare, flags);

	if (minds_threads(ret) && enrol_pause()) {
		ret = sys_call1(SYS_unshare, flags);
		enrol_resume();
	}
	return (int)with_errno(ret);
}

EXPORT int setns(int fd, int nstype)
{
	long ret = sys_call2(SYS_setns, fd, nstype);

	if (minds_threads(ret) && enrol_pause()) {
		ret = sys_call2(SYS_setns, fd, nstype);
		enrol_resume();
	}
	return (int)with_errno(ret);
}

/*
 * A filter that reaches the agent (TSYNC) would kill the program at the agent's next call, and
 * an agent beside a sandbox is a hole in it.
 */
static long sandboxed_call(long nr, long a1, long a2, long a3, long a4, long a5)
{
	bool begun = enrol_sandbox_begin();
	long ret = sys_call6(nr, a1, a2, a3, a4, a5, 0);

	/* TSYNC without TSYNC_ESRCH answers with the id of a thread that stood in its way. */
	if (begun)
		enrol_sandbox_end(ret >= 0);
	return with_errno(ret);
}

EXPORT int prctl(int option, ...)
{
	long arg[4];
	va_list args;

	va_start(args, option);
	for (int i = 0; i < 4; i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	if (option == PR_SET_SECCOMP)
		return (int)sandboxed_call(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3]);
	return (int)with_errno(sys_call6(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3], 0));
}

/* From the assembly below. */
__attribute__((visibility("hidden"), used)) long preload_syscall_error(long ret);
__attribute__((visibility("hidden"), used)) long preload_syscall_seccomp(long nr, long op,
									 long flags, long args);

long preload_syscall_error(long ret)
{
	return with_errno(ret);
}

long preload_syscall_seccomp(long nr, long op, long flags, long args)
{
	/* A filter without a program fails: it is how libraries ask which flags there are. */
	if (op == SECCOMP_SET_MODE_STRICT || (op == SECCOMP_SET_MODE_FILTER && args))
		return sandboxed_call(nr, op, flags, args, 0, 0);
	return with_errno(sys_call3(nr, op, flags, args));
}

/*
 * syscall(2), which is how a program asks for seccomp(2). Without a frame of its own, so that
 * six arguments pass through and calls that return twice or on another stack find it as they
 * find the C library's.
 */
__asm__(".pushsection .text\n"
	".globl syscall\n"
	".type syscall, @function\n"
	"syscall:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	cmp $317, %rdi\n" /* SYS_seccomp, checked below */
	"	je preload_syscall_seccomp\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n"
	"	mov %rcx, %rdx\n"
	"	mov %r8, %r10\n"
	"	mov %r9, %r8\n"
	"	mov 8(%rsp), %r9\n"
	"	syscall\n"
	"	cmp $-4095, %rax\n"
	"	jae 1f\n"
	"	ret\n"
	"1:	mov %rax, %rdi\n"
	"	jmp preload_syscall_error\n"
	"	.cfi_endproc\n"
	".size syscall, . - syscall\n"
	".popsection\n");
_Static_assert(SYS_seccomp == 317, "the number in the assembly above");
