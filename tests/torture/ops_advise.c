/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * madvise, mlock: what may go, what must not, and hints that must change nothing.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "ops.h"
#include "shadow.h"

/* Older headers lack these. */
#define ADVICE_POPULATE_READ 22
#define ADVICE_POPULATE_WRITE 23
#define ADVICE_COLLAPSE 25
#define ADVICE_GUARD_INSTALL 102
#define ADVICE_GUARD_REMOVE 103

static bool run_for_advice(struct actor *a, const struct op *op, uint32_t max, struct run *ret_run)
{
	return run_choose(a, op, max, ret_run) && run_all(ret_run, page_is_mapped) &&
	       run_all(ret_run, page_is_unlocked);
}

static void op_dontneed(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_advice(a, op, 32, &run))
		return;
	MUST(a, madvise(run_addr(&run), run_bytes(&run), MADV_DONTNEED) == 0);
	/* Of shared memory only the mapping goes. */
	for (uint32_t i = run.first; run_is_private(&run) && i < run.first + run.n; i++)
		shadow_zero(a, &run.region->pages[i]);
}

/* The bytes go, in whatever mapping. */
static void op_remove(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_advice(a, op, 32, &run) || run_is_private(&run) ||
	    !run_all(&run, page_is_writable))
		return;
	MUST(a, madvise(run_addr(&run), run_bytes(&run), MADV_REMOVE) == 0);
	for (uint32_t i = run.first; i < run.first + run.n; i++)
		shadow_zero(a, &run.region->pages[i]);
}

/* Stored, given up and looked at again at once: the stores may be on their way out. */
static void op_toss(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_advice(a, op, 8, &run) || !run_is_private(&run) ||
	    !run_all(&run, page_is_writable))
		return;
	for (uint32_t turn = 0; turn < 4; turn++) {
		for (uint32_t i = run.first; i < run.first + run.n; i++)
			page_store(a, run.region, i, 1u << turn);
		MUST(a, madvise(run_addr(&run), run_bytes(&run), MADV_DONTNEED) == 0);
		for (uint32_t i = run.first; i < run.first + run.n; i++) {
			shadow_zero(a, &run.region->pages[i]);
			page_check(a, run.region, i, "a load after MADV_DONTNEED");
		}
	}
}

static bool page_is_decided(const struct page_shadow *page)
{
	return page->freed != FREED_UNSURE;
}

static void op_free(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_advice(a, op, 32, &run) || !run_is_private(&run))
		return;
	/* Undecided from the last time: look first, else there were three possible contents. */
	for (uint32_t i = run.first; i < run.first + run.n; i++)
		page_check(a, run.region, i, "a load before MADV_FREE");
	if (!run_all(&run, page_is_decided))
		return;
	MUST(a, madvise(run_addr(&run), run_bytes(&run), MADV_FREE) == 0);
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		run.region->pages[i].freed = FREED_LAZY;
		shadow_note(a, &run.region->pages[i]);
	}
}

/* Advice that may be refused, and changes no byte either way. */
static void op_hint(struct actor *a, const struct op *op)
{
	static const int advices[] = { MADV_COLD,	  MADV_PAGEOUT,
				       MADV_WILLNEED,	  MADV_HUGEPAGE,
				       MADV_NOHUGEPAGE,	  ADVICE_COLLAPSE,
				       MADV_RANDOM,	  MADV_NORMAL,
				       MADV_MERGEABLE,	  MADV_UNMERGEABLE,
				       ADVICE_POPULATE_READ, ADVICE_POPULATE_WRITE };
	const uint32_t n = sizeof(advices) / sizeof(*advices);
	struct run run;

	if (!run_choose(a, op, REGION_PAGES_MAX, &run) || !run_all(&run, page_is_mapped))
		return;
	/* A splitting one splits; it may be refused half way. */
	run_patch(&run);
	(void)madvise(run_addr(&run), run_bytes(&run), advices[(op->r[2] >> 12) % n]);
}

/*
 * A guard takes the place of a marker without a word, and UFFDIO_COPY replaces either. So a
 * page that is being brought home although nobody touched it may do away with a guard that is
 * installed in that instant, and nobody can exclude that. It is excluded here: restores wait,
 * and what is away and gets a guard is where no neighbour's fault brings pages along.
 */
static bool guard_begin(struct actor *a, const struct run *run)
{
	__atomic_fetch_add(&ctl->n_unaided, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&ctl->restoring, __ATOMIC_SEQ_CST)) {
		__atomic_fetch_sub(&ctl->n_unaided, 1, __ATOMIC_SEQ_CST);
		return false;
	}
	/* The answer comes after whatever the daemon was at: our own last faults, too. */
	if (run->region->fenced)
		pages_out(a, run_addr(run), run_bytes(run));
	for (uint32_t i = run->first; !run->region->fenced && i < run->first + run->n; i++)
		page_check(a, run->region, i, "a load before MADV_GUARD_INSTALL");
	return true;
}

