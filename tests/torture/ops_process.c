/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes: forks with both sides going on, exec, vfork, and what a process may do to itself:
 * give up its uid, enter a sandbox, enter namespaces.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor.h"
#include "fail.h"
#include "ops.h"
#include "shadow.h"
#include "uhmm/uhmm.h"
#include "words.h"

#define DEPTH_MAX 2u
/* Processes alive in all worlds together. */
#define ALIVE_MAX 12u
#define NOBODY 65534u

/* ---- children ----------------------------------------------------------------------------- */

/* The kid did not come to be, or did nothing. */
static void kid_drop(struct actor *kid)
{
	__atomic_store_n(&kid->state, ACTOR_DONE, __ATOMIC_RELEASE);
}

static void must_end_well(struct actor *a, pid_t pid, int status)
{
	if (status != 0 && !words_allow_end(status))
		fail(a, "child %d ended with wait status %#x", pid, (unsigned int)status);
}

static void kid_check(struct actor *a, uint32_t place, int status)
{
	must_end_well(a, a->kids[place], status);
	if (status != 0)
		kid_drop(a->kid_actors[place]);
	a->kids[place] = 0;
	__atomic_fetch_sub(&ctl->n_alive, 1, __ATOMIC_RELAXED);
}

static void kids_reap(struct actor *a, int flags)
{
	for (uint32_t i = 0; i < KIDS_MAX; i++) {
		int status = 0;
		pid_t got;

		if (a->kids[i] == 0)
			continue;
		do
			got = waitpid(a->kids[i], &status, flags);
		while (got < 0 && errno == EINTR);
		MUST(a, got >= 0);
		if (got == 0)
			continue;
		kid_check(a, i, status);
	}
}

void kids_wait(struct actor *a)
{
	__atomic_store_n(&a->waiting, 1, __ATOMIC_RELAXED);
	kids_reap(a, 0);
	__atomic_store_n(&a->waiting, 0, __ATOMIC_RELAXED);
	actor_beat(a);
}

/* In a pid namespace of its own the first child takes the others with it when it ends. */
static bool may_fork(const struct actor *a)
{
	bool alone = true;

	for (uint32_t i = 0; i < KIDS_MAX; i++)
		alone &= a->kids[i] == 0;
	return alone || !a->foreign;
}

/* Room for one more: its place in kids; KIDS_MAX: none. */
static uint32_t kid_place(struct actor *a)
{
	kids_reap(a, WNOHANG);
	if (a->depth >= DEPTH_MAX || !may_fork(a) ||
	    __atomic_load_n(&ctl->n_alive, __ATOMIC_RELAXED) >= ALIVE_MAX)
		return KIDS_MAX;
	for (uint32_t i = 0; i < KIDS_MAX; i++)
		if (a->kids[i] == 0)
			return i;
	return KIDS_MAX;
}

static struct actor *kid_new(struct actor *a, const struct op *op)
{
	struct actor *kid = actor_new((uint32_t)hash2(a->id, ++a->n_forks), a->depth + 1,
				      20 + op->r[1] % 300);

	if (!kid)
		return NULL;
	kid->foreign = a->foreign;
	kid->dropped = a->dropped;
	return kid;
}

/* What the child will find, but for what its mappings say about forks. */
static void kid_inherit(struct actor *kid, const struct actor *a)
{
	for (uint32_t r = 0; r < REGIONS_MAX; r++) {
		const struct region *from = &a->regions[r];
		struct region *to = &kid->regions[r];

		to->kind = REGION_FREE;
		/* Shared memory stays mapped in the child, and its owner's. */
		if (from->kind != REGION_PRIVATE)
			continue;
		to->kind = from->kind;
		kid->pages_used += from->n_pages;
		to->patched = from->patched;
		to->fenced = from->fenced;
		to->addr = from->addr;
		to->n_pages = from->n_pages;
		memcpy(to->pages, from->pages, from->n_pages * sizeof(from->pages[0]));
	}
	kid->last_key = a->last_key;
}

static void page_cross_fork(struct actor *kid, struct region *region, struct page_shadow *page)
{
	page->flags &= (uint8_t)~PAGE_LOCKED;
	if (page->flags & PAGE_DONTFORK && page->map != MAP_GONE) {
		page->map = MAP_GONE;
		region->patched = true;
		shadow_note(kid, page);
	} else if (page->flags & PAGE_WIPE) {
		/* The page table is not copied, and the guards are in it. */
		page->flags &= (uint8_t)~PAGE_GUARD;
		shadow_zero(kid, page);
	}
}

static void __attribute__((noreturn)) kid_run(struct actor *kid, struct uhmm *inherited)
{
	uhmm_close(inherited);
	for (uint32_t r = 0; r < REGIONS_MAX; r++) {
		struct region *region = &kid->regions[r];

		for (uint32_t i = 0; region->kind != REGION_FREE && i < region->n_pages; i++)
			page_cross_fork(kid, region, &region->pages[i]);
	}
	actor_run(kid);
	_exit(0);
}

