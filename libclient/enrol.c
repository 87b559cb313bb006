/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one enrolment of this process: who may change it, what a forked child does about it, and
 * how the agent is taken away for a moment. Called from a constructor, from wrappers, from
 * uhmm_open and from fork's child handler, on the program's own threads.
 *
 * It allocates nothing from the C library, prints nothing but a last word of a child that
 * cannot go on, leaves errno alone, holds no lock over a fork, and waits for nobody without a
 * bound. While it works all signals are blocked, so that no handler of the program sees a
 * half-made state.
 */
#include "enrol.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "journey.h"
#include "pause.h"
#include "sys.h"

/* Somebody else's journey lasts part of a millisecond, or until the daemon was given up. */
#define LOCK_MS 20000
/* A daemon that is started anew serves by then. */
#define CHILD_MS 5000

static struct enrol self = { .fds = { -1, -1, -1, -1, -1 }, .kept = { .uffd = -1 } };

/* The C library's own registry of fork handlers. Weak: another C library has none of that
 * name, and without it a child could not be told of what is missing in its memory. */
extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void),
			     void *dso_handle) __attribute__((weak));
extern void *__dso_handle __attribute__((visibility("hidden")));

/* Is this the process that the state speaks of, and not a child that shares our memory? */
static bool is_ours(void)
{
	return self.pid == (int32_t)sys_call0(SYS_getpid);
}

static bool has_agent(void)
{
	return self.enrolled &&
	       __atomic_load_n(&spawn_agent_of(&self.private)->tid, __ATOMIC_ACQUIRE) != 0;
}

/* --- a critical section -------------------------------------------------------------- */

static void signals_block(uint64_t *ret_old)
{
	/* Raw, because the C library's sigfillset leaves out the two signals it uses itself,
	 * and the agent inherits this mask. */
	const uint64_t all = ~0ull;

	(void)sys_call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)ret_old, sizeof(all));
}

static void signals_restore(const uint64_t *old)
{
	(void)sys_call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)old, 0, sizeof(*old));
}

static bool try_lock(void)
{
	return __atomic_exchange_n(&self.busy, 1, __ATOMIC_ACQUIRE) == 0;
}

static bool lock_bounded(void)
{
	const struct timespec nap = { .tv_nsec = 1000 * 1000 };
	long until_ms = link_now_ms() + LOCK_MS;

	while (!try_lock()) {
		if (link_now_ms() >= until_ms)
			return false;
		(void)sys_call2(SYS_nanosleep, (long)&nap, 0);
	}
	return true;
}

static void unlock(void)
{
	__atomic_store_n(&self.busy, 0, __ATOMIC_RELEASE);
}

/* --- sandboxes ----------------------------------------------------------------------- */

/* Does anybody say so, us or the daemon? Makes no system call. */
static bool is_sandboxed(void)
{
	const struct uhmm_ring *ring = self.ring.addr;

	return self.sandboxed ||
	       (ring && (__atomic_load_n(&ring->flags, __ATOMIC_ACQUIRE) & UHMM_RING_SANDBOXED));
}

static void mark_sandboxed(bool sandboxed)
{
	struct uhmm_ring *ring = self.ring.addr;

	self.sandboxed = sandboxed;
	if (!ring)
		return;
	if (sandboxed)
		(void)__atomic_fetch_or(&ring->flags, UHMM_RING_SANDBOXED, __ATOMIC_ACQ_REL);
	else
		(void)__atomic_fetch_and(&ring->flags, ~UHMM_RING_SANDBOXED, __ATOMIC_ACQ_REL);
}

/*
 * Were we started under a filter that an agent cannot live under? To find out takes a fork, and
 * a filter may kill for that too: only where somebody who knows the filter has asked for it.
 */
static bool starts_sandboxed(void)
{
	const char *filter = getenv("UHMM_FILTER");

	sandbox_look(&self.sandbox);
	if (!self.sandbox.filtered)
		return false;
	return !filter || strcmp(filter, "try") != 0 || !sandbox_allows_agent(&self.sandbox);
}

