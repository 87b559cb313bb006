/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children. A FORK event brings the child's userfaultfd; its memory is as the parent's was at some
 * moment within the set of events that the fork is of. Events are not queued in the order of the
 * changes, so that this moment is known but roughly: about where the event was read. So a child
 * gets the records that the parent has when the event's turn comes; where there is none, what the
 * set had taken away from there before, or brings there later. The child's own page table decides
 * whether there is anything (fault.c).
 *
 * Runs on the parent's worker. A child waits at its first touch of what is away, so that what
 * takes time here is a pause for it, and an error a child that is not served: never one that reads
 * zeros.
 */
#include "fork.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "evict.h"
#include "give_up.h"
#include "object.h"
#include "uffd.h"
#include "util/array.h"

/* How long there may be no descriptors or threads for a child. */
#define ADOPT_BOUND_NS 1000000000u
#define ADOPT_PAUSE_NS 5000000
/* Of how many pages a child is asked what it has of them. */
#define SOURCE_ASKED 64u

static bool is_shortage(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -EAGAIN || err == -ENOMEM;
}

/* While there are no descriptors or threads to be had, we wait a while. */
static bool is_worth_another_try(int err, uint64_t until_ns)
{
	const struct timespec pause = { .tv_nsec = ADOPT_PAUSE_NS };

	if (!is_shortage(err) || clock_now_ns() >= until_ns)
		return false;
	(void)nanosleep(&pause, NULL);
	return true;
}

static int adopt_child(struct space *space, int uffd, struct space **ret_child)
{
	uint64_t until_ns = clock_now_ns() + ADOPT_BOUND_NS;
	int err;

	do
		err = control_adopt_child(space, uffd, ret_child);
	while (is_worth_another_try(err, until_ns));
	return err;
}

static int start_child(struct space *child)
{
	uint64_t until_ns = clock_now_ns() + ADOPT_BOUND_NS;
	int err;

	do
		err = space_start_worker(child);
	while (is_worth_another_try(err, until_ns));
	return err;
}

/* ---- records ---------------------------------------------------------------------------- */

/* Of what `from` has in [first, end), `to` gets what it lacks, or all of it. */
static int copy_records(const struct pagemap *from, struct pagemap *to, uint64_t first, uint64_t end,
			bool all)
{
	struct family *family = from->family;
	struct page_rec rec;
	int err = 0;

	for (uint64_t i = first; err == 0 && (i = pagemap_next(from, i, end, &rec)) < end; i++) {
		struct page_rec has = pagemap_get(to, i);

		if (!page_state_has_slot(page_rec_state(rec)) || has.v == rec.v ||
		    (has.v != 0 && !all))
			continue;
		pthread_mutex_lock(&family->lock);
		err = family_slot_ref(family, page_rec_store(rec), page_rec_slot(rec));
		pthread_mutex_unlock(&family->lock);
		if (err < 0)
			break;
		err = pagemap_set(to, i, rec);
		if (err < 0) {
			pthread_mutex_lock(&family->lock);
			family_slot_unref(family, page_rec_store(rec), page_rec_slot(rec));
			pthread_mutex_unlock(&family->lock);
		}
	}
	return err;
}

/* Has the set nothing else that comes from where this mremap does or goes, or goes there? It unmaps
 * its own source and destination, once each. What gives up a page brings nothing. */
static bool moves_alone(const struct space *space, const struct uffd_msg *msg)
{
	struct range from = event_source(msg), to = event_target(msg);
	unsigned int n_from = 0, n_to = 0;

	for (uint32_t i = 0; i < space->log.n; i++) {
		const struct uffd_msg *other = event_log_at(&space->log, i);
		struct range source = event_source(other), target = event_target(other);

		if (other == msg || other->event == UFFD_EVENT_FORK ||
		    other->event == UFFD_EVENT_REMOVE)
			continue;
		if (ranges_meet(target, from) || ranges_meet(target, to) ||
		    (other->event == UFFD_EVENT_REMAP &&
		     (ranges_meet(source, from) || ranges_meet(source, to))))
			return false;
		n_from += ranges_meet(source, from);
		n_to += ranges_meet(source, to);
	}
	return n_from <= 1 && n_to <= 1;
}

/* ANYTIME: it makes no difference, or other moves of the set make one; DOUBTFUL: nobody knows. */
enum born { BORN_BEFORE, BORN_AFTER, BORN_ANYTIME, BORN_DOUBTFUL };

/* What the pages of an mremap's source that are away are in the child. */
struct source {
	uint32_t n_asked;
	bool marked, registered, unsure;
};

