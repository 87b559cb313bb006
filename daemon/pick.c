/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chooses pages that leave. A clock: a hand goes over the mappings that can be moved; a page
 * that came home by a fault since the hand last passed is spared once. Runs on the space's
 * worker, never on the fault path.
 *
 * What may never leave (and why, see uhmm_reason): memory that the kernel touches where no
 * fault can be served, above all the control block and robust list of each thread, which an
 * exiting thread still uses when its faults are no longer delivered.
 */
#define _GNU_SOURCE
#include "pick.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "ground.h"
#include "object.h"
#include "quiesce.h"
#include "uffd.h"

#define PICK_REGIONS 128u
/* How long what came home last stays at least, if nothing comes after it. */
#define RECENT_NS 100000000u
/* How long a refusal of the kernel is believed. */
#define UNMANAGED_FORGET_NS 1000000000u

/* ---- mappings ------------------------------------------------------------------------- */

static void account_reasons(struct space *space)
{
	uint64_t bytes[UHMM_REASON_MAX] = { 0 };

	for (size_t i = 0; i < space->maps.n; i++) {
		const struct mapping *m = &space->maps.v[i];
		enum uhmm_reason reason = m->reason;

		if (reason == UHMM_REASON_SHARED)
			reason = object_reason(m->dev, m->ino);
		bytes[reason] += m->end - m->start;
	}
	for (size_t i = 0; i < space->unmanaged.n; i++)
		bytes[space->unmanaged.v[i].tag] +=
			space->unmanaged.v[i].end - space->unmanaged.v[i].start;
	bytes[UHMM_REASON_TCB] += (uint64_t)space->pinned.n * space->page_size;
	for (unsigned int i = 0; i < UHMM_REASON_MAX; i++)
		__atomic_store_n(&space->why_not_bytes[i], bytes[i], __ATOMIC_RELAXED);
}

/* Is it registered, and not known to be? */
static bool is_registered_unknown(const struct space *space, const struct mapping *m)
{
	return mapping_is_private_anonymous(m) && ranges_find(&space->registered, m->start) &&
	       uffd_is_registered(space->uffd, m->start, space->page_size) == UFFD_OK &&
	       uffd_settled(space->uffd) == UFFD_OK;
}

/* What was taken for registered in an instant in which nothing was certain: is it? Not known while
 * an event is unread. */
static void settle_assumed(struct space *space)
{
	maps_for_each_in(m, &space->maps, space->assumed.start, space->assumed.end) {
		if (!mapping_is_private_anonymous(m) ||
		    ranges_cover(&space->certain, m->start, m->end))
			continue;
		if (uffd_is_registered(space->uffd, m->start, space->page_size) == UFFD_NO_VMA &&
		    uffd_settled(space->uffd) == UFFD_OK)
			ranges_forget(&space->occupied, m->start, m->end);
	}
}

/* Where nothing is mapped nothing is occupied. */
static void forget_holes(struct space *space)
{
	uint64_t at = space->assumed.start;

	maps_for_each_in(m, &space->maps, space->assumed.start, space->assumed.end) {
		if (at < m->start)
			ranges_forget(&space->occupied, at, m->start);
		at = m->end;
	}
	if (at < space->assumed.end)
		ranges_forget(&space->occupied, at, space->assumed.end);
}

/* A registered mapping grows without an event, by mremap or as a stack, and is registered as a
 * whole. And one may have been registered in an instant in which nothing was certain. */
static void note_occupied(struct space *space)
{
	for (size_t i = 0; i < space->maps.n; i++) {
		const struct mapping *m = &space->maps.v[i];
		const struct range *r = ranges_at_or_after(&space->occupied, m->start);

		if (ranges_cover(&space->occupied, m->start, m->end))
			continue;
		if ((r && r->start < m->end) || is_registered_unknown(space, m))
			(void)ranges_add(&space->occupied, m->start, m->end, 0);
	}
	if (space->assumed.end == 0)
		return;
	forget_holes(space);
	settle_assumed(space);
	if (uffd_settled(space->uffd) == UFFD_OK)
		space->assumed = (struct range){ 0 };
}

int pick_refresh_maps(struct space *space, uint64_t max_age_ns)
{
	uint64_t now_ns = clock_now_ns();
	bool settled;
	int err;

	if (space->maps_read_ns && now_ns - space->maps_read_ns < max_age_ns)
		return 0;
	if (now_ns - space->unmanaged_ns > UNMANAGED_FORGET_NS) {
		ranges_clear(&space->unmanaged);
		space->unmanaged_ns = now_ns;
	}
	settled = space->n_events == 0 && uffd_settled(space->uffd) == UFFD_OK;
	err = maps_read(&space->maps, space->maps_fd);
	if (err == 0 && settled && uffd_settled(space->uffd) == UFFD_OK)
		note_occupied(space);
	/* smaps walks page tables: only a process with locked memory pays for it. */
	if (err == 0 && stats_get(&space->locked_kb))
		err = maps_apply_smaps(&space->maps, space->smaps_fd);
	for (size_t i = 0; i < space->maps.n; i++)
		space_judge_mapping(space, &space->maps.v[i]);
	account_reasons(space);
	space->maps_read_ns = now_ns;
	return err;
}

int pick_collect_pinned(struct space *space)
{
	return pinned_collect(&space->pinned, space->task_fd, space->mem_fd, space->page_shift);
}

/* ---- the pick --------------------------------------------------------------------------- */

/* Present, anonymous, not the zero page: something that is worth a slot. */
static int scan_present(const struct space *space, uint64_t start, uint64_t end, uint32_t max,
			struct page_region *regions, uint64_t *ret_walked)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = PICK_REGIONS,
		.max_pages = max,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_PRESENT,
	};
	int n = ioctl(space->pagemap_fd, PAGEMAP_SCAN, &arg);

	if (n < 0)
		return -errno;
	*ret_walked = arg.walk_end;
	return n;
}

