/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The private daemon of `uhmm run`: its directory, its process, its log. Called by run.c
 * on the only thread. The daemon is in a session of its own, so that ^C is for the
 * command alone; it holds none of the user's descriptors, stderr included, because it
 * may outlive the command and whoever reads there waits for EOF.
 */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "paths.h"

#define PRIVATE_PARENT_DIR "/dev/shm"
#define READY_TIMEOUT_MS 30000
#define RELEASE_TIMEOUT_MS 500
#define LOG_PIPE_BYTES (1 << 18)

/* What the new daemon gets: its ends of three pipes. */
struct daemon_ends {
	int ready_fd;
	int lifeline_fd;
	int log_fd;
};

static int tree_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* Only when the daemon has ended: the pages in there are nobody's any more. */
static void private_remove_dir(const struct private_daemon *daemon)
{
	(void)nftw(daemon->dir, tree_remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Passable for everybody (a command may change its uid), readable for root only. */
static int private_make_dir(struct private_daemon *daemon)
{
	static const char *const subdirs[] = { "state", "pages" };
	char path[96];
	uint64_t number;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return -EIO;
	snprintf(daemon->dir, sizeof(daemon->dir), PRIVATE_PARENT_DIR "/uhmm-run-%d-%016" PRIx64,
		 (int)getpid(), number);
	snprintf(daemon->socket, sizeof(daemon->socket), "%s/uhmm.sock", daemon->dir);
	if (mkdir(daemon->dir, 0700) < 0 || chmod(daemon->dir, 0711) < 0)
		return -errno;
	for (size_t i = 0; i < sizeof(subdirs) / sizeof(*subdirs); i++) {
		snprintf(path, sizeof(path), "%s/%s", daemon->dir, subdirs[i]);
		if (mkdir(path, 0700) < 0)
			return -errno;
	}
	return 0;
}

/* In the new process. Nothing of the user's stays but the working directory. */
static void daemon_prepare(const struct daemon_ends *ends)
{
	sigset_t none;
	int null_fd;

	(void)setsid();
	/* Its log's reader goes before it may. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_DFL);
	(void)signal(SIGQUIT, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	(void)dup2(null_fd, STDIN_FILENO);
	(void)dup2(ends->log_fd, STDOUT_FILENO);
	(void)dup2(ends->log_fd, STDERR_FILENO);
	(void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	(void)fcntl(ends->ready_fd, F_SETFD, 0);
	(void)fcntl(ends->lifeline_fd, F_SETFD, 0);
	/* They are about the command, or about an uhmm around this one. */
	(void)unsetenv("LD_PRELOAD");
	(void)unsetenv("UHMM_SOCKET");
	(void)unsetenv("UHMM_GROUP");
}

static void __attribute__((noreturn))
daemon_exec(const char *path, const struct private_options *options,
	    const struct private_daemon *daemon, const struct daemon_ends *ends)
{
	char state_dir[96];
	char pages_dir[96];
	char ready[16];
	char lifeline[16];
	const char *argv[20];
	size_t n = 0;

	snprintf(state_dir, sizeof(state_dir), "%s/state", daemon->dir);
	snprintf(pages_dir, sizeof(pages_dir), "%s/pages", daemon->dir);
	snprintf(ready, sizeof(ready), "%d", ends->ready_fd);
	snprintf(lifeline, sizeof(lifeline), "%d", ends->lifeline_fd);
	argv[n++] = "uhmmd";
	argv[n++] = "--private";
	argv[n++] = "--socket";
	argv[n++] = daemon->socket;
	argv[n++] = "--state-dir";
	argv[n++] = state_dir;
	argv[n++] = "--pages-dir";
	argv[n++] = pages_dir;
	argv[n++] = "--group";
	argv[n++] = options->group;
	argv[n++] = "--ready-fd";
	argv[n++] = ready;
	argv[n++] = "--lifeline-fd";
	argv[n++] = lifeline;
	if (options->backend) {
		argv[n++] = "--backend";
		argv[n++] = options->backend;
	}
	if (options->verbose)
		argv[n++] = "-v";
	argv[n] = NULL;
	daemon_prepare(ends);
	execv(path, (char *const *)argv);
	dprintf(ends->ready_fd, "cannot execute %s: %s\n", path, strerror(errno));
	_exit(CLI_EXIT_NOT_EXECUTABLE);
}

/* Read the daemon's one line: "ready", or what is wrong. */
static int ready_wait(int fd, char *line, size_t line_size)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	size_t used = 0;
	int n_ready;
	ssize_t n;

	for (;;) {
		n_ready = poll(&pollfd, 1, READY_TIMEOUT_MS);
		if (n_ready < 0 && errno == EINTR)
			continue;
		if (n_ready <= 0)
			return n_ready ? -errno : -ETIMEDOUT;
		n = read(fd, line + used, line_size - 1 - used);
		if (n < 0)
			return -errno;
		used += (size_t)n;
		line[used] = '\0';
		if (n == 0 || strchr(line, '\n') || used == line_size - 1)
			break;
	}
	line[strcspn(line, "\n")] = '\0';
	return 0;
}

/* Returns its status, as waitpid has it. */
static int private_reap(struct private_daemon *daemon)
{
	int status = 0;

	while (waitpid(daemon->pid, &status, 0) < 0 && errno == EINTR)
		;
	daemon->pid = 0;
	return status;
}

static void close_and_forget(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* It did not come up: say why, end it, remove what it left. */
static void private_give_up(struct private_daemon *daemon, const char *line, int error)
{
	char text[256];

	(void)kill(daemon->pid, SIGKILL);
	(void)private_reap(daemon);
	(void)private_relay_log(daemon);
	if (*line)
		cli_error("the private daemon did not start: %s",
			  cli_printable(line, text, sizeof(text)));
	else
		cli_error("the private daemon did not start%s",
			  error == -ETIMEDOUT ? " in time" : ": it ended at once");
	close_and_forget(&daemon->pidfd);
	close_and_forget(&daemon->lifeline_fd);
	private_remove_dir(daemon);
}

/* Fork it; on return *daemon holds our ends. */
static int private_fork(const struct private_options *options, struct private_daemon *daemon)
{
	int ready[2];
	int lifeline[2];
	int log[2];

	if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(lifeline, O_CLOEXEC) < 0 ||
	    pipe2(log, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	/* Small is fine too. Both ends do not block: a log that nobody reads in time loses
	 * lines, and never holds up the daemon. */
	(void)fcntl(log[1], F_SETPIPE_SZ, LOG_PIPE_BYTES);
	daemon->pid = fork();
	if (daemon->pid < 0) {
		daemon->pid = 0;
		return -errno;
	}
	if (daemon->pid == 0) {
		const struct daemon_ends theirs = { ready[1], lifeline[0], log[1] };

		daemon_exec(daemon->path, options, daemon, &theirs);
	}
	(void)close(ready[1]);
	(void)close(lifeline[0]);
	(void)close(log[1]);
	daemon->ready_fd = ready[0];
	daemon->lifeline_fd = lifeline[1];
	daemon->log_fd = log[0];
	daemon->pidfd = pidfd_open(daemon->pid, 0);
	return 0;
}

static int private_find_program(const struct private_options *options,
				struct private_daemon *daemon)
{
	if (geteuid() != 0) {
		cli_error("a private daemon needs root: run as root, or start uhmmd and name its "
			  "socket with --socket");
		return -EPERM;
	}
	if (options->daemon) {
		snprintf(daemon->path, sizeof(daemon->path), "%s", options->daemon);
	} else if (paths_find_daemon(daemon->path) < 0) {
		cli_error("the daemon is missing: neither %s nor " UHMM_INSTALLED_DAEMON " exists",
			  daemon->path);
		return -ENOENT;
	}
	return 0;
}

int private_start(const struct private_options *options, struct private_daemon *ret_daemon)
{
	struct private_daemon daemon = {
		.pidfd = -1, .lifeline_fd = -1, .log_fd = -1, .ready_fd = -1
	};
	char line[256] = "";
	int error = private_find_program(options, &daemon);

	if (error)
		return error;
	error = private_make_dir(&daemon);
	if (!error)
		error = private_fork(options, &daemon);
	if (error) {
		cli_error("cannot start a private daemon in %s: %s", daemon.dir, strerror(-error));
		private_remove_dir(&daemon);
		return error;
	}
	error = ready_wait(daemon.ready_fd, line, sizeof(line));
	close_and_forget(&daemon.ready_fd);
	if (error || strcmp(line, "ready") != 0) {
		private_give_up(&daemon, line, error);
		return error ? error : -ECHILD;
	}
	*ret_daemon = daemon;
	return 0;
}

void private_take_end(struct private_daemon *daemon, char *ret_how, size_t size)
{
	int status = private_reap(daemon);

	if (WIFSIGNALED(status))
		snprintf(ret_how, size, "signal %d", WTERMSIG(status));
	else
		snprintf(ret_how, size, "status %d", WEXITSTATUS(status));
	if (daemon->log_fd >= 0)
		(void)private_relay_log(daemon);
	close_and_forget(&daemon->log_fd);
	close_and_forget(&daemon->pidfd);
	close_and_forget(&daemon->lifeline_fd);
	close_and_forget(&daemon->ready_fd);
}

int private_start_again(const struct private_options *options, struct private_daemon *daemon)
{
	/* A socket that an io_uring polled is closed a moment after its process has ended; the
	 * next daemon must not find it and think that somebody serves it. */
	(void)unlink(daemon->socket);
	return private_fork(options, daemon);
}

int private_take_ready(struct private_daemon *daemon, char *ret_line, size_t size)
{
	int error;

	*ret_line = '\0';
	error = ready_wait(daemon->ready_fd, ret_line, size);
	close_and_forget(&daemon->ready_fd);
	if (!error && strcmp(ret_line, "ready") == 0)
		return 0;
	(void)kill(daemon->pid, SIGKILL);
	return error ? error : -ECHILD;
}

bool private_relay_log(struct private_daemon *daemon)
{
	char buffer[4096];
	ssize_t n;

	while ((n = read(daemon->log_fd, buffer, sizeof(buffer))) > 0)
		(void)fwrite(buffer, 1, (size_t)n, stderr);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	close_and_forget(&daemon->log_fd);
	return false;
}

void private_release(struct private_daemon *daemon)
{
	struct pollfd pollfd = { .fd = daemon->pidfd, .events = POLLIN };

	if (!daemon->pid) {
		/* It died, and would not start again: nobody will bring these pages home. */
		if (daemon->dir[0])
			private_remove_dir(daemon);
		return;
	}
	close_and_forget(&daemon->lifeline_fd);
	if (poll(&pollfd, 1, RELEASE_TIMEOUT_MS) == 1) {
		(void)private_reap(daemon);
		/* One that was killed could not do it itself. */
		private_remove_dir(daemon);
	}
	if (daemon->log_fd >= 0)
		(void)private_relay_log(daemon);
	close_and_forget(&daemon->pidfd);
	daemon->pid = 0;
}