/* A zero page keeps out nothing but what has its marker. Into shared memory one would come as its
 * own: that is something else, for what moved is private. */
static enum uffd_result ask_of_page(const struct space *space, const struct space *child,
				    uint64_t addr)
{
	uint64_t done;

	if (space->has_others &&
	    uffd_is_private(child->uffd, addr, space->page_size) == UFFD_EXISTS)
		return UFFD_OK;
	return uffd_zeropage(child->uffd, addr, space->page_size, &done);
}

/*
 * They have their markers where the mremap has not been yet. What else may be there by then, where
 * a mapping beside it has grown over it, has no page: none is filled before the set is read. So a
 * zero page that is put there changes nothing. (Guards would look like markers: README, Limits.)
 */
static struct source ask_of_source(const struct space *space, const struct space *child,
				   struct range from, struct range to)
{
	uint64_t first = space_pgidx(space, to.start), end = space_pgidx(space, to.end);
	struct source source = { 0 };
	struct page_rec rec;

	for (uint64_t i = first; !source.marked && !source.unsure && source.n_asked < SOURCE_ASKED &&
				 (i = pagemap_next(&space->map, i, end, &rec)) < end;
	     i++) {
		if (!page_state_has_slot(page_rec_state(rec)) || rec.v & PAGE_REC_UNMARKED)
			continue;
		source.n_asked++;
		switch (ask_of_page(space, child, from.start + space_addr(space, i - first))) {
		case UFFD_EXISTS:
			source.marked = true;
			break;
		case UFFD_OK:
			source.registered = true;
			break;
		case UFFD_NO_VMA:
			break;
		case UFFD_AGAIN:
		case UFFD_GONE:
		case UFFD_NO_MEM:
		case UFFD_ERROR:
			source.unsure = true;
			break;
		}
	}
	return source;
}

/*
 * Was the child born before this mremap or after it? It matters where what was at the destination
 * before is away as well: both have markers. Only the kernel can say so while nobody knows the
 * child's process. Memory that children do not get (MADV_DONTFORK) tells nothing, nor does what
 * they get empty (MADV_WIPEONFORK), if it is there.
 */
static enum born when_born(struct space *space, const struct space *child,
			   const struct heirs *heirs, const struct uffd_msg *msg)
{
	struct range from = event_source(msg), to = event_target(msg);
	uint64_t first = space_pgidx(space, to.start), n = space_pgidx(space, to.end) - first;
	const struct mapping *m;
	struct source source;

	if (!heirs->past.family || !pagemap_any_away(&heirs->past, first, n) ||
	    !moves_alone(space, msg))
		return BORN_ANYTIME;
	source = ask_of_source(space, child, from, to);
	if (source.marked)
		return BORN_BEFORE;
	if (source.unsure || source.n_asked == 0 || uffd_settled(child->uffd) != UFFD_OK ||
	    space_read_smaps(space) < 0)
		return BORN_DOUBTFUL;
	m = maps_find(&space->maps, to.start);
	return m && !m->not_inherited && !(m->wiped && source.registered) ? BORN_AFTER
									  : BORN_DOUBTFUL;
}

/* Could either be served where the other is due? What was there before is away, or it would not
 * have been remembered. Markers tell a page that is away from one that is there or was never
 * touched, but not from another that is away, and what has no marker from nothing. */
static bool are_doubtful(struct page_rec old, struct page_rec new)
{
	return page_state_has_slot(page_rec_state(new)) ? old.v != new.v
							: old.v & PAGE_REC_UNMARKED;
}

/* Nobody knows which of both the child has at the destination: better lost than the wrong one. */
static int doubt(struct space *space, struct space *child, const struct heirs *heirs,
		 const struct uffd_msg *msg)
{
	struct range to = event_target(msg);
	uint64_t end = space_pgidx(space, to.end), n = 0;
	struct page_rec old;
	int err = 0;

	for (uint64_t i = space_pgidx(space, to.start);
	     err == 0 && (i = pagemap_next(&heirs->past, i, end, &old)) < end; i++) {
		struct page_rec has = pagemap_get(&child->map, i);

		if (!are_doubtful(old, pagemap_get(&space->map, i)) ||
		    page_rec_state(has) == PAGE_POISONED)
			continue;
		/* What will be mapped there one day is not lost. */
		if (uffd_is_registered(child->uffd, space_addr(space, i), space->page_size) ==
			    UFFD_NO_VMA &&
		    uffd_settled(child->uffd) == UFFD_OK) {
			err = pagemap_set(&child->map, i, (struct page_rec){ 0 });
			continue;
		}
		err = pagemap_set(&child->map, i, page_rec_move(has, PAGE_POISONED));
		n++;
	}
	if (n)
		give_up_doubtful(space, n);
	return err;
}

