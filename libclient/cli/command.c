/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starts the command of `uhmm run` and tells how it ended. Called by run.c on the only
 * thread. The command must find what it would find without uhmm: signal dispositions and
 * mask, process group, terminal, descriptors. Only its environment has more.
 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

/* What we change in ourselves, to be undone in the command. */
struct signal_state {
	struct sigaction interrupt;
	struct sigaction quit;
	struct sigaction child;
	sigset_t mask;
};

static void signals_take(struct signal_state *ret_old)
{
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	const struct sigaction standard = { .sa_handler = SIG_DFL };
	sigset_t terminal;

	/* Blocked over the fork, a ^C in between reaches the command all the same. */
	sigemptyset(&terminal);
	sigaddset(&terminal, SIGINT);
	sigaddset(&terminal, SIGQUIT);
	(void)sigprocmask(SIG_BLOCK, &terminal, &ret_old->mask);
	(void)sigaction(SIGINT, &ignore, &ret_old->interrupt);
	(void)sigaction(SIGQUIT, &ignore, &ret_old->quit);
	/* Inherited as ignored, it would keep the command's status from us. */
	(void)sigaction(SIGCHLD, &standard, &ret_old->child);
}

static void signals_give_back(const struct signal_state *old)
{
	(void)sigaction(SIGINT, &old->interrupt, NULL);
	(void)sigaction(SIGQUIT, &old->quit, NULL);
	(void)sigaction(SIGCHLD, &old->child, NULL);
	(void)sigprocmask(SIG_SETMASK, &old->mask, NULL);
}

/* Ours first: a library that replaces malloc must be found by it, not the other way. */
static int preload_prepend(const char *path)
{
	const char *others = getenv("LD_PRELOAD");
	char *value;
	int error;

	if (!others || !*others)
		return setenv("LD_PRELOAD", path, 1);
	if (asprintf(&value, "%s:%s", path, others) < 0)
		return -1;
	error = setenv("LD_PRELOAD", value, 1);
	free(value);
	return error;
}

static int environment_set(const struct command_env *env)
{
	if (!env->preload)
		return 0;
	if (setenv("UHMM_SOCKET", env->socket, 1) < 0 || setenv("UHMM_GROUP", env->group, 1) < 0)
		return -1;
	return preload_prepend(env->preload);
}

static void __attribute__((noreturn))
command_exec(char **argv, const struct command_env *env, int error_fd)
{
	int error;

	if (environment_set(env) == 0)
		execvp(argv[0], argv);
	error = errno;
	while (write(error_fd, &error, sizeof(error)) < 0 && errno == EINTR)
		;
	_exit(CLI_EXIT_NOT_EXECUTABLE);
}

/* The errno with which the exec failed; 0: it did not, and closed the pipe. */
static int exec_error_read(int fd)
{
	int error = 0;
	ssize_t n;

	do
		n = read(fd, &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(error) ? error : 0;
}

int command_start(char **argv, const struct command_env *env, pid_t *ret_pid, int *ret_status)
{
	struct signal_state old;
	int error_pipe[2];
	int error;
	pid_t pid;

	if (pipe2(error_pipe, O_CLOEXEC) < 0)
		return -errno;
	signals_take(&old);
	pid = fork();
	if (pid < 0) {
		error = -errno;
		signals_give_back(&old);
		(void)close(error_pipe[0]);
		(void)close(error_pipe[1]);
		return error;
	}
	if (pid == 0) {
		signals_give_back(&old);
		command_exec(argv, env, error_pipe[1]);
	}
	(void)sigprocmask(SIG_SETMASK, &old.mask, NULL);
	(void)close(error_pipe[1]);
	error = exec_error_read(error_pipe[0]);
	(void)close(error_pipe[0]);
	*ret_pid = pid;
	*ret_status = 0;
	if (!error)
		return 0;
	(void)command_wait(pid);
	cli_error("%s: %s", argv[0], strerror(error));
	*ret_status = error == ENOENT ? CLI_EXIT_NOT_FOUND : CLI_EXIT_NOT_EXECUTABLE;
	return 0;
}

int command_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return CLI_EXIT_RUN_FAIL;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