/* --- fork ---------------------------------------------------------------------------- */

__attribute__((noreturn)) static void die_incomplete(void)
{
	static const char text[] = "uhmm: this child was forked while the daemon died; its memory "
				   "is incomplete, so it ends here\n";
	long pid = sys_call0(SYS_getpid);

	(void)sys_call3(SYS_write, 2, (long)text, sizeof(text) - 1);
	for (;;)
		(void)sys_call2(SYS_kill, pid, SIGKILL);
}

/* In the child: what the parent's journey had open, and what was mapped DONTFORK, is not ours. */
static void forget_parent(void)
{
	self.busy = 0;
	self.enrolled = false;
	self.staging = (struct spawn_area){ 0 };
	self.private = (struct spawn_area){ 0 };
}

static bool is_between_daemons(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || err == -ENOTCONN || err == -EAGAIN;
}

/* The daemon that gave us the token was there a moment ago: the next one will be. */
static int enrol_child(enum uhmm_role role)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	long until_ms = link_now_ms() + CHILD_MS;
	struct enrol_why why;
	int err;

	while (is_between_daemons(err = journey_enrol(&self, role, &why)) &&
	       role == UHMM_ROLE_CHILD && link_now_ms() < until_ms)
		(void)sys_call2(SYS_nanosleep, (long)&nap, 0);
	return err;
}

/* What the beacon says; it may wait for the daemon. Away again after, so that a child of ours asks
 * for a token of its own. */
static uint32_t read_beacon(struct uhmm_beacon *beacon, bool *ret_sandboxed)
{
	uint32_t word = __atomic_load_n(&beacon->word, __ATOMIC_ACQUIRE);

	if (word != UHMM_BEACON_HERE && word != UHMM_BEACON_TOKEN)
		die_incomplete();
	if (word == UHMM_BEACON_HERE)
		return word;
	memcpy(self.token, beacon->token, sizeof(self.token));
	*ret_sandboxed = beacon->flags & UHMM_RING_SANDBOXED;
	if (!*ret_sandboxed)
		(void)sys_call3(SYS_madvise, (long)beacon, (long)spawn_page_bytes(),
				MADV_DONTNEED);
	return word;
}

/*
 * The first library code in a child. The read of the beacon may wait for the daemon, which
 * answers with a token for this very child; see "the beacon page" in wire.h.
 */
static void on_fork_child(void)
{
	struct uhmm_beacon *beacon = self.beacon;
	enum uhmm_role role = UHMM_ROLE_PROGRAM;
	uint64_t signals;
	int err = 0;

	forget_parent();
	if (is_sandboxed()) {
		self.sandboxed = true;
		return;
	}
	self.pid = (int32_t)sys_call0(SYS_getpid);
	journey_close_fds(&self);
	pause_forget(&self);
	spawn_unmap(&self.ring);
	if (!beacon)
		return;
	if (read_beacon(beacon, &self.sandboxed) == UHMM_BEACON_TOKEN)
		role = UHMM_ROLE_CHILD;
	if (self.sandboxed)
		return;
	signals_block(&signals);
	if (try_lock()) {
		err = enrol_child(role);
		unlock();
	}
	signals_restore(&signals);
	/* A child that fails goes on: what is away is served without an agent. But if the daemon
	 * died meanwhile, and the parent's agent has not kept our userfaultfd, it was the last. */
	if (err && role == UHMM_ROLE_CHILD)
		(void)read_beacon(beacon, &self.sandboxed);
}

static int watch_forks(void)
{
	int err;

	if (self.has_atfork)
		return 0;
	if (!__register_atfork)
		return -ENOSYS;
	err = __register_atfork(NULL, NULL, on_fork_child, &__dso_handle);
	if (err)
		return -err;
	self.has_atfork = true;
	return 0;
}

/* --- what others call ---------------------------------------------------------------- */

