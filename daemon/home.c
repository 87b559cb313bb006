/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way back that nobody faulted for: restore, migrate, query; and the end of a
 * registration. Runs on the space's worker, in slices, so that faults are served between.
 *
 * Unregistering a range whose pages are away would make them read zero, silently. So it
 * happens only when the records say that nothing is away there and no event is unread, and an
 * event that slips in between is found afterwards: then the range is registered again before
 * the event is read, that is before the program's thread goes on.
 */
#define _GNU_SOURCE
#include "home.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "control.h"
#include "evict.h"
#include "fault.h"
#include "give_up.h"
#include "identify.h"
#include "object.h"
#include "pick.h"
#include "survey.h"
#include "tier.h"
#include "uffd.h"

#define HOME_SLICE 128u
/* How long a new agent waits for events to be read. */
#define ATTACH_BOUND_NS 2000000000u
/* A request to hold waits this long until nothing is registered. */
#define LET_GO_NS 500000000u
/* And that of an agent to end so long until nobody needs what it keeps of children. */
#define CHILDREN_NS 20000000000u

/* ---- requests --------------------------------------------------------------------------- */

static void home_finish(struct space *space, int error)
{
	struct mail *mail = space->current;

	space->current = NULL;
	mail->error = error;
	control_complete(mail);
}

static unsigned char where_is(const struct space *space, uint64_t pgidx)
{
	switch (page_rec_state(pagemap_get(&space->map, pgidx))) {
	case PAGE_LEAVING:
	case PAGE_STAGED:
		return 1; /* UHMM_WHERE_LEAVING */
	case PAGE_STORED:
	case PAGE_COMING:
		return 2; /* UHMM_WHERE_TIER */
	case PAGE_POISONED:
		return 3; /* UHMM_WHERE_POISONED */
	case PAGE_RESIDENT:
	case PAGE_REMOVED:
	case PAGE_STATE_MAX:
		break;
	}
	return 0; /* UHMM_WHERE_HOST */
}

static void home_query(struct space *space, struct mail *mail)
{
	uint64_t first = space_pgidx(space, mail->addr);

	for (size_t i = 0; i < mail->n_where; i++) {
		mail->where[i] = where_is(space, first + i);
		if (mail->where[i] == 0)
			mail->where[i] = object_where(space, space_addr(space, first + i));
	}
	mail->error = 0;
	control_complete(mail);
}

/* Requests that are dealt with at once. */
static bool take_short_mail(struct space *space, struct mail *mail)
{
	switch (mail->type) {
	case MAIL_QUERY:
		home_query(space, mail);
		return true;
	case MAIL_MAPS:
		survey_begin(space, mail);
		return true;
	case MAIL_OBJECT_STORE:
		object_take_store(space, mail);
		return true;
	case MAIL_AGENT:
		space->attaching = mail;
		space->attaching_ns = clock_now_ns();
		return true;
	case MAIL_OBJECT_JOIN:
		mail->error = object_join(space, mail->object);
		break;
	case MAIL_OBJECT_LEAVE:
		mail->error = object_leave(space, mail->object);
		break;
	case MAIL_OBJECT_PROTECT:
		mail->error = object_protect(space, mail->arg);
		break;
	case MAIL_EVICT:
	case MAIL_RESTORE:
	case MAIL_MIGRATE:
	case MAIL_QUIT:
	default:
		return false;
	}
	control_complete(mail);
	return true;
}

void home_take_mail(struct space *space, struct mail *mail)
{
	uint64_t page = space->page_size;

	if (take_short_mail(space, mail))
		return;
	if (mail->type == MAIL_EVICT || mail->hold || mail->release)
		__atomic_store_n(&space->hold, mail->hold, __ATOMIC_RELAXED);
	if (mail->type == MAIL_QUIT)
		__atomic_store_n(&space->quitting, true, __ATOMIC_RELAXED);
	mail->home |= mail->type == MAIL_RESTORE || mail->type == MAIL_QUIT;
	if (!mail->home &&
	    (!space_has_agent(space) || space_is_held(space) || space->given_up)) {
		mail->error = space->given_up	     ? -ENOSPC
			      : space_is_held(space) ? -EBUSY
						     : -ENOTCONN;
		control_complete(mail);
		return;
	}
	space->current = mail;
	space->current_at = 0;
	space->current_end = UINT64_MAX & ~(page - 1);
	space->current_left = UINT64_MAX;
	if (mail->type == MAIL_MIGRATE) {
		space->current_at = mail->addr & ~(page - 1);
		space->current_end = (mail->addr + mail->bytes + page - 1) & ~(page - 1);
	} else if (mail->type == MAIL_EVICT && mail->bytes) {
		space->current_left = (mail->bytes + page - 1) / page;
	}
	space->current_start = space->current_shared = space->current_at;
	(void)pick_refresh_maps(space, 0);
}

void home_evict_exhausted(struct space *space)
{
	if (space->current && !space->current->home)
		space->current_left = 0;
}

/* An agent that is to end keeps userfaultfds of children: they must come to need none. */
static bool keeps_children(struct space *space)
{
	if (space_has_agent(space) || !agent_has_wards(space))
		return false;
	agent_leave_wards(space);
	return true;
}

