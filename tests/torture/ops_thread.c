/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that come and go, threads against an evictor or an mremap, signals in the middle of
 * faults, signals on stacks that are away, robust mutexes whose owners die.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "ops.h"
#include "shadow.h"

/* ---- short threads -------------------------------------------------------------------------- */

#define SHORT_MAX 16u

struct errand {
	struct actor *a;
	struct region *region;
	uint32_t page;
	uint32_t store; /* cells; 0: only look */
};

static __thread uint64_t of_this_thread[64];

/* Each has a page of its own, so that the shadow needs no lock. Nothing is drawn, so the
 * actor's other state stays alone. */
static void *errand_run(void *arg)
{
	const struct errand *errand = arg;
	uint64_t mark = (uint64_t)(uintptr_t)errand;

	of_this_thread[0] = of_this_thread[63] = mark;
	if (errand->store && page_is_writable(&errand->region->pages[errand->page]))
		page_store(errand->a, errand->region, errand->page, errand->store);
	page_check(errand->a, errand->region, errand->page, "a load of a short thread");
	if (of_this_thread[0] != mark || of_this_thread[63] != mark)
		fail(errand->a, "a thread's own memory is not as it left it");
	return arg;
}

static void op_short_threads(struct actor *a, const struct op *op)
{
	pthread_t threads[SHORT_MAX];
	struct errand errands[SHORT_MAX];
	struct run run;
	uint32_t n = 0;

	if (!run_choose(a, op, SHORT_MAX, &run))
		return;
	for (; n < run.n; n++) {
		errands[n] = (struct errand){ a, run.region, run.first + n, op->r[2] & 0xff };
		if (pthread_create(&threads[n], NULL, errand_run, &errands[n]) != 0)
			break; /* in a pid namespace that has no init yet, for one */
	}
	for (uint32_t i = 0; i < n; i++) {
		void *ret;

		MUST(a, pthread_join(threads[i], &ret) == 0);
		if (ret != &errands[i])
			fail(a, "a thread returned %p instead of %p", ret, (void *)&errands[i]);
		actor_beat(a);
	}
}

/* One after another, at once: the stack of each is the next one's. */
static void op_thread_storm(struct actor *a, const struct op *op)
{
	for (uint32_t i = 0; i < 40; i++) {
		struct run run;
		struct errand errand;
		pthread_t thread;

		if (!run_choose(a, op, SHORT_MAX, &run))
			return;
		errand = (struct errand){ a, run.region, run.first + i % run.n, 1 };
		if (pthread_create(&thread, NULL, errand_run, &errand) != 0)
			return;
		MUST(a, pthread_join(thread, NULL) == 0);
		actor_beat(a);
	}
}

/* ---- against somebody who evicts ---------------------------------------------------------------- */

/* An entry of pagemap says so; false if it cannot be read, which a process that has given its
 * privileges up may not. */
static bool page_is_present(const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd < 0)
		return false;
	if (pread(fd, &entry, sizeof(entry),
		  (off_t)((uintptr_t)addr / ctl->page_size * sizeof(entry))) != sizeof(entry))
		entry = 0;
	(void)close(fd);
	return entry >> 63;
}

struct evictor {
	struct actor *a;
	char *addr;
	size_t bytes;
	uint32_t stop; /* atomic */
};

static void *evictor_run(void *arg)
{
	struct evictor *evictor = arg;

	do
		pages_out(evictor->a, evictor->addr, evictor->bytes);
	while (!__atomic_load_n(&evictor->stop, __ATOMIC_ACQUIRE));
	return NULL;
}

/* Until a page that was just stored into has left, or is not going to. */
#define PINCH_SEC 0.004

static void wait_for_leaving(const char *addr)
{
	double end = now_sec() + PINCH_SEC;

	while (page_is_present(addr) && now_sec() < end)
		;
}

/* Stored, given up and looked at while the same pages are sent out again and again; mostly in
 * the very moment in which they leave. */
static void op_pinch(struct actor *a, const struct op *op)
{
	struct evictor evictor = { .a = a };
	pthread_t thread;
	struct run run;

	if (!run_choose(a, op, 8, &run) || !run_is_private(&run) ||
	    !run_all(&run, page_is_writable) || !run_all(&run, page_is_unlocked))
		return;
	evictor.addr = run_addr(&run);
	evictor.bytes = run_bytes(&run);
	if (pthread_create(&thread, NULL, evictor_run, &evictor) != 0)
		return;
	for (uint32_t turn = 0; turn < 24; turn++) {
		bool drop = op->r[2] >> (8 + turn % 16) & 1;

		for (uint32_t i = run.first; i < run.first + run.n; i++)
			page_store(a, run.region, i, 1u << turn % CELLS);
		if (turn & 3)
			wait_for_leaving(evictor.addr);
		if (drop)
			MUST(a, madvise(evictor.addr, evictor.bytes, MADV_DONTNEED) == 0);
		for (uint32_t i = run.first; i < run.first + run.n; i++) {
			if (drop)
				shadow_zero(a, &run.region->pages[i]);
			page_check(a, run.region, i, "a load while its page is sent out");
		}
		actor_beat(a);
	}
	__atomic_store_n(&evictor.stop, 1, __ATOMIC_RELEASE);
	MUST(a, pthread_join(thread, NULL) == 0);
}

