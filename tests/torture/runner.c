/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The runner. It starts each round's worlds, watches them, the daemon and the clock, and tells
 * how it ended. Unmanaged, one thread; it takes no part in the operations.
 *
 * A round is short and begins with new processes, so that its trace is whole.
 */
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actor.h"
#include "control.h"
#include "fail.h"
#include "killer.h"
#include "neighbour.h"
#include "nudger.h"
#include "ops.h"
#include "torture.h"
#include "trace.h"
#include "words.h"

#define ROUND_SEC 5.0
#define LOOK_NSEC 20000000
/* The daemon says that a page is lost; whoever touches it can say more. */
#define LOST_SEC 1.0
/* When all processes have ended, their files go within this. */
#define LEFT_SEC 10.0

struct world {
	pid_t pid; /* 0: it has ended; also the process group of all its descendants */
};

struct runner {
	const struct runner_options *options;
	struct service service;
	struct killer killer;
	pid_t nudger, neighbour, probe; /* 0: none */
	struct world worlds[ACTORS_MAX];
	struct {
		uint64_t beat;
		double since;
	} beats[ACTORS_MAX];
	double end;
	uint32_t n_rounds;
	uint32_t n_incomplete; /* children that had to end, in all rounds */
	double lost_since; /* 0: no page was lost */
};

static bool has_failed(void)
{
	return __atomic_load_n(&ctl->failure.state, __ATOMIC_ACQUIRE) != 0;
}

/* ---- worlds ------------------------------------------------------------------------------- */

/* What is executed next is in our group, if there is a daemon. */
static void be_managed(const struct runner *runner)
{
	if (runner->options->service.plain)
		return;
	(void)setenv("LD_PRELOAD", runner->service.preload, 1);
	/* Whoever enters a sandbox says so, and that is no news here. */
	(void)setenv("UHMM_QUIET", "1", 1);
	(void)setenv("UHMM_SOCKET", runner->service.socket, 1);
	(void)setenv("UHMM_GROUP", runner->service.group, 1);
}

static void __attribute__((noreturn)) world_exec(const struct runner *runner, uint32_t first)
{
	char fd[16], first_text[16], n[16];
	const char *const argv[] = { "uhmm-torture", "--world", fd, first_text, n, NULL };

	snprintf(fd, sizeof(fd), "%d", ctl->fd);
	snprintf(first_text, sizeof(first_text), "%u", first);
	snprintf(n, sizeof(n), "%u", ctl->n_threads);
	(void)setpgid(0, 0);
	words_redirect();
	be_managed(runner);
	(void)execv("/proc/self/exe", (char *const *)argv);
	_exit(126);
}

/* Whoever forks a world must not have the memfd open any more than the worlds: with a
 * descriptor left somewhere it is not managed. */
static int worlds_start(struct runner *runner)
{
	uint32_t n = ctl->n_processes * ctl->n_threads;

	ctl->memfd = memfd_create("uhmm-torture", 0);
	if (ctl->memfd < 0 || ftruncate(ctl->memfd, (off_t)(COMMON_PAGES * ctl->page_size)) < 0)
		return -errno;

	for (uint32_t i = 0; i < n; i++)
		if (!actor_new(i + 1, 0, TRACE_MAX))
			return -ENOSPC;
	for (uint32_t i = 0; i < ACTORS_MAX; i++)
		runner->beats[i].since = now_sec();
	for (uint32_t w = 0; w < ctl->n_processes; w++) {
		pid_t pid = fork();

		if (pid < 0)
			return -errno;
		if (pid == 0)
			world_exec(runner, w * ctl->n_threads);
		(void)setpgid(pid, pid);
		runner->worlds[w].pid = pid;
	}
	(void)close(ctl->memfd);
	return 0;
}

static void worlds_kill(struct runner *runner, int signo)
{
	for (uint32_t w = 0; w < ctl->n_processes; w++)
		if (runner->worlds[w].pid)
			(void)kill(-runner->worlds[w].pid, signo);
}

