/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a seccomp filter that was there before us lets pass. Called by enrolment, with its lock
 * held and all signals blocked. Raw system calls only; nothing is printed or allocated.
 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "agent.h"
#include "link.h"
#include "sys.h"
#include "uapi-mini.h"

/* A supervisor that is asked about each call may take its time; not more than this. */
#define TRIAL_MS 2000
#define TRIAL_PASSED 42

struct trial {
	long nr;
	long args[6];
	long answer;
};

#define AS_TRIAL(name, a1, a2, a3, a4, a5, a6, answer)                                             \
	{ SYS_##name, { (long)(a1), (long)(a2), (long)(a3), (long)(a4), (long)(a5), (long)(a6) },  \
	  answer },

/* The last one ends the process that tries. */
static const struct trial trials[] = { SANDBOX_CALLS(AS_TRIAL) };
#define N_TRIALS (sizeof(trials) / sizeof(*trials) - 1)

static const char *find_field(const char *text, const char *key)
{
	const char *found = strstr(text, key);

	return found ? found + strlen(key) : "";
}

void sandbox_look(struct sandbox *ret_sandbox)
{
	static const char status_path[] = "/proc/self/status";
	char text[4096];
	long fd = sys_call4(SYS_openat, AT_FDCWD, (long)status_path, O_RDONLY | O_CLOEXEC, 0);
	const char *caps;
	long n;

	*ret_sandbox = (struct sandbox){ 0 };
	if (fd < 0)
		return;
	n = sys_call3(SYS_read, fd, (long)text, sizeof(text) - 1);
	sys_close((int)fd);
	text[n > 0 ? n : 0] = '\0';
	ret_sandbox->filtered = *find_field(text, "\nSeccomp:\t") != '0' &&
				*find_field(text, "\nSeccomp:\t") != '\0';
	for (caps = find_field(text, "\nCapPrm:\t"); *caps == '0'; caps++)
		;
	ret_sandbox->has_caps = *caps != '\n' && *caps != '\0';
}

static bool trial_passes(const struct trial *trial)
{
	const long *a = trial->args;
	long ret = sys_call6(trial->nr, a[0], a[1], a[2], a[3], a[4], a[5]);

	if (trial->answer == SANDBOX_OK)
		return (unsigned long)ret < -4095ul;
	return ret == trial->answer;
}

/* In the forked process. */
__attribute__((noreturn)) static void try_all(const struct sandbox *sandbox)
{
	bool passes = true;

	/* Killed, it leaves no core. */
	(void)sys_call6(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
	for (size_t i = 0; i < N_TRIALS && passes; i++)
		passes = trial_passes(&trials[i]);
	/* What the agent has to lay down it must be able to. */
	if (passes && sandbox->has_caps)
		passes = sys_call2(SYS_capset, 0, 0) == -EFAULT;
	for (;;)
		(void)sys_call1(SYS_exit, passes ? TRIAL_PASSED : 0);
}

bool sandbox_allows_agent(const struct sandbox *sandbox)
{
	const struct timespec nap = { .tv_nsec = 100 * 1000 };
	long until_ms = link_now_ms() + TRIAL_MS;
	int status = 0;
	/* A fork that no handler hears of, and whose end sends no signal. */
	long got, pid = sys_call6(SYS_clone, 0, 0, 0, 0, 0, 0);

	if (pid == 0)
		try_all(sandbox);
	if (pid < 0)
		return false;
	while ((got = sys_call4(SYS_wait4, pid, (long)&status, WNOHANG | __WALL, 0)) == 0) {
		if (link_now_ms() < until_ms)
			(void)sys_call2(SYS_nanosleep, (long)&nap, 0);
		else
			(void)sys_call2(SYS_kill, pid, SIGKILL);
	}
	return got == pid && WIFEXITED(status) && WEXITSTATUS(status) == TRIAL_PASSED;
}