/* Two regions change places, with nothing unmapped on the way: another thread could map there. */
static void regions_swap(struct actor *a, struct region *one, struct region *two)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	size_t bytes = one->n_pages * ctl->page_size;
	char *here = one->addr, *there = two->addr;
	char *ground = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			    0);

	MUST(a, ground != MAP_FAILED);
	MUST_REGION(a, one, mremap(here, bytes, bytes, flags | MREMAP_DONTUNMAP, ground) == ground);
	one->addr = ground;
	MUST_REGION(a, two, mremap(there, bytes, bytes, flags | MREMAP_DONTUNMAP, here) == here);
	two->addr = here;
	MUST_REGION(a, one, mremap(ground, bytes, bytes, flags, there) == there);
	one->addr = there;
}

/* While pages of a place are sent out, others come there. */
static void op_swap(struct actor *a, const struct op *op)
{
	uint32_t n_pages = 8 + op->r[0] % 56;
	struct region *one = region_map(a, n_pages, NULL), *two = region_map(a, n_pages, NULL);
	struct evictor evictor = { .a = a };
	pthread_t thread;

	for (uint32_t i = 0; one && two && i < n_pages; i++) {
		page_store(a, one, i, 0xff);
		page_store(a, two, i, 0xff);
	}
	if (one && two) {
		evictor.addr = one->addr;
		evictor.bytes = n_pages * ctl->page_size;
	}
	if (one && two && pthread_create(&thread, NULL, evictor_run, &evictor) == 0) {
		for (uint32_t turn = 0; turn < 32; turn++) {
			uint32_t page = (op->r[1] + turn * 7) % n_pages;

			regions_swap(a, one, two);
			page_check(a, one, page, "a load after a swap");
			page_check(a, two, page, "a load after a swap");
			page_store(a, two, page, 1u << turn % CELLS);
			actor_beat(a);
		}
		__atomic_store_n(&evictor.stop, 1, __ATOMIC_RELEASE);
		MUST(a, pthread_join(thread, NULL) == 0);
		region_check(a, one, "a load after swaps");
		region_check(a, two, "a load after swaps");
	}
	if (one)
		region_unmap(a, one);
	if (two)
		region_unmap(a, two);
}

/* Whoever waits for a page that is there was forgotten; or the daemon is that slow. It may have
 * left again since, too. */
#define RUG_PAGES 16u
#define RUG_WALKERS 8u
#define RUG_SEC 12.0
#define RUG_LEFT_SEC 18.0
#define RUG_SLOW_SEC 0.1
#define RUG_DELAY_NSEC_MAX 131072u

struct walker {
	struct actor *a;
	pthread_rwlock_t *gate;
	const uint64_t *page; /* one word of it */
	uint64_t before, after;
	uint32_t done; /* atomic */
};

/* Stands on a page that is away, and finds itself on another. */
static void *walker_run(void *arg)
{
	struct walker *walker = arg;
	uint64_t got;

	(void)pthread_rwlock_rdlock(walker->gate);
	(void)pthread_rwlock_unlock(walker->gate);
	got = __atomic_load_n(walker->page, __ATOMIC_RELAXED);

	__atomic_store_n(&walker->done, 1, __ATOMIC_RELEASE);
	if (got != walker->before && got != walker->after)
		fail(walker->a, "a load at %p while mremap replaces it: %016llx",
		     (const void *)walker->page, (unsigned long long)got);
	return NULL;
}

/* Who brought the page home, after it had left again, would wake whoever was forgotten: no restore
 * begins any more once this has waited for a moment. */
static void walker_wait(struct walker *walker)
{
	const struct timespec look = { .tv_nsec = 1000000 };
	double begin = now_sec(), since = begin, now;
	bool slow = false;

	while (!__atomic_load_n(&walker->done, __ATOMIC_ACQUIRE)) {
		(void)nanosleep(&look, NULL);
		now = now_sec();
		if (!slow && now - begin > RUG_SLOW_SEC) {
			__atomic_fetch_add(&ctl->n_unaided, 1, __ATOMIC_SEQ_CST);
			slow = true;
		}
		if (!page_is_present(walker->page))
			since = now;
		if (now - since > RUG_SEC || now - begin > RUG_LEFT_SEC)
			fail(walker->a, "a load at %p hangs, and its page %s",
			     (const void *)walker->page,
			     now - since > RUG_SEC ? "is there" : "was there");
	}
	if (slow)
		__atomic_fetch_sub(&ctl->n_unaided, 1, __ATOMIC_SEQ_CST);
}

