/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Enters, for all threads at once, a seccomp filter that kills the process on any
 * call that is not on a short list (nothing of a daemon's client is on it), with
 * memory away; then forks. Nobody is killed, and both sides find their bytes.
 *
 * argv[1] is how many MiB to touch after the filter is in force: 0 for nothing
 * new, more than the host target to be over it inside the sandbox. The child, too, has a
 * child: nobody but the daemon can find out who that is.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "prog.h"

#define LEN (32 * MIB)

static const unsigned int allowed[] = {
	SYS_read,	  SYS_write,	  SYS_exit,	SYS_exit_group,	   SYS_clone,
	SYS_clone3,	  SYS_wait4,	  SYS_futex,	SYS_rt_sigreturn,  SYS_rt_sigprocmask,
	SYS_rt_sigaction, SYS_mmap,	  SYS_munmap,	SYS_mprotect,	   SYS_brk,
	SYS_madvise,	  SYS_getpid,	  SYS_gettid,	SYS_set_robust_list, SYS_restart_syscall,
	SYS_rseq,	  SYS_clock_nanosleep, SYS_newfstatat, SYS_clock_gettime, SYS_tgkill,
};
#define N_ALLOWED (sizeof(allowed) / sizeof(allowed[0]))

static void enter_sandbox(void)
{
	struct sock_filter code[2 + 2 * N_ALLOWED + 1];
	struct sock_fprog prog = { .filter = code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < N_ALLOWED; i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	prog.len = n;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) == 0);
}

int main(int argc, char **argv)
{
	size_t extra = argc > 1 ? strtoul(argv[1], NULL, 0) * MIB : 0;
	char *mem = map_private(LEN), *more = map_private(extra ? extra : page_bytes());
	pid_t pid;

	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	enter_sandbox();
	pattern_check(mem, LEN / 4, 1);
	pattern_fill(more, extra, 2);
	usleep(300000);
	pid = fork();
	if (pid == 0) {
		pattern_check(mem, LEN / 2, 1);
		pid = fork();
		if (pid == 0) {
			pattern_check(mem, LEN, 1);
			_exit(0);
		}
		child_join(pid);
		pattern_check(mem, LEN, 1);
		pattern_fill(mem, LEN / 2, 3);
		usleep(200000);
		pattern_check(mem, LEN / 2, 3);
		pattern_check(more, extra, 2);
		_exit(0);
	}
	pattern_fill(mem + LEN / 2, LEN / 2, 4);
	child_join(pid);
	usleep(200000);
	pattern_check(mem, LEN / 2, 1);
	pattern_check(mem + LEN / 2, LEN / 2, 4);
	pattern_check(more, extra, 2);
	CHECK(write(1, "sandboxed\n", 10) == 10);
	return 0;
}