static void op_fork(struct actor *a, const struct op *op)
{
	uint32_t place = kid_place(a);
	struct actor *kid = place < KIDS_MAX ? kid_new(a, op) : NULL;
	struct uhmm *inherited;
	pid_t pid;

	if (!kid)
		return;
	kid_inherit(kid, a);
	/* What is in `a` after the fork is the parent's. */
	inherited = a->handle;
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		kid_run(kid, inherited);
	}
	if (pid < 0) {
		kid_drop(kid);
		return;
	}
	a->kids[place] = pid;
	a->kid_actors[place] = kid;
	__atomic_fetch_add(&ctl->n_alive, 1, __ATOMIC_RELAXED);
}

static bool page_is_plain(const struct page_shadow *page)
{
	return page_is_writable(page) && page->freed == FREED_NO &&
	       !(page->flags & (PAGE_DONTFORK | PAGE_WIPE));
}

/* Sees what there was at the fork, and what it stores is its own. */
static void __attribute__((noreturn)) glance_run(struct actor *a)
{
	struct region *region = &a->glance;

	for (uint32_t i = 0; i < region->n_pages; i++) {
		page_check(a, region, i, "a load in a forked child");
		memset(page_addr(region, i), 0xaa, ctl->page_size);
	}
	_exit(0);
}

/* Children that look at some pages at once, while the parent stores into them. */
static void op_fork_glance(struct actor *a, const struct op *op)
{
	pid_t pids[3] = { 0 };
	struct run run;

	if (!run_choose(a, op, 8, &run) || !run_is_private(&run) ||
	    !run_all(&run, page_is_plain) || !may_fork(a))
		return;
	a->glance.kind = run.region->kind;
	a->glance.addr = run_addr(&run);
	a->glance.n_pages = run.n;
	memcpy(a->glance.pages, &run.region->pages[run.first], run.n * sizeof(a->glance.pages[0]));
	for (uint32_t n = 0; n < (a->foreign ? 1 : 1 + (op->r[2] >> 8) % 3); n++) {
		pids[n] = fork();
		if (pids[n] == 0)
			glance_run(a);
	}
	for (uint32_t i = run.first; op->r[2] & 0x1000 && i < run.first + run.n; i++)
		page_store(a, run.region, i, 0x55);
	for (uint32_t n = 0; n < 3; n++) {
		int status = 0;

		while (pids[n] > 0 && waitpid(pids[n], &status, 0) < 0 && errno == EINTR)
			;
		must_end_well(a, pids[n], status);
		actor_beat(a);
	}
}

static void __attribute__((noreturn)) wiped_run(struct actor *a)
{
	region_check(a, &a->glance, "a load of wiped memory in a forked child");
	_exit(0);
}

/* A child must not see what is to be wiped at a fork, also if it is away. */
static void op_fork_wiped(struct actor *a, const struct op *op)
{
	struct run run;
	int status = 0;
	pid_t pid;

	if (!run_choose(a, op, 8, &run) || !run_is_private(&run) ||
	    !run_all(&run, page_is_plain) || !may_fork(a))
		return;
	MUST(a, madvise(run_addr(&run), run_bytes(&run), MADV_WIPEONFORK) == 0);
	run_patch(&run);
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		run.region->pages[i].flags |= PAGE_WIPE;
		page_store(a, run.region, i, 0xff);
	}
	pages_out(a, run_addr(&run), run_bytes(&run));
	a->glance.kind = run.region->kind;
	a->glance.addr = run_addr(&run);
	a->glance.n_pages = run.n;
	memcpy(a->glance.pages, &run.region->pages[run.first], run.n * sizeof(a->glance.pages[0]));
	for (uint32_t i = 0; i < run.n; i++)
		page_cross_fork(a, &a->glance, &a->glance.pages[i]);
	pid = fork();
	if (pid == 0)
		wiped_run(a);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	must_end_well(a, pid, status);
	for (uint32_t i = run.first; i < run.first + run.n; i++)
		page_check(a, run.region, i, "a load after a fork that wiped");
}

/* ---- chains ---------------------------------------------------------------------------------- */

#define CHAIN_MAX 8u
/* Fewer pages are not worth managing. */
#define CHAIN_PAGES 16u
#define CHAIN_COUNTS 24u
#define CHAIN_PAUSE_USEC 300

/* Whoever is in a chain counts on a page of its own. */
static void chain_count(struct actor *a, char *mem, uint32_t depth)
{
	volatile uint64_t *page = (volatile uint64_t *)(void *)(mem + depth * ctl->page_size);

	for (uint64_t i = 1; i <= CHAIN_COUNTS; i++) {
		uint64_t got = *page;

		if (got != i)
			fail(a, "shared memory at %p holds %llu in child %u of a chain; expected %llu",
			     (const void *)page, (unsigned long long)got, depth,
			     (unsigned long long)i);
		*page = i + 1;
		usleep(CHAIN_PAUSE_USEC);
	}
}

