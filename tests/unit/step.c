/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "step.h"

#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

bool step_is_possible(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 ? 1 : 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

void step_stay_on_this_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned int)sched_getcpu(), &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
}

static pid_t start(void (*change)(void), bool traced)
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid != 0)
		return pid;
	if (traced && ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(77);
	if (traced)
		raise(SIGSTOP);
	change();
	_exit(0);
}

static void has_ended_well(const char *name, int status)
{
	fixture_must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %#x", name,
		     status);
}

unsigned long step_through(const char *name, void (*change)(void), void (*look)(unsigned long n))
{
	pid_t pid = start(change, true);
	unsigned long n = 0;
	int status = 0;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	while (WIFSTOPPED(status)) {
		fixture_must(n == 0 || WSTOPSIG(status) == SIGTRAP, "%s: signal %d", name,
			     WSTOPSIG(status));
		look(n++);
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0)
			break;
		(void)waitpid(pid, &status, 0);
	}
	has_ended_well(name, status);
	return n;
}

void step_over(const char *name, void (*change)(void))
{
	pid_t pid = start(change, false);
	int status = 0;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	has_ended_well(name, status);
}