/* What the child has at the destination of an mremap: all that `from` has there, nothing else. */
static int replace_records(const struct pagemap *from, struct space *child,
			   const struct uffd_msg *msg)
{
	struct range to = event_target(msg);
	uint64_t first = space_pgidx(child, to.start), end = space_pgidx(child, to.end);
	int err = pagemap_drop(&child->map, first, end - first);

	return err < 0 ? err : copy_records(from, &child->map, first, end, true);
}

/* Moves that had their turn before the fork, but came after it. */
static int undo_moves(struct space *space, struct space *child, const struct heirs *heirs)
{
	int err = 0;

	for (uint32_t i = 0; i < space->log.n && err == 0; i++) {
		const struct uffd_msg *msg = event_log_at(&space->log, i);

		if (msg->event != UFFD_EVENT_REMAP || !event_log_is_done(msg))
			continue;
		switch (when_born(space, child, heirs, msg)) {
		case BORN_BEFORE:
			err = replace_records(&heirs->past, child, msg);
			break;
		case BORN_DOUBTFUL:
			err = doubt(space, child, heirs, msg);
			break;
		case BORN_AFTER:
			err = replace_records(&space->map, child, msg);
			break;
		case BORN_ANYTIME:
			break;
		}
	}
	return err;
}

/* The child's page map; without one it is served, and loses what is away. */
static int inherit(struct space *space, struct space *child, const struct heirs *heirs)
{
	int err = pagemap_fork(&space->map, &child->map) < 0 ? -ENOSPC : 0, init = 0;

	if (err == 0 && heirs->past.family)
		err = copy_records(&heirs->past, &child->map, 0, UINT64_MAX, false);
	if (err == 0)
		err = undo_moves(space, child, heirs);
	if (!child->map.family)
		init = pagemap_init(&child->map, child->family);
	/* Records without a marker are inherited, so the child must look for them, too. */
	child->n_unmarked = space->n_unmarked;
	child->unmarked_inherited = space->n_unmarked != 0;
	if (err == 0)
		err = heirs->error;
	if (init == 0 && err < 0)
		give_up_child(space, child, err);
	if (init == 0)
		space_publish(child);
	return init;
}

/* ---- children --------------------------------------------------------------------------- */

static int add_heir(struct heirs *heirs, struct space *child)
{
	struct space **v = array_room(heirs->v, heirs->n, &heirs->cap, sizeof(struct space *));

	if (!v)
		return -ENOMEM;
	heirs->v = v;
	heirs->v[heirs->n++] = child;
	return 0;
}

static void strand(struct space *space, struct space *child, int uffd)
{
	if (child) {
		child->uffd = -1; /* still ours */
		space_unref(child);
	}
	give_up_strand(space, uffd, &space->map);
}

void fork_begin(struct space *space, struct heirs *ret_heirs)
{
	*ret_heirs = (struct heirs){ .past = PAGEMAP_NULL, .before = RANGES_NULL };
	for (uint32_t i = 0; i < space->log.n; i++) {
		const struct uffd_msg *msg = event_log_at(&space->log, i);

		ret_heirs->n_unborn += msg->event == UFFD_EVENT_FORK && !event_log_is_done(msg);
	}
	/* A child gets no staging: what lies there must be in its slot before the child shares
	 * the records. */
	if (ret_heirs->n_unborn == 0)
		return;
	evict_settle_batches(space);
	ret_heirs->error = ranges_copy(&space->registered, &ret_heirs->before);
}

void fork_one(struct space *space, struct heirs *heirs, struct uffd_msg *msg)
{
	int uffd = (int)msg->arg.fork.ufd;
	struct space *child = NULL;
	int err;

	heirs->n_unborn--;
	if (!space->beacon_out) {
		/* Nothing was away: the child finds its beacon and enrols afresh. */
		close(uffd);
		return;
	}
	err = adopt_child(space, uffd, &child);
	if (err == 0)
		err = inherit(space, child, heirs);
	if (err == 0)
		err = add_heir(heirs, child);
	if (err < 0)
		strand(space, child, uffd);
}

/*
 * A record without marker counts although the page table does not speak for it. Where the kernel
 * wiped the memory at the fork it must not: there is none. What could not be marked in the parent
 * has no marker in the child either, so only the mapping tells.
 */