/* Reap what has ended: worlds, and orphans of theirs. */
static uint32_t worlds_reap(struct runner *runner)
{
	uint32_t left = 0;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (uint32_t w = 0; w < ctl->n_processes; w++)
			if (runner->worlds[w].pid == pid)
				runner->worlds[w].pid = 0;
		if (pid == runner->service.daemon.pid && runner->options->may_kill_itself &&
		    status == SIGKILL)
			(void)killer_follow(&runner->killer);
		else if (pid == runner->service.daemon.pid)
			fail_note("DIFFERENCE: the daemon ended, wait status %#x\n", status);
		else if (pid == runner->nudger || pid == runner->neighbour ||
			 pid == runner->probe)
			fail_note("DIFFERENCE: a helper ended, wait status %#x\n", status);
		else if (status != 0)
			fail_note("DIFFERENCE: process %d ended with wait status %#x\n", pid,
				  status);
	}
	for (uint32_t w = 0; w < ctl->n_processes; w++)
		left += runner->worlds[w].pid != 0;
	return left;
}

/* ---- the watchdog --------------------------------------------------------------------------- */

static void print_file(const char *dir, const char *name)
{
	char path[320], text[2048];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		(void)close(fd);
	if (n > 0)
		fprintf(stderr, "  %s: %.*s%s", name, (int)n, text, text[n - 1] == '\n' ? "" : "\n");
}

/* Where every thread of a process stands. */
static void print_threads(pid_t pid)
{
	const struct dirent *entry;
	char path[64], dir[320];
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(dir, sizeof(dir), "%s/%s", path, entry->d_name);
		fprintf(stderr, "process %d thread %s\n", pid, entry->d_name);
		print_file(dir, "comm");
		print_file(dir, "syscall");
		print_file(dir, "stack");
	}
	if (tasks)
		(void)closedir(tasks);
}

/* All processes of the worlds, and the daemon. */
static void print_everybody(const struct runner *runner)
{
	const struct dirent *entry;
	DIR *proc = opendir("/proc");

	while (proc && (entry = readdir(proc))) {
		pid_t pid = (pid_t)atoi(entry->d_name), group = pid > 0 ? getpgid(pid) : -1;
		bool ours = pid > 0 && (pid == runner->service.daemon.pid || pid == runner->probe);

		for (uint32_t w = 0; w < ctl->n_processes; w++)
			ours |= group > 0 && group == runner->worlds[w].pid;
		if (ours)
			print_threads(pid);
	}
	if (proc)
		(void)closedir(proc);
}

static void look_at_beats(struct runner *runner)
{
	double now = now_sec();

	for (uint32_t i = 0; i < ctl->n_actors && i < ACTORS_MAX; i++) {
		const struct actor *a = &ctl->actors[i];
		uint64_t beat = __atomic_load_n(&a->beat, __ATOMIC_RELAXED);

		if (beat != runner->beats[i].beat || a->waiting ||
		    __atomic_load_n(&a->state, __ATOMIC_ACQUIRE) != ACTOR_RUNNING) {
			runner->beats[i].beat = beat;
			runner->beats[i].since = now;
		}
		if (now - runner->beats[i].since < (a->asking ? ANSWER_SEC : HANG_SEC))
			continue;
		fail_note("DIFFERENCE: actor %08x (slot %u, pid %d, tid %d) hangs in operation %u: "
			  "%s\nseed %llu, round %u\n",
			  a->id, a->slot, a->pid, a->tid, a->n_ops, op_name(a->code),
			  (unsigned long long)ctl->seed, ctl->round);
		print_everybody(runner);
		return;
	}
}

