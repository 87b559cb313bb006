/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An agent that makes way. Called by enrol.c with its lock held and all signals blocked, on the
 * thread that wants the agent out of its way.
 *
 * The agent's userfaultfd may be the last there is, and with the last one memory that is away
 * would read as zeros: there may be no daemon, and one that there is may die at any moment. So
 * the agent is brought to rest, what it holds is taken over into this table, and only then it
 * ends. Never here: a wait without a bound, or the end of an agent that nobody has followed.
 */
#include "pause.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/stat.h>
#include <time.h>

#include "sys.h"

/* An agent rests as soon as it has done what the daemon asked for last. */
#define REST_MS 5000
/* A daemon that is started anew is there by then. */
#define DAEMON_MS 5000
#define LOOK_MS 10

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

static enum agent_at where(const struct uhmm_agent *agent)
{
	return (enum agent_at)__atomic_load_n(&agent->at, __ATOMIC_ACQUIRE);
}

static void await_change(const struct uhmm_agent *agent, enum agent_at at)
{
	const struct timespec time = { .tv_nsec = LOOK_MS * 1000000L };

	(void)sys_call4(SYS_futex, (long)&agent->at, FUTEX_WAIT_PRIVATE, (long)at, (long)&time);
}

/* --- what it holds ------------------------------------------------------------------- */

static void close_kept(struct enrol *self)
{
	if (self->kept.uffd >= 0)
		sys_close(self->kept.uffd);
	for (uint32_t i = 0; i < self->kept.n_children; i++)
		sys_close(self->kept.children[i].fd);
	self->kept.uffd = -1;
	self->kept.n_children = 0;
}

void pause_forget(struct enrol *self)
{
	close_kept(self);
}

static int take(int pidfd, int fd)
{
	return (int)sys_call3(SYS_pidfd_getfd, pidfd, fd, 0);
}

static int take_all(struct enrol *self, const struct uhmm_agent *agent, int pidfd)
{
	struct kept *kept = &self->kept;
	int fd = take(pidfd, agent->uffd);

	if (fd < 0)
		return fd;
	kept->uffd = fd;
	for (uint32_t i = 0; i < agent->n_children; i++) {
		fd = take(pidfd, agent->children[i].fd);
		if (fd < 0)
			return fd;
		kept->children[i] = agent->children[i];
		kept->children[i].fd = fd;
		kept->n_children = i + 1;
	}
	return 0;
}

/* Out of the table of an agent that rests. Not under a filter, which nobody asked about these
 * two calls; and an older kernel has no pidfd of a thread. */
static int keep(struct enrol *self, const struct uhmm_agent *agent)
{
	int err, pidfd;

	close_kept(self);
	if (self->sandbox.filtered)
		return -EPERM;
	pidfd = (int)sys_call2(SYS_pidfd_open, self->agent_tid, PIDFD_THREAD);
	if (pidfd < 0)
		return pidfd;
	err = take_all(self, agent, pidfd);
	sys_close(pidfd);
	if (err < 0)
		close_kept(self);
	return err;
}

/* --- rest ---------------------------------------------------------------------------- */

/* Has the daemon gone, of which the agent will hear in a moment, is it the next one already, to
 * which the agent has not come back, or has it too much to do, or its end? */
static bool may_pass(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || err == -ENOTCONN || err == -ESRCH ||
	       err == -EAGAIN || err == -EBUSY;
}

/* *ret_dismissed: there was a daemon, and it let go of the agent. On an error the agent goes on. */
static int bring_to_rest(struct enrol *self, struct uhmm_agent *agent, bool home,
			 bool *ret_dismissed)
{
	long until_ms = link_now_ms() + REST_MS;
	enum agent_at at;
	int err = 0;

	*ret_dismissed = false;
	spawn_release(agent, AGENT_GO_LINGER);
	while ((at = where(agent)) != AGENT_AT_REST && link_now_ms() < until_ms) {
		if (at == AGENT_AT_WORK && !*ret_dismissed) {
			err = journey_dismiss_agent(self, home);
			*ret_dismissed = err == 0;
			if (err && !may_pass(err))
				break;
		}
		await_change(agent, at);
	}
	if (where(agent) == AGENT_AT_REST)
		return 0;
	spawn_release(agent, AGENT_GO_RUN);
	return err ? err : -ETIMEDOUT;
}