void fork_sort_unmarked(struct space *space)
{
	struct page_rec rec;

	if (!space->unmarked_inherited || !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE))
		return;
	if (space_read_smaps(space) < 0)
		return;
	for (uint64_t i = 0; (i = pagemap_next(&space->map, i, UINT64_MAX, &rec)) < UINT64_MAX; i++) {
		const struct mapping *m;

		if (!(rec.v & PAGE_REC_UNMARKED))
			continue;
		m = maps_find(&space->maps, space_addr(space, i));
		if (m && m->wiped)
			(void)pagemap_set(&space->map, i, (struct page_rec){ 0 });
	}
	space->unmarked_inherited = false;
}

/* ---- changes of the same set ------------------------------------------------------------ */

static void remember(struct space *space, struct heirs *heirs, struct range range)
{
	uint64_t first = space_pgidx(space, range.start), end = space_pgidx(space, range.end);

	if (!pagemap_any_away(&space->map, first, end - first))
		return;
	if (!heirs->past.family && heirs->error == 0)
		heirs->error = pagemap_init(&heirs->past, space->family);
	if (heirs->past.family && heirs->error == 0)
		heirs->error = copy_records(&space->map, &heirs->past, first, end, true);
}

void fork_before_change(struct space *space, struct heirs *heirs, const struct uffd_msg *msg)
{
	if ((heirs->n_unborn == 0 && heirs->n == 0) || msg->event == UFFD_EVENT_REMOVE)
		return;
	remember(space, heirs, event_source(msg));
	remember(space, heirs, event_target(msg));
}

static int follow_move(struct space *space, struct space *child, const struct heirs *heirs,
		       const struct uffd_msg *msg)
{
	struct range to = event_target(msg);
	int err = 0;

	switch (when_born(space, child, heirs, msg)) {
	case BORN_AFTER:
		return replace_records(&space->map, child, msg);
	case BORN_BEFORE:
		return 0;
	case BORN_DOUBTFUL:
		err = doubt(space, child, heirs, msg);
		break;
	case BORN_ANYTIME:
		break;
	}
	/* Where it has nothing else. */
	if (err == 0)
		err = copy_records(&space->map, &child->map, space_pgidx(space, to.start),
				   space_pgidx(space, to.end), false);
	return err;
}

void fork_after_change(struct space *space, struct heirs *heirs, const struct uffd_msg *msg)
{
	if (msg->event != UFFD_EVENT_REMAP)
		return;
	for (uint32_t i = 0; i < heirs->n; i++) {
		int err = heirs->error;

		if (err == 0)
			err = follow_move(space, heirs->v[i], heirs, msg);
		if (err < 0 && !heirs->v[i]->given_up)
			give_up_child(space, heirs->v[i], err);
	}
}

/* ---- the end ---------------------------------------------------------------------------- */

/* At least all that is registered in the child: what was at any moment of the set. */
static int inherit_registered(struct space *space, struct space *child, const struct heirs *heirs)
{
	int err = ranges_copy(&heirs->before, &child->registered);

	for (size_t i = 0; i < space->registered.n && err == 0; i++)
		err = ranges_add(&child->registered, space->registered.v[i].start,
				 space->registered.v[i].end, 0);
	for (uint32_t i = 0; i < space->log.n && err == 0; i++) {
		struct range to = event_target(event_log_at(&space->log, i));

		err = ranges_add(&child->registered, to.start, to.end, 0);
	}
	return err;
}

static int finish_one(struct space *space, struct space *child, const struct heirs *heirs)
{
	int err;

	if (child->n_unmarked < space->n_unmarked)
		child->n_unmarked = space->n_unmarked;
	child->unmarked_inherited |= child->n_unmarked != 0;
	child->given_up |= space->given_up;
	child->distrust |= space->distrust;
	err = inherit_registered(space, child, heirs);
	/* What is mapped there nobody knows yet, and a child has one thread: event.c. */
	child->occupied_unknown = true;
	/* From here on the daemon is needed, also if the parent ends at once. */
	__atomic_store_n(&child->registered_bytes, ranges_bytes(&child->registered),
			 __ATOMIC_RELAXED);
	if (err == 0)
		err = object_fork(space, child);
	return err == 0 ? start_child(child) : err;
}

void fork_finish(struct space *space, struct heirs *heirs)
{
	for (uint32_t i = 0; i < heirs->n; i++) {
		struct space *child = heirs->v[i];

		if (finish_one(space, child, heirs) < 0)
			strand(space, child, child->uffd);
		else
			space_unref(child);
	}
	pagemap_deinit(&heirs->past);
	ranges_deinit(&heirs->before);
	free(heirs->v);
}