static void look_at_daemon(struct runner *runner)
{
	struct service_numbers numbers = { 0 };

	if (runner->options->may_kill_itself && !service_is_alive(&runner->service))
		return; /* it will be reaped */
	if (!service_is_alive(&runner->service))
		fail_note("DIFFERENCE: the daemon has ended\n");
	else if (service_ask(&runner->service, &numbers) < 0 && !runner->options->may_kill_itself)
		fail_note("DIFFERENCE: the daemon does not answer\n");
	else if (numbers.lost_pages && runner->lost_since == 0)
		runner->lost_since = now_sec();
	else if (numbers.lost_pages && now_sec() - runner->lost_since > LOST_SEC)
		fail_note("DIFFERENCE: the daemon has lost %llu pages\n",
			  (unsigned long long)numbers.lost_pages);
}

/* ---- rounds ----------------------------------------------------------------------------------- */

static void round_watch(struct runner *runner)
{
	double stop = now_sec() + ROUND_SEC;

	if (stop > runner->end && !ctl->replaying)
		stop = runner->end;
	while (worlds_reap(runner) && !has_failed()) {
		if (now_sec() >= stop)
			__atomic_store_n(&ctl->stop, 1, __ATOMIC_RELAXED);
		look_at_beats(runner);
		if (!runner->options->service.plain && killer_step(&runner->killer) &&
		    killer_has_daemon(&runner->killer))
			look_at_daemon(runner);
		killer_sleep(&runner->killer, LOOK_NSEC);
	}
}

/* The command that does it again, on the same daemon and with the same bug, if it has one. */
static void failure_say_again(const struct runner_options *options, const char *trace)
{
	const char *plant = getenv("UHMM_PLANT");

	fprintf(stderr, "trace: %s\nagain:", trace ? trace : "(nowhere)");
	if (plant)
		fprintf(stderr, " UHMM_PLANT=%s", plant);
	for (char **word = options->argv; *word; word++)
		fprintf(stderr, " %s", *word);
	if (!ctl->replaying)
		fprintf(stderr, " --replay %s", trace ? trace : "FILE");
	fprintf(stderr, "\n");
}

/* Whoever failed first may still be writing. */
static void failure_show(struct runner *runner)
{
	const struct timespec look = { .tv_nsec = LOOK_NSEC };

	for (int i = 0; i < 100 && __atomic_load_n(&ctl->failure.state, __ATOMIC_ACQUIRE) != 2; i++)
		(void)nanosleep(&look, NULL);
	worlds_kill(runner, SIGSTOP);
	(void)service_is_alive(&runner->service);
	(void)words_pass_on();
	fprintf(stderr, "%s", ctl->failure.text);
	if (!strstr(ctl->failure.text, "DIFFERENCE"))
		fprintf(stderr, "DIFFERENCE: a process that is too broken to say more\n");
	fprintf(stderr, "seed %llu, round %u\n", (unsigned long long)ctl->seed, ctl->round);
	failure_say_again(runner->options, trace_write());
	if (runner->options->keep) {
		fprintf(stderr, "everything stays as it is until this process ends (pid %d)\n",
			(int)getpid());
		for (;;)
			(void)pause();
	}
}

/* A world that finds none runs without. */
static void wait_for_daemon(struct runner *runner)
{
	while (!has_failed() && !killer_has_daemon(&runner->killer)) {
		(void)worlds_reap(runner);
		(void)killer_step(&runner->killer);
		killer_sleep(&runner->killer, LOOK_NSEC);
	}
}

static bool round_run(struct runner *runner)
{
	int error;

	control_reset();
	if (runner->options->replay && trace_reread(runner->options->replay) < 0)
		return false;
	wait_for_daemon(runner);
	error = worlds_start(runner);
	if (error)
		fail_note("DIFFERENCE: cannot start a world: %s\n", strerror(-error));
	round_watch(runner);
	if (has_failed())
		failure_show(runner);
	worlds_kill(runner, SIGKILL);
	while (worlds_reap(runner))
		(void)usleep(1000);
	runner->n_incomplete += words_pass_on();
	runner->n_rounds++;
	return !has_failed();
}