static char *rug_map(struct actor *a, uint64_t mark)
{
	size_t bytes = RUG_PAGES * ctl->page_size;
	char *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(a, addr != MAP_FAILED);
	for (uint32_t i = 0; i < RUG_PAGES; i++)
		*(uint64_t *)(void *)(addr + i * ctl->page_size) = mark + i;
	pages_out(a, addr, bytes);
	return addr;
}

static void rug_check(struct actor *a, const char *addr, uint32_t n, uint64_t mark)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t got = *(const uint64_t *)(const void *)(addr + i * ctl->page_size);

		if (got != mark + i)
			fail(a, "a load at %p: %016llx instead of %016llx",
			     (const void *)(addr + i * ctl->page_size), (unsigned long long)got,
			     (unsigned long long)(mark + i));
	}
}

/* Threads wait for pages that are away while pages that are there are moved into their place:
 * they must be woken, by whoever finds that there is nothing to fill. */
static void op_rug(struct actor *a, const struct op *op)
{
	const uint64_t before = 0xbef0000000000000u | (uint64_t)op->r[0] << 8;
	const uint64_t after = 0xaf70000000000000u | (uint64_t)op->r[0] << 8;
	size_t bytes = RUG_PAGES * ctl->page_size;
	char *floor = rug_map(a, before), *rug = rug_map(a, after);
	struct walker walkers[RUG_WALKERS];
	pthread_t threads[RUG_WALKERS];
	pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
	double moment;
	uint32_t n = 0;

	/* These come home, the others keep the mapping registered: to let go of it would wake
	 * whoever was forgotten. */
	rug_check(a, rug, RUG_WALKERS, after);
	(void)pthread_rwlock_wrlock(&gate);
	for (; n < RUG_WALKERS; n++) {
		walkers[n] = (struct walker){
			a, &gate, (uint64_t *)(void *)(floor + n * ctl->page_size),
			before + n, after + n, 0 };
		if (pthread_create(&threads[n], NULL, walker_run, &walkers[n]) != 0)
			break;
	}
	/* All fault at once, so that some must wait for their turn when the rug comes. */
	moment = now_sec() + (double)(op->r[1] % RUG_DELAY_NSEC_MAX) * 1e-9;
	(void)pthread_rwlock_unlock(&gate);
	while (now_sec() < moment)
		;
	MUST(a, mremap(rug, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, floor) == floor);
	for (uint32_t i = 0; i < n; i++) {
		walker_wait(&walkers[i]);
		MUST(a, pthread_join(threads[i], NULL) == 0);
	}
	rug_check(a, floor, RUG_PAGES, after);
	MUST(a, munmap(floor, bytes) == 0);
}

/* ---- signals ----------------------------------------------------------------------------------- */

static __thread struct actor *signalled; /* who looks at what, in its handler */
static __thread struct run signalled_run;

static void on_poke(int signo)
{
	(void)signo;
}

/* Uses a good part of its stack, and the memory of the actor. */
static void on_look(int signo)
{
	volatile char used[12000];

	(void)signo;
	memset((char *)used, 0x5a, sizeof(used));
	for (uint32_t i = signalled_run.first; i < signalled_run.first + signalled_run.n; i++)
		page_check(signalled, signalled_run.region, i, "a load in a signal handler");
	for (size_t i = 0; i < sizeof(used); i++)
		if (used[i] != 0x5a)
			fail(signalled, "a signal handler's stack is not as it left it");
}

static void handlers_install(void)
{
	struct sigaction poke = { .sa_handler = on_poke, .sa_flags = SA_RESTART };
	struct sigaction look = { .sa_handler = on_look, .sa_flags = SA_RESTART | SA_ONSTACK };

	(void)sigaction(SIGUSR2, &poke, NULL);
	(void)sigaction(SIGUSR1, &look, NULL);
}

/* A handler on a stack of its own, which has been sent away. */
static void op_altstack(struct actor *a, const struct op *op)
{
	size_t bytes = 16 * ctl->page_size;
	stack_t stack = { .ss_size = bytes }, old;

	handlers_install();
	signalled = a;
	if (!run_choose(a, op, 4, &signalled_run))
		return;
	stack.ss_sp = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(a, stack.ss_sp != MAP_FAILED);
	memset(stack.ss_sp, 0x77, bytes);
	MUST(a, sigaltstack(&stack, &old) == 0);
	pages_out(a, stack.ss_sp, bytes);
	MUST(a, raise(SIGUSR1) == 0);
	pages_out(a, stack.ss_sp, bytes);
	MUST(a, raise(SIGUSR1) == 0);
	MUST(a, sigaltstack(&old, NULL) == 0);
	MUST(a, munmap(stack.ss_sp, bytes) == 0);
}