static int end_at_rest(const struct enrol *self, struct uhmm_agent *agent)
{
	spawn_release(agent, AGENT_GO_ABORT);
	return spawn_agent_gone(agent, self->agent_tid, JOURNEY_END_MS) ? 0 : -ETIMEDOUT;
}

/* --- the last one -------------------------------------------------------------------- */

/* Memory that is away now comes home only if a daemon gets what the agent holds before. */
static void await_daemon(const struct uhmm_agent *agent)
{
	long until_ms = link_now_ms() + DAEMON_MS;

	while (where(agent) == AGENT_AT_LOSS && agent->daemon.sun_path[0] &&
	       link_now_ms() < until_ms)
		await_change(agent, AGENT_AT_LOSS);
}

/* Nobody follows this agent: all that is away comes home before it ends. A daemon that died
 * over that is waited for once more. False: it is there still. */
static bool end_for_good(struct enrol *self)
{
	struct uhmm_agent *agent = spawn_agent_of(&self->private);
	long until_ms = link_now_ms() + DAEMON_MS;
	bool dismissed;

	for (;;) {
		await_daemon(agent);
		if (bring_to_rest(self, agent, true, &dismissed) < 0)
			return false;
		if (dismissed)
			return end_at_rest(self, agent) == 0;
		if (!agent->daemon.sun_path[0] || link_now_ms() >= until_ms)
			return false;
		spawn_release(agent, AGENT_GO_RUN);
	}
}

/* A process whose children go to another pid namespace has no new threads. */
static bool may_have_threads(const struct enrol *self)
{
	static const char own_path[] = "/proc/self/ns/pid";
	static const char child_path[] = "/proc/self/ns/pid_for_children";
	struct stat own, child;

	/* Nobody asked a filter about that. */
	if (self->sandbox.filtered ||
	    sys_call4(SYS_newfstatat, AT_FDCWD, (long)own_path, (long)&own, 0) < 0)
		return true;
	return sys_call4(SYS_newfstatat, AT_FDCWD, (long)child_path, (long)&child, 0) == 0 &&
	       child.st_ino == own.st_ino;
}

int pause_begin(struct enrol *self)
{
	struct uhmm_agent *agent = spawn_agent_of(&self->private);
	bool dismissed;
	int err;

	if (!may_have_threads(self)) {
		if (end_for_good(self))
			return 0;
		spawn_release(agent, AGENT_GO_RUN);
		return -EAGAIN;
	}
	err = bring_to_rest(self, agent, false, &dismissed);
	if (err)
		return err;
	err = keep(self, agent);
	if (err && !dismissed) {
		spawn_release(agent, AGENT_GO_RUN);
		return err;
	}
	/* One that a debugger stopped will end later: what was kept stays open, then. */
	return end_at_rest(self, agent);
}

void pause_end(struct enrol *self)
{
	struct enrol_why why;
	int err = journey_enrol(self, UHMM_ROLE_CHILD, &why);

	if (err && self->kept.uffd >= 0)
		err = journey_hold(self);
	/* No thread for it: nothing may need it, then. */
	if (err && self->kept.uffd >= 0)
		err = journey_dismiss_agent(self, true);
	/* Now in the agent's table, or all is home. Else this is the only one. */
	if (!err)
		close_kept(self);
}

/* --- filters ------------------------------------------------------------------------- */

void pause_before_filter(struct enrol *self)
{
	(void)end_for_good(self);
}

void pause_without_filter(struct enrol *self)
{
	/* Also one that saw the ring's flag, and does not look for a daemon for that. */
	spawn_release(spawn_agent_of(&self->private), AGENT_GO_RUN);
}