static void helper_stop(pid_t *pid)
{
	if (*pid <= 0)
		return;
	(void)kill(*pid, SIGKILL);
	(void)waitpid(*pid, NULL, 0);
	*pid = 0;
}

static void probe_start(struct runner *runner)
{
	char fd[16];
	pid_t pid = fork();

	if (pid == 0) {
		be_managed(runner);
		snprintf(fd, sizeof(fd), "%d", ctl->fd);
		(void)execl("/proc/self/exe", "uhmm-torture", "--probe", fd, NULL);
		_exit(126);
	}
	runner->probe = pid;
}

/* Everybody is gone: so is all that was theirs, in the end. */
static bool look_for_left(const struct runner *runner)
{
	double until = now_sec() + LEFT_SEC;
	const char *left;

	while ((left = service_find_left(&runner->service)) && now_sec() < until)
		(void)usleep(20000);
	if (left)
		fprintf(stderr, "DIFFERENCE: nobody is there, and %s is\n", left);
	return !left;
}

/* The last daemon has all to do that the ones before had begun. */
static bool kills_finish(struct runner *runner, bool good)
{
	if (runner->options->may_kill_itself)
		helper_stop(&runner->probe); /* it may do so at the end, too */
	if (runner->options->may_kill_itself || runner->options->kill_ms == 0)
		return good;
	if (good && !killer_finish(&runner->killer)) {
		failure_show(runner);
		good = false;
	}
	helper_stop(&runner->probe);
	return good && look_for_left(runner);
}

static void print_costs(void)
{
	for (uint32_t i = 0; i < ops_count(); i++)
		if (ctl->costs[i].n)
			printf("%-16s %9llu times %9.1f us each %8.1f s in all\n", op_name(i),
			       (unsigned long long)ctl->costs[i].n,
			       (double)ctl->costs[i].ns / 1e3 / (double)ctl->costs[i].n,
			       (double)ctl->costs[i].ns / 1e9);
}

static int runner_finish(struct runner *runner, bool good)
{
	struct service_numbers numbers = { 0 };
	bool plain = runner->options->service.plain;

	if (!plain) {
		good = kills_finish(runner, good);
		if (service_ask(&runner->service, &numbers) < 0)
			numbers = runner->service.before;
		helper_stop(&runner->nudger);
		service_stop(&runner->service);
	}
	helper_stop(&runner->neighbour);
	if (runner->options->verbose)
		print_costs();
	fflush(stderr);
	if (runner->killer.n_kills)
		killer_print(&runner->killer, runner->n_incomplete);
	printf("rounds=%u\noperations=%llu evictions=%llu faults=%llu mismatches=%u\n",
	       runner->n_rounds, (unsigned long long)ctl->operations,
	       (unsigned long long)numbers.evictions, (unsigned long long)numbers.faults, !good);
	if (good && (ctl->operations == 0 || (!plain && (!numbers.evictions || !numbers.faults)))) {
		fprintf(stderr, "uhmm-torture: a run in which nothing happened proves nothing\n");
		good = false;
	}
	return good ? 0 : 1;
}

int runner_main(const struct runner_options *options)
{
	static struct runner runner;
	bool good = true;

	runner.options = options;
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!options->service.plain) {
		if (service_start(&options->service, &runner.service) < 0) {
			service_stop(&runner.service);
			return 2;
		}
		if (options->kill_ms || options->may_kill_itself)
			probe_start(&runner);
		if ((options->kill_ms || options->may_kill_itself) && words_open() < 0)
			return 2;
		runner.nudger = nudger_start(runner.service.socket);
	}
	killer_init(&runner.killer, &runner.service, options->kill_ms, ctl->seed);
	runner.killer.kills_itself = options->may_kill_itself;
	runner.neighbour = neighbour_start();
	runner.end = now_sec() + options->seconds;
	while (good && now_sec() < runner.end) {
		good = round_run(&runner);
		if (!ctl->replaying)
			ctl->round++;
	}
	return runner_finish(&runner, good);
}