/*
 * One instruction may need several pages at once. While a thread waits for one of them, the hand
 * may pass the others as often as it likes, where nothing else can leave: they would be sent out
 * for each other for ever. So what came home by a fault last stays as long as more does.
 */
static bool is_recent(const struct recent *recent, uint64_t pgidx)
{
	for (uint32_t i = 0; i < SPACE_RECENT; i++)
		if (recent->pgidx[i] == pgidx)
			return clock_now_ns() - recent->ns < RECENT_NS;
	return false;
}

/* May this page leave now? Spares a referenced page once. */
static bool pick_wants(struct space *space, uint64_t pgidx, bool any)
{
	struct page_rec rec = pagemap_get(&space->map, pgidx);

	if (pinned_has(&space->pinned, pgidx))
		return false;
	if (quiesce_is_pending(&space->quiesce, space_addr(space, pgidx)))
		return false;
	/* What is there is newer than what was given up. */
	if (page_rec_state(rec) == PAGE_REMOVED)
		return pagemap_set(&space->map, pgidx, (struct page_rec){ 0 }) == 0;
	if (page_rec_state(rec) != PAGE_RESIDENT)
		return false;
	if (rec.v & PAGE_REC_REFERENCED && !any && is_recent(&space->recent, pgidx))
		return false;
	if (rec.v & PAGE_REC_REFERENCED) {
		(void)pagemap_set(&space->map, pgidx, (struct page_rec){ 0 });
		return any;
	}
	return true;
}

/* Whole mappings, never a part: registering a part splits the mapping in two, and an mremap
 * over both fails with EFAULT, which it did not before. */
static bool pick_register_mapping(struct space *space, const struct mapping *m)
{
	return !ranges_find(&space->unmanaged, m->start) &&
	       ground_register(space, m->start, m->end);
}

/* Records of what it has replaced would keep its pages from leaving. */
static void forget_mapping(struct space *space, const struct mapping *m)
{
	ranges_forget(&space->certain, m->start, m->end);
	ranges_forget(&space->occupied, m->start, m->end);
	if (ground_is_mapping(space, m->start, m->end) && uffd_settled(space->uffd) == UFFD_OK)
		(void)pagemap_drop(&space->map, space_pgidx(space, m->start),
				   space_pgidx(space, m->end - m->start));
	space->maps_read_ns = 0;
}

/* shmat(SHM_REMAP) replaces a mapping without any event: to look again costs a system call, a
 * page that is taken from what is not registered costs its bytes. While an event is unread no page
 * can be taken anyway. */
static bool is_registered(struct space *space, const struct mapping *m, uint64_t addr)
{
	enum uffd_result result = uffd_is_registered(space->uffd, addr, space->page_size);

	if (result == UFFD_NO_VMA)
		forget_mapping(space, m);
	space->gone |= result == UFFD_GONE;
	return result == UFFD_OK || result == UFFD_AGAIN;
}

static uint32_t pick_region(struct space *space, struct batch *batch, uint32_t n,
			    const struct pick_request *request,
			    const struct page_region *region)
{
	for (uint64_t addr = region->start; addr < region->end && n < request->max;
	     addr += space->page_size)
		if (pick_wants(space, space_pgidx(space, addr), request->any))
			batch_page(batch, n++)->pgidx = space_pgidx(space, addr);
	return n;
}

static uint32_t pick_mapping(struct space *space, struct batch *batch, uint32_t n,
			     const struct pick_request *request, const struct mapping *m,
			     uint64_t *at, uint64_t end)
{
	struct page_region regions[PICK_REGIONS];

	while (*at < end && n < request->max && !space->gone) {
		uint64_t walked = end;
		int got = scan_present(space, *at, end, request->max - n, regions, &walked);

		if (got < 0 || walked <= *at)
			break;
		if (got > 0 && (!pick_register_mapping(space, m) ||
				!is_registered(space, m, regions[0].start))) {
			*at = end;
			return n;
		}
		for (int i = 0; i < got && n < request->max; i++)
			n = pick_region(space, batch, n, request, &regions[i]);
		*at = walked;
	}
	if (n < request->max)
		*at = end;
	return n;
}

uint32_t pick_pages(struct space *space, struct batch *batch, const struct pick_request *request,
		    uint64_t *ret_at)
{
	uint64_t at = request->from;
	uint32_t n = 0;

	while (at < request->end && n < request->max && !space->gone) {
		const struct mapping *m = maps_at_or_after(&space->maps, at);
		uint64_t end;

		if (!m || m->start >= request->end) {
			at = request->end;
			break;
		}
		if (at < m->start)
			at = m->start;
		end = m->end < request->end ? m->end : request->end;
		if (m->is_stack && end > space->stack_top_addr)
			end = space->stack_top_addr;
		if (m->reason != UHMM_REASON_NONE || at >= end) {
			at = m->end;
			continue;
		}
		n = pick_mapping(space, batch, n, request, m, &at, end);
		if (at >= end)
			at = m->end;
	}
	*ret_at = at;
	return n;
}

uint32_t pick_by_clock(struct space *space, struct batch *batch, uint32_t max)
{
	struct pick_request request = { .from = space->hand, .end = UINT64_MAX, .max = max };
	uint64_t started = space->hand;
	uint32_t n = pick_pages(space, batch, &request, &space->hand);

	if (n || started == 0)
		return n;
	/* Around once: from the bottom up to where it began. */
	request.from = 0;
	request.end = started;
	return pick_pages(space, batch, &request, &space->hand);
}