const char *enrol_default_path(void)
{
	const char *path = getenv("UHMM_SOCKET");

	return path && *path ? path : UHMM_SOCKET_DEFAULT;
}

/* The program may change its directory, and the agent has left it. What cannot be made absolute
 * stays as it is. Nobody asked a filter about getcwd. */
static void make_path_absolute(void)
{
	char cwd[sizeof(self.path)];
	size_t len = strlen(self.path);
	long cwd_len;

	if (self.path[0] == '/' || self.sandbox.filtered)
		return;
	cwd_len = sys_call2(SYS_getcwd, (long)cwd, sizeof(cwd)); /* with its zero */
	if (cwd_len <= 0 || cwd[0] != '/' || (size_t)cwd_len + len >= sizeof(self.path))
		return;
	for (size_t i = len + 1; i-- > 0;)
		self.path[(size_t)cwd_len + i] = self.path[i];
	memcpy(self.path, cwd, (size_t)cwd_len);
	self.path[cwd_len - 1] = '/';
}

/* With the lock held and signals blocked. */
static int enrol_first(const char *path, struct enrol_why *why)
{
	size_t len = strnlen(path, sizeof(self.path));
	int err;

	if (self.enrolled)
		return 0;
	if (starts_sandboxed()) {
		self.sandboxed = true;
		return journey_why(why, UHMM_REASON_SECCOMP, "a seccomp filter is in force",
				   -EPERM);
	}
	if (len == sizeof(self.path))
		return journey_why(why, UHMM_REASON_NONE, "the socket's path is too long",
				   -ENAMETOOLONG);
	err = watch_forks();
	if (err)
		return journey_why(why, UHMM_REASON_NONE, "this C library is not supported", err);
	memcpy(self.path, path, len + 1);
	make_path_absolute();
	self.pid = (int32_t)sys_call0(SYS_getpid);
	return journey_enrol(&self, UHMM_ROLE_PROGRAM, why);
}

int enrol_process(const char *path, struct enrol_why *ret_why)
{
	uint64_t signals;
	int err;

	if (is_sandboxed())
		return journey_why(ret_why, UHMM_REASON_SECCOMP, "a seccomp filter is in force",
				   -EPERM);
	/* A child that was made behind the C library's back. */
	if (self.pid && !is_ours())
		on_fork_child();
	signals_block(&signals);
	if (lock_bounded()) {
		err = enrol_first(path, ret_why);
		unlock();
	} else {
		err = journey_why(ret_why, UHMM_REASON_BUSY, "another thread is enrolling",
				  -EBUSY);
	}
	signals_restore(&signals);
	return err;
}

void enrol_resume(void)
{
	uint64_t signals;

	signals_block(&signals);
	pause_end(&self);
	signals_restore(&signals);
	unlock();
}

bool enrol_pause(void)
{
	uint64_t signals;
	int err = -ENOENT;

	/* Another thread at work here is a second thread that the caller's call fails for. */
	if (is_sandboxed() || !is_ours() || !try_lock())
		return false;
	signals_block(&signals);
	if (has_agent())
		err = pause_begin(&self);
	signals_restore(&signals);
	if (err)
		unlock();
	return err == 0;
}

bool enrol_sandbox_begin(void)
{
	uint64_t signals;

	if (is_sandboxed() || !is_ours() || !lock_bounded())
		return false;
	/* For a child forked meanwhile. The ring's flag stops an agent that looks for a daemon. */
	self.sandboxed = true;
	signals_block(&signals);
	if (has_agent())
		pause_before_filter(&self);
	signals_restore(&signals);
	mark_sandboxed(true);
	return true;
}

void enrol_sandbox_end(bool in_force)
{
	if (!in_force) {
		mark_sandboxed(false);
		if (self.enrolled && !has_agent()) {
			enrol_resume();
			return;
		}
		if (self.enrolled)
			pause_without_filter(&self);
	}
	unlock();
}