/* Interrupt somebody, perhaps in a fault. */
static void op_poke(struct actor *a, const struct op *op)
{
	uint32_t n = __atomic_load_n(&ctl->n_actors, __ATOMIC_RELAXED);

	handlers_install();
	for (uint32_t i = 0, at = op->r[0]; i < 8; i++, at++) {
		const struct actor *other = &ctl->actors[at % (n < ACTORS_MAX ? n : ACTORS_MAX)];

		if (other->state == ACTOR_RUNNING && other->pid == a->pid && other->tid > 0)
			(void)syscall(SYS_tgkill, a->pid, other->tid, SIGUSR2);
	}
}

/* ---- robust mutexes -------------------------------------------------------------------------- */

struct safe {
	pthread_mutex_t mutex;
	char room[8192]; /* so that two of them are never on one page */
	pthread_mutex_t other;
};

static struct safe *safe_open(struct actor *a, int flags)
{
	struct safe *safe = mmap(NULL, sizeof(*safe), PROT_READ | PROT_WRITE,
				 MAP_ANONYMOUS | flags, -1, 0);
	pthread_mutexattr_t attr;

	MUST(a, safe != MAP_FAILED);
	(void)pthread_mutexattr_init(&attr);
	(void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	(void)pthread_mutexattr_setpshared(&attr, flags & MAP_SHARED ? PTHREAD_PROCESS_SHARED
								     : PTHREAD_PROCESS_PRIVATE);
	(void)pthread_mutex_init(&safe->mutex, &attr);
	(void)pthread_mutex_init(&safe->other, &attr);
	return safe;
}

struct owner {
	struct actor *a;
	struct safe *safe;
	bool out; /* the mutexes are sent away while they are held */
};

/* Takes both, and ends. */
static void *owner_run(void *arg)
{
	const struct owner *owner = arg;

	(void)pthread_mutex_lock(&owner->safe->mutex);
	(void)pthread_mutex_lock(&owner->safe->other);
	if (owner->out)
		pages_out(owner->a, owner->safe, sizeof(*owner->safe));
	return NULL;
}

static void mutex_must_be_orphan(struct actor *a, pthread_mutex_t *mutex, const char *whose)
{
	int error = pthread_mutex_lock(mutex);

	if (error != EOWNERDEAD)
		fail(a, "the robust mutex of a %s that died says %d instead of EOWNERDEAD", whose,
		     error);
	(void)pthread_mutex_consistent(mutex);
	(void)pthread_mutex_unlock(mutex);
}

static void op_robust_thread(struct actor *a, const struct op *op)
{
	struct owner owner = { a, safe_open(a, MAP_PRIVATE), op->r[0] & 1 };
	pthread_t thread;

	if (op->r[0] & 2)
		pages_out(a, owner.safe, sizeof(*owner.safe));
	if (pthread_create(&thread, NULL, owner_run, &owner) == 0) {
		MUST(a, pthread_join(thread, NULL) == 0);
		mutex_must_be_orphan(a, &owner.safe->mutex, "thread");
		mutex_must_be_orphan(a, &owner.safe->other, "thread");
	}
	MUST(a, munmap(owner.safe, sizeof(*owner.safe)) == 0);
}

static void op_robust_process(struct actor *a, const struct op *op)
{
	struct owner owner = { a, NULL, false };
	int status;
	pid_t pid;

	if (a->foreign)
		return;
	owner.safe = safe_open(a, MAP_SHARED);
	pid = fork();
	if (pid == 0) {
		(void)owner_run(&owner);
		if (op->r[0] & 1)
			(void)raise(SIGKILL);
		_exit(0);
	}
	if (pid > 0) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		mutex_must_be_orphan(a, &owner.safe->mutex, "process");
		mutex_must_be_orphan(a, &owner.safe->other, "process");
	}
	MUST(a, munmap(owner.safe, sizeof(*owner.safe)) == 0);
}

const struct op_kind ops_thread[] = {
	{ "short-threads", "thread", 8, op_short_threads },
	{ "thread-storm", "thread", 2, op_thread_storm },
	{ "pinch", "race", 6, op_pinch },
	{ "swap", "race", 14, op_swap },
	{ "rug", "race", 6, op_rug },
	{ "altstack", "signal", 6, op_altstack },
	{ "poke", "signal", 10, op_poke },
	{ "robust-thread", "robust", 6, op_robust_thread },
	{ "robust-process", "robust", 3, op_robust_process },
	{ NULL, NULL, 0, NULL },
};