/* All that the request covers is home. A debugger that comes next shall find no trace of us: what
 * was never touched reads zero only where nothing is registered. But an agent may be stopped. */
static void home_complete(struct space *space, struct mail *mail)
{
	/* Nor shall a child need one that has no agent. */
	bool lets_go = mail->hold || !space_has_agent(space);

	if (lets_go && mail->home_ns == 0)
		mail->home_ns = clock_now_ns();
	if (lets_go && clock_now_ns() - mail->home_ns < LET_GO_NS) {
		home_release(space);
		if (space->registered.n)
			return;
	}
	if (lets_go && clock_now_ns() - mail->home_ns < CHILDREN_NS && keeps_children(space))
		return;
	home_finish(space, 0);
}

/* The private memory is home: now the shared. */
static bool home_step_shared(struct space *space, struct mail *mail)
{
	enum fill_result result = object_restore(space, &space->current_shared,
						 space->current_end, HOME_SLICE, &mail->pages);

	if (result == FILL_DONE && space->current_shared >= space->current_end) {
		home_complete(space, mail);
		return false;
	}
	return result == FILL_DONE;
}

/*
 * What came home leaves its slots at once: in a cgroup with a hard limit there is no room for
 * both of all of it. (Pages that are touched leave theirs for the next that go out: taking used
 * ones is cheaper.) Nobody else takes slots of this space's own store, so that a free one stays
 * so; those of other spaces are theirs.
 */
static void home_free_slots(struct space *space, struct page_rec rec, uint32_t n)
{
	struct family *family = space->family;
	struct store *store = space->store;
	uint64_t slot = page_rec_slot(rec), end = slot + n, from;

	if (!store || page_rec_state(rec) != PAGE_STORED ||
	    page_rec_store(rec) != store->unit->index)
		return;
	while (slot < end) {
		/* One that is shared with a forked process is not free. */
		pthread_mutex_lock(&family->lock);
		for (from = slot; slot < end; slot++)
			if (slots_count(&family->arena, &store->unit->slots, slot) != 0)
				break;
		pthread_mutex_unlock(&family->lock);
		if (slot > from)
			store->tier->ops->free(store->backend_store, from, (uint32_t)(slot - from));
		slot++;
	}
}

/* Bring home a slice of what the request covers. */
static bool home_step_in(struct space *space, struct mail *mail)
{
	uint64_t at = space_pgidx(space, space->current_at);
	uint64_t end = space_pgidx(space, space->current_end);
	struct page_rec rec;

	for (uint32_t budget = HOME_SLICE; budget && !space->gone;) {
		enum fill_result result;
		uint32_t pages = 1;

		at = pagemap_next(&space->map, at, end, &rec);
		space->current_at = space_addr(space, at);
		if (at >= end)
			return home_step_shared(space, mail);
		if (page_rec_state(rec) == PAGE_POISONED) {
			at++;
			continue;
		}
		result = fault_fetch_page(space, at, budget, false, &pages);
		if (result != FILL_DONE && result != FILL_STALE)
			return false; /* the loop reads the event, or tries later */
		home_free_slots(space, rec, pages);
		mail->pages += result == FILL_DONE ? pages : 0;
		budget -= pages < budget ? pages : budget;
		at += pages;
	}
	space->current_at = space_addr(space, at);
	return true;
}

static bool maps_shared_memory(const struct space *space, uint64_t start, uint64_t end)
{
	maps_for_each_in(m, &space->maps, start, end)
		if (m->shared)
			return true;
	return false;
}

/* All of the private memory that can leave has left: the rest is the object thread's. */
static void home_pass_on(struct space *space)
{
	struct mail *mail = space->current;

	if (!maps_shared_memory(space, space->current_start, space->current_end)) {
		home_finish(space, 0);
		return;
	}
	space->current = NULL;
	object_post(space, mail);
}

/* A new agent, as soon as it can be had. */
static void home_step_attach(struct space *space)
{
	struct mail *mail = space->attaching;

	if (!mail || (space->n_events && clock_now_ns() - space->attaching_ns < ATTACH_BOUND_NS))
		return;
	mail->error = space->n_events ? -EAGAIN : agent_attach(space, &mail->attach);
	if (mail->error == -EAGAIN && clock_now_ns() - space->attaching_ns < ATTACH_BOUND_NS)
		return;
	space->attaching = NULL;
	control_complete(mail);
}

static void home_mail_free(struct mail *mail)
{
	free(mail);
}

/* All of it comes home before an agent ends that nobody follows. */
static void home_step_retire(struct space *space)
{
	uint32_t gen = __atomic_load_n(&space->retired_gen, __ATOMIC_ACQUIRE);
	struct mail *mail;

	if (gen == 0 || space->current || space->n_events)
		return;
	if (space->retiring && space->map.n_away == 0 && !evict_is_busy(space) &&
	    !keeps_children(space) && !(space->warden && space->beacon_out)) {
		space->retiring = false;
		agent_end_retired(space, gen);
		return;
	}
	mail = calloc(1, sizeof(*mail));
	if (!mail)
		return;
	list_init(&mail->link);
	mail->type = MAIL_RESTORE;
	mail->done = home_mail_free;
	space->retiring = true;
	home_take_mail(space, mail);
}