static void guard_end(void)
{
	__atomic_fetch_sub(&ctl->n_unaided, 1, __ATOMIC_SEQ_CST);
}

static void op_guard(struct actor *a, const struct op *op)
{
	struct run run;
	int error;

	if (!run_for_advice(a, op, 4, &run) || !run_is_private(&run) || !guard_begin(a, &run))
		return;
	error = madvise(run_addr(&run), run_bytes(&run), ADVICE_GUARD_INSTALL);
	guard_end();
	for (uint32_t i = run.first; error == 0 && i < run.first + run.n; i++) {
		run.region->pages[i].flags |= PAGE_GUARD;
		shadow_zero(a, &run.region->pages[i]);
	}
	/* Whoever brings home what was away must leave the guards alone. */
	if (op->r[2] >> 8 & 1)
		pages_home(a, run_addr(&run), run_bytes(&run));
	for (uint32_t i = run.first; i < run.first + run.n; i++)
		page_check(a, run.region, i, "a load after MADV_GUARD_INSTALL");
}

static void op_unguard(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_for_advice(a, op, REGION_PAGES_MAX, &run) ||
	    madvise(run_addr(&run), run_bytes(&run), ADVICE_GUARD_REMOVE) < 0)
		return; /* an older kernel */
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		run.region->pages[i].flags &= (uint8_t)~PAGE_GUARD;
		shadow_note(a, &run.region->pages[i]);
	}
}

static void op_fork_advice(struct actor *a, const struct op *op)
{
	static const struct {
		int advice;
		uint8_t set, clear;
	} kinds[] = { { MADV_WIPEONFORK, PAGE_WIPE, 0 },
		      { MADV_KEEPONFORK, 0, PAGE_WIPE },
		      { MADV_DONTFORK, PAGE_DONTFORK, 0 },
		      { MADV_DOFORK, 0, PAGE_DONTFORK } };
	uint32_t kind = op->r[2] >> 12 & 3;
	struct run run;

	if (!run_choose(a, op, 64, &run) || !run_all(&run, page_is_mapped) ||
	    (!run_is_private(&run) && kinds[kind].set == PAGE_WIPE))
		return;
	MUST(a, madvise(run_addr(&run), run_bytes(&run), kinds[kind].advice) == 0);
	run_patch(&run);
	for (uint32_t i = run.first; i < run.first + run.n; i++) {
		struct page_shadow *page = &run.region->pages[i];

		page->flags = (uint8_t)((page->flags | kinds[kind].set) & ~kinds[kind].clear);
		shadow_note(a, page);
	}
}

static void set_locked(struct actor *a, const struct run *run, bool locked)
{
	for (uint32_t i = run->first; i < run->first + run->n; i++) {
		struct page_shadow *page = &run->region->pages[i];

		page->flags = (uint8_t)(locked ? page->flags | PAGE_LOCKED
					       : page->flags & ~PAGE_LOCKED);
		shadow_note(a, page);
	}
}

static void op_lock(struct actor *a, const struct op *op)
{
	struct run run;

	if (!run_choose(a, op, 16, &run) || !run_all(&run, page_is_readable))
		return;
	run_patch(&run);
	if (mlock(run_addr(&run), run_bytes(&run)) == 0)
		set_locked(a, &run, true);
	else /* not privileged any more; it may have got half way */
		MUST(a, munlock(run_addr(&run), run_bytes(&run)) == 0);
}

static void op_unlock(struct actor *a, const struct op *op)
{
	struct region *region = region_choose(a, op->r[0]);
	struct run run = { .region = region, .first = 0, .n = region ? region->n_pages : 0 };

	if (!region || !run_all(&run, page_is_mapped))
		return;
	MUST(a, munlock(run_addr(&run), run_bytes(&run)) == 0);
	set_locked(a, &run, false);
}

const struct op_kind ops_advise[] = {
	{ "dontneed", "advise", 30, op_dontneed },
	{ "remove", "advise", 8, op_remove },
	{ "toss", "advise", 20, op_toss },
	{ "free", "advise", 14, op_free },
	{ "hint", "advise", 16, op_hint },
	{ "guard", "advise", 10, op_guard },
	{ "unguard", "advise", 6, op_unguard },
	{ "fork-advice", "advise", 8, op_fork_advice },
	{ "lock", "advise", 6, op_lock },
	{ "unlock", "advise", 6, op_unlock },
	{ NULL, NULL, 0, NULL },
};
