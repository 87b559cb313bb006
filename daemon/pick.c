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

#include "home.h"
#include "object.h"
#include "quiesce.h"
#include "uffd.h"

#define PICK_REGIONS 128u
/* How long what came home last stays at least, if nothing comes after it. */
#define RECENT_NS 100000000u
/* How long a refusal of the kernel is believed. */
#define UNMANAGED_FORGET_NS 1000000000u

/* ---- mappings ------------------------------------------------------------------------- */

static bool overlaps(const struct mapping *m, uint64_t start, uint64_t bytes)
{
	return m->start < start + bytes && start < m->end;
}

static void judge_own(struct space *space, struct mapping *m)
{
	const struct space_layout *layout = &space->layout;

	if (overlaps(m, layout->staging_addr, space_staging_bytes(space)) ||
	    overlaps(m, layout->private_addr, layout->private_bytes) ||
	    overlaps(m, layout->ring_addr, layout->ring_bytes) ||
	    overlaps(m, layout->beacon_addr, space->page_size))
		m->reason = UHMM_REASON_AGENT;
	else if (m->start <= UFFD_NEVER_REGISTERED)
		m->reason = UHMM_REASON_DEVICE;
}

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
		judge_own(space, &space->maps.v[i]);
	account_reasons(space);
	space->maps_read_ns = now_ns;
	return err;
}

static bool holds_other(const struct maps *maps, uint64_t start, uint64_t end)
{
	maps_for_each_in(m, maps, start, end)
		if (!mapping_is_private_anonymous(m))
			return true;
	return false;
}

/* A range and what touches it, each as the kernel has it now; all zero: nothing. */
struct place {
	struct mapping at, below, above;
};

static bool look_at(const struct space *space, uint64_t addr, struct mapping *ret)
{
	int err = maps_query(space->maps_fd, addr, ret);

	if (err == -ENOENT)
		*ret = (struct mapping){ 0 };
	return err == 0 || err == -ENOENT;
}

static bool look_around(const struct space *space, uint64_t start, uint64_t end, struct place *ret)
{
	return look_at(space, start - 1, &ret->below) && look_at(space, end, &ret->above) &&
	       look_at(space, start, &ret->at);
}

/* Is it a mapping, the whole of it, at this moment? What we know of the mappings is older than
 * the wish to register one, and threads map and unmap all the time: a REGISTER of what was one
 * would split what stands there now, and an mremap over both halves fail with EFAULT. */
static bool is_whole_mapping(const struct mapping *m, uint64_t start, uint64_t end)
{
	return m->start == start && m->end == end && mapping_is_private_anonymous(m);
}

/* Can it be that these two were one until one of them was registered? */
static bool could_be_one(const struct mapping *low, const struct mapping *high)
{
	return low->end && low->end == high->start && low->writable && high->writable &&
	       mapping_is_private_anonymous(low) && mapping_is_private_anonymous(high);
}

/* Is all of [start, end), which was just registered, really registered? What we knew of the
 * mappings is older than the REGISTER, which passes over holes without a word, and a fresh
 * mapping in such a hole raises no event. But registered and fresh never join: one mapping
 * over all of it, and no event unread, means that it is. Nor does a mapping raise one that was
 * replaced before it was registered: what has come may be shared memory, which is not for us to
 * register, and has to be served as what it is until it is let go. */
static bool registered_is_certain(struct space *space, uint64_t start, uint64_t end)
{
	struct mapping m;
	bool is_one, other = false;

	if (!look_at(space, start, &m))
		return false;
	is_one = m.end >= end && mapping_is_private_anonymous(&m);
	if (!is_one) {
		if (maps_read(&space->maps_check, space->maps_fd) < 0)
			return false;
		other = holds_other(&space->maps_check, start, end);
	}
	space->has_shared |= other;
	if (uffd_settled(space->uffd) != UFFD_OK)
		return false;
	if (other) {
		(void)home_unregister(space, start, end);
		space->maps_read_ns = 0;
		return false;
	}
	return is_one;
}

static bool make_certain(struct space *space, uint64_t start, uint64_t end)
{
	return registered_is_certain(space, start, end) &&
	       ranges_add(&space->certain, start, end, 0) == 0 &&
	       ranges_add(&space->occupied, start, end, 0) == 0;
}

static void register_too(struct space *space, struct mapping *m)
{
	judge_own(space, m);
	/* Not with an event unread: it would not be known as occupied before the next one. */
	if (m->reason == UHMM_REASON_NONE && uffd_settled(space->uffd) == UFFD_OK &&
	    uffd_register(space->uffd, m->start, m->end - m->start, UFFD_REGISTER_MODE) ==
		    UFFD_OK &&
	    ranges_add(&space->registered, m->start, m->end, 0) == 0)
		(void)make_certain(space, m->start, m->end);
}

/*
 * A mapping that is not registered can be replaced by a larger one without an event, also between
 * the look at it and the REGISTER, which then has split what is there. Its other parts are
 * registered as well, and so are one with it again: that takes nothing from anybody, while to let
 * go of the first one would lose what may be away of it.
 */
static void mend_split(struct space *space, const struct place *before, struct place *now)
{
	/* What is locked is filled at once, and stays. */
	if (stats_get(&space->locked_kb))
		return;
	if (could_be_one(&now->below, &now->at) && !could_be_one(&before->below, &before->at))
		register_too(space, &now->below);
	if (could_be_one(&now->at, &now->above) && !could_be_one(&before->at, &before->above))
		register_too(space, &now->above);
}

bool pick_register(struct space *space, uint64_t start, uint64_t end)
{
	bool is_beacon = start == space->layout.beacon_addr; /* a part, for good */
	bool certain;
	struct place before, now;
	enum uffd_result result;

	/* A MOVE does not look at its source: a page taken from a mapping that is not registered
	 * would read zero. So belief is not enough here. */
	if (ranges_cover(&space->certain, start, end))
		return true;
	if (!is_beacon && (!look_around(space, start, end, &before) ||
			   !is_whole_mapping(&before.at, start, end))) {
		space->maps_read_ns = 0; /* look again */
		return false;
	}
	/* What is registered while an event is unread is not certain, but raises events. */
	if (uffd_settled(space->uffd) != UFFD_OK)
		return false;
	result = uffd_register(space->uffd, start, end - start, UFFD_REGISTER_MODE);
	if (result == UFFD_OK && ranges_add(&space->registered, start, end, 0) == 0) {
		/* Uncertain also means that it may have come after a change whose event is unread. */
		certain = make_certain(space, start, end);
		if (!is_beacon && look_around(space, start, end, &now))
			mend_split(space, &before, &now);
		__atomic_store_n(&space->registered_bytes, ranges_bytes(&space->registered),
				 __ATOMIC_RELAXED);
		return certain;
	}
	if (result == UFFD_GONE)
		space->gone = true;
	else if (result == UFFD_ERROR && errno == EBUSY)
		(void)ranges_add(&space->unmanaged, start, end, UHMM_REASON_APP_UFFD);
	else
		space->maps_read_ns = 0; /* it was mapped when we looked; look again */
	return false;
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
	       pick_register(space, m->start, m->end);
}

/* Records of what it has replaced would keep its pages from leaving. */
static void forget_mapping(struct space *space, const struct mapping *m)
{
	struct mapping now;

	ranges_forget(&space->certain, m->start, m->end);
	ranges_forget(&space->occupied, m->start, m->end);
	if (look_at(space, m->start, &now) && is_whole_mapping(&now, m->start, m->end) &&
	    uffd_settled(space->uffd) == UFFD_OK)
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