bool home_step(struct space *space)
{
	struct mail *mail;

	home_step_attach(space);
	home_step_retire(space);
	mail = space->current;
	if (!mail || space->n_events)
		return false;
	/* A child that nobody knows the process of need not touch anything by itself. */
	if (!__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) && !identify_by_fault(space, 0))
		return false;
	if (space->unmarked_inherited)
		return false; /* the loop sorts first */
	if (mail->home) {
		/* Until the gate is closed nobody knows what has left. Then everything comes back,
		 * from staging or from its slot: the agent may be stopped, by a debugger. */
		if (!evict_gate_is_open(space))
			return home_step_in(space, mail);
		return false;
	}
	if (space->given_up || !space_has_agent(space)) {
		home_finish(space, space->given_up ? -ENOSPC : -ENOTCONN);
		return false;
	}
	if (space->current_left == 0 && !evict_is_busy(space))
		home_pass_on(space);
	return false;
}

/* ---- letting go ------------------------------------------------------------------------- */

static bool nothing_away(const struct space *space, uint64_t start, uint64_t end)
{
	return !pagemap_any_away(&space->map, space_pgidx(space, start),
				 space_pgidx(space, end - start));
}

int home_unregister(struct space *space, uint64_t start, uint64_t end)
{
	if (uffd_settled(space->uffd) != UFFD_OK || ranges_remove(&space->certain, start, end) < 0)
		return -EAGAIN;
	space_set_raced(space, start, end);
	if (uffd_unregister(space->uffd, start, end - start) != UFFD_OK) {
		space_set_raced(space, 0, 0);
		return -EINVAL;
	}
	if (uffd_settled(space->uffd) == UFFD_AGAIN) {
		(void)uffd_register(space->uffd, start, end - start, UFFD_REGISTER_MODE);
		object_registered_again(space, start, end);
		return -EAGAIN;
	}
	space_set_raced(space, 0, 0);
	(void)ranges_remove(&space->registered, start, end);
	ranges_forget(&space->occupied, start, end);
	return 0;
}

/* Unregister the mappings of [start, end) that have nothing away: whole ones, see pick.c. */
static void release_range(struct space *space, uint64_t start, uint64_t end)
{
	maps_for_each_in(m, &space->maps, start, end) {
		/* Shared memory is let go by the object thread: nobody else knows all mappers. */
		if (m->shared || !nothing_away(space, m->start, m->end))
			continue;
		if ((space->given_up || space->recovered) &&
		    !give_up_poison(space, m->start, m->end))
			return;
		if (home_unregister(space, m->start, m->end) == -EAGAIN)
			return;
	}
	/* What is left of the range, if nothing is away there, is mapped no more. */
	if (!space->n_objects && nothing_away(space, start, end))
		(void)ranges_remove(&space->registered, start, end);
}

/* The beacon says again that nothing is away. */
static bool release_beacon(struct space *space)
{
	uint32_t here = UHMM_BEACON_HERE;
	uint64_t done = 0;
	enum uffd_result result;

	/* Before: a successor looks itself whether it is there. */
	space->unit->beacon_out = false;
	memset(space->bounce, 0, space->page_size);
	memcpy(space->bounce, &here, sizeof(here));
	result = uffd_copy(space->uffd, space->layout.beacon_addr, space->bounce,
			   space->page_size, &done);
	if (result == UFFD_EXISTS) /* a child's token lies there */
		result = pwrite(space->mem_fd, space->bounce, sizeof(struct uhmm_beacon),
				(off_t)space->layout.beacon_addr) ==
					 (ssize_t)sizeof(struct uhmm_beacon)
				 ? UFFD_OK
				 : UFFD_ERROR;
	space->beacon_out = result != UFFD_OK;
	space->unit->beacon_out = space->beacon_out;
	if (space->beacon_out)
		return false;
	return true;
}

void home_release(struct space *space)
{
	const struct range *r;
	uint64_t at = 0;

	if (space->registered.n == 0 || space->gone || evict_is_busy(space) || space->n_events ||
	    !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
	    pick_refresh_maps(space, 0) < 0)
		return;
	/* Its holes are not all accounted for: only if there is no other way. */
	if (space->given_up && !space_is_held(space))
		return;
	while ((r = ranges_at_or_after(&space->registered, at)) && space->n_events == 0) {
		struct range range = *r;

		at = range.end;
		if (range.start <= space->layout.beacon_addr &&
		    space->layout.beacon_addr < range.end)
			continue;
		release_range(space, range.start, range.end);
		if (space->raced.end)
			return;
	}
	/* Only the beacon is left. */
	if (space->map.n_away == 0 && !space->n_objects && space->registered.n == 1 &&
	    space->beacon_out && release_beacon(space))
		release_range(space, space->layout.beacon_addr,
			      space->layout.beacon_addr + space->page_size);
	__atomic_store_n(&space->registered_bytes, ranges_bytes(&space->registered),
			 __ATOMIC_RELAXED);
}
