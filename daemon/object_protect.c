/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The protection of a pass: from here on a store to one of its pages is a message, in every
 * mapping. The object thread asks the workers of all mappers, each protects its own mappings.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "object_pass.h"
#include "pick.h"
#include "uffd.h"

#define SCAN_REGIONS 8u

void pass_forget_mappers(struct pass *pass)
{
	object_mappers_free(pass->mappers, pass->n_mappers);
	pass->mappers = NULL;
	pass->n_mappers = 0;
}

/* Pages i.. of the pass that follow one another, before page `end` of the object. */
static uint32_t run_of(const struct pass *pass, uint32_t i, uint64_t end)
{
	uint32_t n = 1;

	while (i + n < pass->n_pages && pass->page[i + n] == pass->page[i] + n &&
	       pass->page[i + n] < end)
		n++;
	return n;
}

/* A write-protection that met nothing that has changed since its worker looked. */
static int protect_run(const struct pass *pass, struct space *space, uint64_t addr, uint32_t n)
{
	switch (uffd_mark(space->uffd, addr, (uint64_t)n << pass->object->page_shift)) {
	case UFFD_OK:
		return 0;
	case UFFD_GONE:
		space->gone = true;
		return 0;
	case UFFD_AGAIN:
	case UFFD_EXISTS:
	case UFFD_NO_VMA:
	case UFFD_NO_MEM:
	case UFFD_ERROR:
		break;
	}
	return -EAGAIN;
}

/* Is there a page in the run that could be stored to without a message? A store that was let
 * through took its page back: only what is still LEAVING counts. */
static int check_run(const struct pass *pass, struct space *space, uint64_t addr, uint32_t i,
		     uint32_t n)
{
	struct page_region regions[SCAN_REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = addr,
		.end = addr + ((uint64_t)n << pass->object->page_shift),
		.vec = (uintptr_t)regions,
		.vec_len = SCAN_REGIONS,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_PRESENT,
	};
	int found = ioctl(space->pagemap_fd, PAGEMAP_SCAN, &arg), err = 0;
	struct page_rec rec;

	if (found <= 0)
		return found == 0 || space->gone ? 0 : -EAGAIN;
	if (found == (int)SCAN_REGIONS)
		return -EAGAIN;
	object_lock(pass->object);
	for (int r = 0; r < found; r++)
		for (uint64_t at = regions[r].start; at < regions[r].end; at += space->page_size)
			if (pass_is_leaving(pass, i + (uint32_t)((at - addr) >> space->page_shift),
				       &rec))
				err = -EAGAIN;
	object_unlock(pass->object);
	return err;
}

/* ---- what must stay ------------------------------------------------------------------ */

/*
 * The nodes of robust mutexes that somebody holds. An ending thread walks and writes them when
 * its faults are not delivered any more, and a write-protected page is no better then than one
 * that is away.
 */
static void keep_page(const struct pass *pass, uint32_t i)
{
	struct page_rec rec;

	object_lock(pass->object);
	if (pass_is_leaving(pass, i, &rec))
		(void)pagemap_set(&pass->object->map, pass->page[i],
				  page_rec_move(rec, PAGE_RESIDENT));
	object_unlock(pass->object);
}

/* Locked memory is a promise to the program: it stays, whoever else maps it. */
static void keep_range(const struct pass *pass, uint64_t first, uint64_t end)
{
	for (uint32_t i = pass_first_at(pass, first); i < pass->n_pages && pass->page[i] < end; i++)
		keep_page(pass, i);
}

/* How many of the n pages from addr on come before the first that must stay? */
static uint32_t before_pinned(const struct space *space, uint64_t addr, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && !pinned_has(&space->pinned, space_pgidx(space, addr) + i))
		i++;
	return i;
}

/* A mutex may have been taken between the look at the threads and the protection. */
static int keep_pinned(const struct pass *pass, struct space *space)
{
	unsigned int shift = pass->object->page_shift;

	if (pick_collect_pinned(space) < 0)
		return pass_is_gone(space) ? 0 : -EAGAIN;
	for (uint32_t k = 0; k < space->pinned.n; k++) {
		uint64_t page, addr = space_addr(space, space->pinned.v[k]);
		const struct mapping *m = maps_find(&space->maps, addr);
		uint32_t i;

		if (!m || !pass_maps_here(pass, m))
			continue;
		page = (addr - m->start + m->offset) >> shift;
		i = pass_first_at(pass, page);
		if (i == pass->n_pages || pass->page[i] != page)
			continue;
		keep_page(pass, i);
		if (uffd_unprotect(space->uffd, addr, space->page_size) == UFFD_AGAIN)
			return -EAGAIN;
	}
	return 0;
}