static pid_t chain_start(struct actor *a, char *mem, uint32_t depth, uint32_t n)
{
	pid_t pid = fork(), next = 0;
	int status = 0;

	if (pid)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (depth + 1 < n)
		next = chain_start(a, mem, depth + 1, n);
	chain_count(a, mem, depth);
	while (next > 0 && waitpid(next, &status, 0) < 0 && errno == EINTR)
		;
	_exit(status ? 1 : 0);
}

/* Children that fork at once, while shared memory of theirs is asked to leave for the first time. */
static void op_fork_chain(struct actor *a, const struct op *op)
{
	size_t bytes = CHAIN_PAGES * ctl->page_size;
	uint32_t n = 2 + op->r[0] % (CHAIN_MAX - 1);
	int status = 0;
	char *mem;
	pid_t pid;

	if (!may_fork(a))
		return;
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(a, mem != MAP_FAILED);
	for (uint32_t i = 0; i < CHAIN_PAGES; i++)
		*(uint64_t *)(void *)(mem + i * ctl->page_size) = 1;
	pid = chain_start(a, mem, 0, n);
	while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
		pages_out(a, mem, bytes);
		actor_beat(a);
	}
	MUST(a, status == 0);
	for (uint32_t i = 0; i < CHAIN_PAGES && pid > 0; i++)
		MUST(a, *(uint64_t *)(void *)(mem + i * ctl->page_size) ==
				(i < n ? CHAIN_COUNTS + 1 : 1));
	MUST(a, munmap(mem, bytes) == 0);
}

/* ---- other programs --------------------------------------------------------------------------- */

static void exec_self(const char *const argv[])
{
	(void)execv("/proc/self/exe", (char *const *)argv);
	_exit(127);
}

/* A child becomes a world of its own, with nothing in it. */
static void op_exec(struct actor *a, const struct op *op)
{
	uint32_t place = kid_place(a);
	struct actor *kid = place < KIDS_MAX ? kid_new(a, op) : NULL;
	char fd[16], first[16];
	const char *const argv[] = { "uhmm-torture", "--world", fd, first, "1", NULL };
	pid_t pid;

	if (!kid)
		return;
	snprintf(fd, sizeof(fd), "%d", ctl->fd);
	snprintf(first, sizeof(first), "%u", kid->slot);
	pid = fork();
	if (pid == 0)
		exec_self(argv);
	if (pid < 0) {
		kid_drop(kid);
		return;
	}
	a->kids[place] = pid;
	a->kid_actors[place] = kid;
	__atomic_fetch_add(&ctl->n_alive, 1, __ATOMIC_RELAXED);
}

/* The child runs in our memory until it has executed something else, or ended. */
static void op_vfork(struct actor *a, const struct op *op)
{
	static const char *const argv[] = { "uhmm-torture", "--noop", NULL };
	struct run run = { .region = NULL };
	bool choice = run_choose(a, op, 4, &run);
	int status;
	pid_t pid;

	if (choice)
		pages_out(a, run_addr(&run), run_bytes(&run));
	if (!may_fork(a))
		return;
	pid = vfork();
	if (pid == 0) {
		if (choice && page_is_writable(&run.region->pages[run.first]))
			page_store(a, run.region, run.first, 1);
		if (op->r[2] & 0x100)
			exec_self(argv);
		_exit(0);
	}
	if (pid < 0)
		return;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	MUST(a, status == 0);
	if (choice)
		page_check(a, run.region, run.first, "a load after vfork");
}

/* ---- what a process does to itself; in children only ----------------------------------------- */

static void op_setuid(struct actor *a, const struct op *op)
{
	(void)op;
	if (a->depth == 0 || a->dropped || a->pid != a->tid)
		return;
	if (setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0)
		a->dropped = true;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* A filter that allows everything is a filter. */
static void op_seccomp(struct actor *a, const struct op *op)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = { .len = 1, .filter = &allow };

	if (a->depth == 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return;
	if (op->r[0] & 1)
		MUST(a, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) == 0);
	else
		MUST(a, syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				op->r[0] & 2 ? SECCOMP_FILTER_FLAG_TSYNC : 0, &prog) == 0);
}

static void op_unshare(struct actor *a, const struct op *op)
{
	static const int kinds[] = { CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET,
				     CLONE_FS, CLONE_FILES, CLONE_NEWIPC };
	int kind = kinds[op->r[0] % (sizeof(kinds) / sizeof(*kinds))];

	if (a->depth == 0 || unshare(kind) < 0)
		return; /* no privilege for it */
	if (kind == CLONE_NEWPID)
		a->foreign = true;
	if (kind == CLONE_NEWUSER)
		a->dropped = true;
}

const struct op_kind ops_process[] = {
	{ "fork", "fork", 6, op_fork },
	{ "fork-glance", "fork", 8, op_fork_glance },
	{ "fork-wiped", "fork", 4, op_fork_wiped },
	{ "fork-chain", "shared", 1, op_fork_chain },
	{ "exec", "fork", 1, op_exec },
	{ "vfork", "fork", 2, op_vfork },
	{ "setuid", "self", 2, op_setuid },
	{ "seccomp", "self", 2, op_seccomp },
	{ "unshare", "self", 2, op_unshare },
	{ NULL, NULL, 0, NULL },
};
