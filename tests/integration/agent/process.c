/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The victim as a process: start, talk to it, look at it in /proc. See mock.h.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mock.h"

#define must(condition) ck_assert_msg((condition), "%s: %s", #condition, strerror(errno))

static _Noreturn void become_victim(const struct mock *mock, const char *program,
				    const char *preload, const char *words,
				    const char *extra_env)
{
	char copy[300];
	char *argv[8] = { (char *)(uintptr_t)program };
	char *rest = copy;
	size_t n = 1;

	/* A test that fails must not leave it behind. */
	alarm(60);
	snprintf(copy, sizeof(copy), "%s", words);
	while (n < 7 && (argv[n] = strtok_r(rest, " ", &rest)))
		n++;
	must(close_range(3, ~0u, 0) == 0);
	if (preload)
		setenv("LD_PRELOAD", preload, 1);
	setenv("UHMM_SOCKET", mock->socket_path, 1);
	unsetenv("UHMM_QUIET");
	if (extra_env)
		putenv((char *)(uintptr_t)extra_env);
	execv(program, argv);
	_exit(127);
}

void victim_start(const struct mock *mock, struct victim *victim, const char *words,
		  const char *extra_env)
{
	victim_start_program(mock, victim, VICTIM, PRELOAD, words, extra_env);
}

void victim_start_program(const struct mock *mock, struct victim *victim, const char *program,
			  const char *preload, const char *words, const char *extra_env)
{
	int in[2], out[2], err[2];

	must(pipe2(in, O_CLOEXEC) == 0);
	must(pipe2(out, O_CLOEXEC) == 0);
	must(pipe2(err, O_CLOEXEC) == 0);
	victim->pid = fork();
	must(victim->pid >= 0);
	if (victim->pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		become_victim(mock, program, preload, words, extra_env);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	victim->to = in[1];
	victim->from = out[0];
	victim->err = err[0];
}

static bool read_byte(int fd, char *byte)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	ck_assert_msg(poll(&pfd, 1, MOCK_WAIT_MS) == 1, "the program says nothing");
	return read(fd, byte, 1) == 1;
}

void victim_read_line(struct victim *victim, char *line, size_t room)
{
	size_t len = 0;

	while (len < room - 1 && read_byte(victim->from, &line[len]) && line[len] != '\n')
		len++;
	line[len] = '\0';
}

uint64_t victim_read_number(struct victim *victim)
{
	char line[64];
	char *end;
	uint64_t number;

	victim_read_line(victim, line, sizeof(line));
	number = strtoull(line, &end, 0);
	ck_assert_msg(end != line && *end == '\0', "not a number: '%s'", line);
	return number;
}

void victim_go_on(struct victim *victim)
{
	must(write(victim->to, "\n", 1) == 1);
}

int victim_wait(struct victim *victim)
{
	int status;

	/* Its alarm bounds this. */
	must(waitpid(victim->pid, &status, 0) == victim->pid);
	return status;
}

void victim_read_stderr(struct victim *victim, char *text, size_t room)
{
	size_t len = 0;

	while (len < room - 1 && read_byte(victim->err, &text[len]))
		len++;
	text[len] = '\0';
}

void proc_status(pid_t pid, pid_t tid, const char *field, char *value, size_t room)
{
	char path[64];
	char line[256];
	size_t len = strlen(field);
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	file = fopen(path, "re");
	must(file);
	value[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, field, len) != 0 || line[len] != ':')
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(value, room, "%s", line + len + 2);
	}
	fclose(file);
}

unsigned int proc_count_fds(pid_t pid, pid_t tid)
{
	char path[64];
	unsigned int n = 0;
	const struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/fd", pid, tid);
	dir = opendir(path);
	must(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

void proc_await_agent_fds(pid_t pid, unsigned int n)
{
	pid_t tid = proc_find_agent(pid);
	unsigned int found = proc_count_fds(pid, tid);

	for (int i = 0; i < 300 && found != n; i++) {
		usleep(10 * 1000);
		found = proc_count_fds(pid, tid);
	}
	ck_assert_uint_eq(found, n);
}

pid_t proc_find_agent(pid_t pid)
{
	char path[64];
	char name[64];
	pid_t found = 0;
	const struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	must(dir);
	while ((entry = readdir(dir))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid == 0)
			continue;
		proc_status(pid, tid, "Name", name, sizeof(name));
		if (strcmp(name, "uhmm-agent") == 0)
			found = tid;
	}
	closedir(dir);
	return found;
}