/* ---- one mapping --------------------------------------------------------------------- */

static int protect_mapping(const struct pass *pass, struct space *space, const struct mapping *m)
{
	unsigned int shift = pass->object->page_shift;
	uint64_t first = m->offset >> shift, end = first + ((m->end - m->start) >> shift);
	int err = 0;

	if (m->reason == UHMM_REASON_LOCKED) {
		keep_range(pass, first, end);
		return 0;
	}
	for (uint32_t i = pass_first_at(pass, first);
	     err == 0 && i < pass->n_pages && pass->page[i] < end;) {
		uint64_t addr = m->start + ((pass->page[i] - first) << shift);
		uint32_t n = before_pinned(space, addr, run_of(pass, i, end));

		if (n == 0) {
			keep_page(pass, i++);
			continue;
		}
		err = protect_run(pass, space, addr, n);
		if (err == 0)
			err = check_run(pass, space, addr, i, n);
		i += n;
	}
	return err;
}

/* Runs on the worker, which alone reads events: the mappings that it sees are registered, so
 * whatever changes one of them meanwhile leaves an event unread, and write-protecting fails. */
int object_protect(struct space *space, const void *arg)
{
	const struct pass *pass = arg;
	uint64_t locked_kb;
	int err;

	/* A child that we know no process of yet: nobody knows where it maps what. */
	if (space->n_events || !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    space->hold || space->quitting || uffd_settled(space->uffd) != UFFD_OK)
		return -EAGAIN;
	locked_kb = space_locked_kb(space);
	__atomic_store_n(&space->looked_locked_kb, locked_kb, __ATOMIC_RELAXED);
	err = maps_read(&space->maps, space->maps_fd);
	if (err == 0 && locked_kb)
		err = maps_apply_smaps(&space->maps, space->smaps_fd);
	space->maps_read_ns = 0; /* without pick.c's own verdicts: it reads them again */
	if (err == 0 && pick_collect_pinned(space) < 0)
		err = pass_is_gone(space) ? 0 : -EAGAIN;
	for (size_t i = 0; i < space->maps.n && err == 0; i++)
		if (pass_maps_here(pass, &space->maps.v[i]))
			err = protect_mapping(pass, space, &space->maps.v[i]);
	/* Also after a failure: what was protected until then stays so. */
	return keep_pinned(pass, space) < 0 ? -EAGAIN : err;
}

/* With the lock held: nobody maps it who did not when the pass looked. */
static bool same_mappers(const struct pass *pass)
{
	for (uint32_t i = 0; i < pass->n_mappers; i++)
		if (!object_has_applied(pass->mappers[i]))
			return false;
	return pass->object->gen == pass->gen && !pass->object->broken;
}

/* Has a mapper locked memory, or let go of some, since it looked which is locked? An mlock of
 * what is here makes no message. */
bool pass_locks_changed(const struct pass *pass)
{
	for (uint32_t i = 0; i < pass->n_mappers; i++) {
		const struct space *space = pass->mappers[i];
		uint64_t kb = space_locked_kb(space);

		if (kb != UINT64_MAX &&
		    kb != __atomic_load_n(&space->looked_locked_kb, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/*
 * A mapping that is made after its origin was protected inherits that (fork), or has no page
 * in it (mremap), and then the first touch is a message. One that was made by a fork before is
 * a mapper's by now, unless that event is not applied.
 */
static int protect_once(struct pass *pass)
{
	int err = 0;

	pass_forget_mappers(pass);
	pass->mappers = object_mappers(pass->object, &pass->n_mappers, &pass->gen);
	if (!pass->mappers)
		return -ENOENT;
	for (uint32_t i = 0; i < pass->n_mappers && err == 0; i++) {
		err = object_ask(pass->mappers[i], pass->object, MAIL_OBJECT_PROTECT, pass);
		if (err == -ESRCH)
			err = 0; /* it has ended */
	}
	object_lock(pass->object);
	if (err == 0 && !same_mappers(pass))
		err = -EAGAIN;
	object_unlock(pass->object);
	return err;
}

int pass_protect(struct pass *pass)
{
	int err = -EAGAIN;

	for (int i = 0; i < PASS_TRIES && err == -EAGAIN; i++) {
		err = protect_once(pass);
		if (err == -EAGAIN)
			usleep(PASS_PAUSE_USEC);
	}
	return err;
}
