/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * under_filter [--errno] [--deny CALL]... [NAME=VALUE]... COMMAND [ARGUMENT]...
 *
 * Executes COMMAND under a seccomp filter, as a service manager does, that allows what
 * libclient/sandbox.h says is needed, and what a small program needs itself; any other call
 * kills the process (--errno: fails with EPERM).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "sandbox.h"
#include "uapi-mini.h"

#define AS_CALL(name, ...) { #name, SYS_##name },
#define PLAIN(name) { #name, SYS_##name }

static const struct call {
	const char *name;
	unsigned int nr;
} calls[] = {
	SANDBOX_CALLS(AS_CALL)
	/* The loader's, the C library's, and the programs' own. */
	PLAIN(access), PLAIN(arch_prctl), PLAIN(brk), PLAIN(capset), PLAIN(clock_nanosleep),
	PLAIN(clone3), PLAIN(execve), PLAIN(exit_group), PLAIN(getrandom), PLAIN(gettid),
	PLAIN(lseek), PLAIN(mremap), PLAIN(newfstatat), PLAIN(prlimit64), PLAIN(rseq),
	PLAIN(rt_sigaction), PLAIN(rt_sigreturn), PLAIN(sched_yield), PLAIN(seccomp),
	PLAIN(set_robust_list), PLAIN(set_tid_address),
};
#define N_CALLS (sizeof(calls) / sizeof(*calls))

static bool denied[N_CALLS];

static void deny(const char *name)
{
	bool found = false;

	for (size_t i = 0; i < N_CALLS; i++)
		if (!strcmp(calls[i].name, name))
			denied[i] = found = true;
	if (!found) {
		fprintf(stderr, "under_filter: no call '%s'\n", name);
		exit(125);
	}
}

static void enter(unsigned int otherwise)
{
	struct sock_filter code[2 * N_CALLS + 2];
	struct sock_fprog prog = { .filter = code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < N_CALLS; i++) {
		if (denied[i])
			continue;
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].nr, 0,
							 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, otherwise);
	prog.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0) {
		perror("under_filter");
		exit(125);
	}
}

int main(int argc, char **argv)
{
	unsigned int otherwise = SECCOMP_RET_KILL_PROCESS;
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--errno"))
			otherwise = SECCOMP_RET_ERRNO | EPERM;
		else if (!strcmp(argv[i], "--deny") && i + 1 < argc)
			deny(argv[++i]);
	}
	for (; i < argc && strchr(argv[i], '='); i++)
		(void)putenv(argv[i]);
	if (i == argc)
		return 125;
	enter(otherwise);
	execv(argv[i], argv + i);
	return 127;
}
