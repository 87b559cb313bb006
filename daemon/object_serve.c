/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults on shared memory, and the way home that nobody faulted for. Runs on the worker of the
 * space that faulted; other mappers' workers serve theirs at the same time, so a record is
 * looked up, and what it says done, under the object's lock. Allocates nothing; logs only when
 * bytes are lost.
 *
 * What kind of fault a message reports is a hint, and old. What is there now the kernel says:
 * CONTINUE fails with EFAULT on a hole, COPY with EEXIST on a page. A page in the object whose
 * record says STORED was put there by somebody whom we do not manage: the true bytes and the
 * planted ones cannot be told apart by anybody who reads them, so it is poisoned and counted.
 *
 * Where a mapping lies is asked of the kernel at each fault. An event that is unread at the
 * moment of the ioctl makes it fail with EAGAIN, so the answer still holds then.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "home.h"
#include "log.h"
#include "object.h"
#include "tier.h"
#include "uffd.h"

/* Pages that are mapped, or brought home, along with one that was asked for. */
#define OBJECT_WINDOW 16u
/* How often a fault looks whether another worker has read what it is about to read. */
#define NOTING_TRIES 50

/* Where a page of an object lies in a space, and how far the mapping goes on from there. */
struct spot {
	uint64_t addr;
	uint64_t page; /* of the object */
	uint64_t n;    /* pages to the end of the mapping */
};

static struct spot spot_of(const struct space *space, const struct mapping *m, uint64_t addr)
{
	return (struct spot){
		.addr = addr,
		.page = (addr - m->start + m->offset) >> space->page_shift,
		.n = (m->end - addr) >> space->page_shift,
	};
}

/* ---- pages that are in the object ---------------------------------------------------- */

/* A hole that nobody ever filled, or that the program punched: zero, as the kernel gives. */
static enum fill_result fill_zero(struct space *space, const struct spot *spot)
{
	uint64_t done;
	enum uffd_result result = uffd_copy(space->uffd, spot->addr, space->zero_page,
					    space->page_size, &done);

	/* Somebody else was faster: the page is there now, and is to be mapped. */
	if (result == UFFD_EXISTS)
		return FILL_LATER;
	if (result == UFFD_OK)
		group_add_est(space->group, 1);
	return fault_result_of(space, result, spot->addr);
}

/* Map a page that the object has in this mapping; a few that follow come along. */
static enum fill_result map_resident(struct space *space, const struct spot *spot, uint64_t n)
{
	uint64_t done = 0;
	enum uffd_result result =
		uffd_continue(space->uffd, spot->addr, n * space->page_size, &done);

	if (done)
		return FILL_DONE;
	if (result == UFFD_EXISTS) /* mapped already; write-protected, or a second message */
		return fault_unprotect(space, spot->addr);
	if (result == UFFD_ERROR && errno == EFAULT)
		return fill_zero(space, spot);
	return fault_result_of(space, result, spot->addr);
}

/* How many records from the spot on, the first included, are RESIDENT. A neighbour that is
 * LEAVING must not be mapped: it would be writable. */
static uint64_t resident_run(const struct object *object, const struct spot *spot)
{
	uint64_t n = 1, max = spot->n < OBJECT_WINDOW ? spot->n : OBJECT_WINDOW;

	if (!object->family)
		return max;
	while (n < max &&
	       page_rec_state(pagemap_get(&object->map, spot->page + n)) == PAGE_RESIDENT)
		n++;
	return n;
}

static enum fill_result serve_resident(struct space *space, struct object *object,
				       const struct spot *spot, bool protected)
{
	if (protected)
		return fault_unprotect(space, spot->addr);
	if (object_remove_pending(object, spot->page))
		return FILL_LATER;
	return map_resident(space, spot, resident_run(object, spot));
}

/* ---- pages that are away ------------------------------------------------------------- */

static void object_lose(struct space *space, struct object *object, const struct spot *spot,
			const char *why)
{
	struct page_rec rec = pagemap_get(&object->map, spot->page);

	if (page_rec_state(rec) != PAGE_POISONED) {
		stats_add(&space->stats.lost, 1);
		stats_add(&space->group->stats.lost, 1);
		log_err("pid %d: shared page %llu (inode %llu) at 0x%llx is lost: %s", space->pid,
			(unsigned long long)spot->page, (unsigned long long)object->ino,
			(unsigned long long)spot->addr, why);
		(void)pagemap_set(&object->map, spot->page, page_rec_move(rec, PAGE_POISONED));
	}
	(void)uffd_unmark(space->uffd, spot->addr, space->page_size);
	(void)uffd_poison(space->uffd, spot->addr, space->page_size);
	(void)uffd_wake(space->uffd, spot->addr, space->page_size);
}

static void came_home(struct space *space, struct object *object, const struct spot *spot,
		      uint64_t n, bool referenced)
{
	for (uint64_t i = 0; i < n; i++) {
		struct page_rec home = { .v = referenced && i == 0 ? PAGE_REC_REFERENCED : 0 };

		(void)pagemap_set(&object->map, spot->page + i, home);
	}
	stats_add(&space->stats.returned, n);
	stats_add(&space->group->stats.returned, n);
	group_add_est(object->group, (int64_t)n);
}

/* One COPY of n pages, and what its answer means. With the lock held. */
static enum fill_result fill_stored(struct space *space, struct object *object,
				    const struct spot *spot, const void *src, uint64_t n,
				    bool referenced, uint64_t *ret_pages)
{
	uint64_t done = 0;
	enum uffd_result result =
		uffd_copy(space->uffd, spot->addr, src, n * space->page_size, &done);

	*ret_pages = done >> space->page_shift;
	if (done) {
		came_home(space, object, spot, *ret_pages, referenced);
		return FILL_DONE;
	}
	if (result == UFFD_EXISTS) {
		object_lose(space, object, spot, "a process that is not managed wrote there");
		return FILL_DONE;
	}
	if (result == UFFD_NO_VMA && n > 1)
		return fill_stored(space, object, spot, src, 1, referenced, ret_pages);
	return fault_result_of(space, result, spot->addr);
}

/* How many records from the spot on continue the first: same store, next slot. */
static uint64_t stored_run(const struct object *object, const struct spot *spot, uint64_t max,
			   struct page_rec first)
{
	uint64_t n = 1;

	if (max > spot->n)
		max = spot->n;
	while (n < max) {
		struct page_rec rec = pagemap_get(&object->map, spot->page + n);

		if (page_rec_state(rec) != PAGE_STORED ||
		    page_rec_slot(rec) != page_rec_slot(first) + n ||
		    object_remove_pending(object, spot->page + n))
			break;
		n++;
	}
	return n;
}

/* Hold the slots of a run, or let go of them. */
static void hold_slots(struct object *object, struct page_rec rec, uint64_t n, bool hold)
{
	pthread_mutex_lock(&object->family->lock);
	for (uint64_t i = 0; i < n; i++) {
		if (hold)
			(void)family_slot_ref(object->family, page_rec_store(rec),
					      page_rec_slot(rec) + i);
		else
			family_slot_unref(object->family, page_rec_store(rec),
					  page_rec_slot(rec) + i);
	}
	pthread_mutex_unlock(&object->family->lock);
}

/* Take the records of a run that are still ours from one state to another. Returns how many of
 * the first ones were. */
static uint64_t set_state(struct object *object, const struct spot *spot, uint64_t n,
			  struct page_rec first, enum page_state from, enum page_state to)
{
	uint64_t kept = n;

	for (uint64_t i = 0; i < n; i++) {
		struct page_rec rec = pagemap_get(&object->map, spot->page + i);

		if (page_rec_state(rec) == from && page_rec_slot(rec) == page_rec_slot(first) + i)
			(void)pagemap_set(&object->map, spot->page + i, page_rec_move(rec, to));
		else if (kept == n)
			kept = i;
	}
	return kept;
}

/* The tier has to be asked: the records say COMING meanwhile, and the lock is free. A remove
 * may drop such a record; its slot is held, so that a record which names it is still ours. */
static enum fill_result fetch_by_read(struct space *space, struct object *object,
				      const struct spot *spot, uint64_t n, struct page_rec rec,
				      bool referenced, uint64_t *ret_pages)
{
	struct store *store = object->store;
	enum fill_result result = FILL_LATER;
	uint64_t kept;
	int err;

	(void)set_state(object, spot, n, rec, PAGE_STORED, PAGE_COMING);
	hold_slots(object, rec, n, true);
	object_unlock(object);
	err = store->tier->ops->read(store->backend_store, page_rec_slot(rec), (uint32_t)n,
				     space->bounce);
	object_lock(object);
	kept = set_state(object, spot, n, rec, PAGE_COMING, PAGE_STORED);
	/* A madvise that began meanwhile may have punched already. */
	for (uint64_t i = 0; i < kept && err == 0; i++)
		if (object_remove_pending(object, spot->page + i))
			kept = i;
	if (kept && err < 0) {
		stats_add(&store->tier->n_errors, 1);
		object_lose(space, object, spot, strerror(-err));
		result = FILL_DONE;
	} else if (kept) {
		result = fill_stored(space, object, spot, space->bounce, kept, referenced,
				     ret_pages);
	}
	hold_slots(object, rec, n, false);
	return result;
}

static enum fill_result serve_stored(struct space *space, struct object *object,
				     const struct spot *spot, uint64_t max, bool referenced,
				     uint64_t *ret_pages)
{
	struct page_rec rec = pagemap_get(&object->map, spot->page);
	uint64_t n = stored_run(object, spot, max, rec);

	*ret_pages = 0;
	if (object_remove_pending(object, spot->page))
		return FILL_LATER;
	stats_add(&object->store->tier->n_out, n);
	if (object->store->map)
		return fill_stored(space, object, spot,
				   (const char *)object->store->map +
					   page_rec_slot(rec) * space->page_size,
				   n, referenced, ret_pages);
	return fetch_by_read(space, object, spot, n, rec, referenced, ret_pages);
}

/* ---- one fault ----------------------------------------------------------------------- */

/* Do not let the program bring home faster than the evictor takes out; never for long. */
static bool must_wait(const struct space *space, const struct object *object,
		      const struct fault *fault)
{
	return group_over(space->group) > (int64_t)(space->n_batches * BATCH_PAGES_MAX) &&
	       __atomic_load_n(&object->busy, __ATOMIC_RELAXED) &&
	       clock_now_ns() - fault->read_ns < 5000000u;
}

static void count_fault(struct space *space, const struct fault *fault)
{
	uint64_t ns = clock_now_ns() - fault->read_ns;

	stats_add(&space->stats.faults, 1);
	stats_add(&space->group->stats.faults, 1);
	histogram_add(&space->stats.fault_ns, ns);
	histogram_add(&space->group->stats.fault_ns, ns);
}

static enum fill_result object_serve(struct space *space, struct object *object,
				     const struct fault *fault, const struct spot *spot)
{
	struct page_rec rec = pagemap_get(&object->map, spot->page);
	enum fill_result result;
	uint64_t pages;

	switch (page_rec_state(rec)) {
	case PAGE_LEAVING:
		/* Wanted again: it stays. Its slot is the evictor's to give back. */
		(void)pagemap_set(&object->map, spot->page,
				  (struct page_rec){ .v = PAGE_REC_REFERENCED });
		stats_add(&space->stats.second_chance, 1);
		stats_add(&space->group->stats.second_chance, 1);
		/* fallthrough */
	case PAGE_RESIDENT:
		return serve_resident(space, object, spot, fault->protected);
	case PAGE_STORED:
		if (must_wait(space, object, fault))
			return FILL_LATER;
		result = serve_stored(space, object, spot, OBJECT_WINDOW, true, &pages);
		if (result == FILL_DONE)
			count_fault(space, fault);
		return result;
	case PAGE_COMING:
		return FILL_LATER;
	case PAGE_POISONED:
		object_lose(space, object, spot, "");
		return FILL_DONE;
	case PAGE_STAGED:
	case PAGE_REMOVED:
	case PAGE_STATE_MAX:
		break;
	}
	log_err("shared page in state %s", page_state_name(page_rec_state(rec)));
	__builtin_trap();
}

/* Another mapper's worker is about to read for a few microseconds; a fault that comes just then
 * need not wait until its own worker looks again. But the other one may have lost its processor. */
static void lock_unless_noting(struct object *object)
{
	object_lock(object);
	for (int i = 0; i < NOTING_TRIES && object_is_noting(object); i++) {
		object_unlock(object);
		(void)sched_yield();
		object_lock(object);
	}
}

/* It is registered, and not for us to fill: a private mapping of a file, which took the place of
 * private memory in the instant in which that was registered, where zeros would not be what the
 * file has; or shared memory of which nothing is away. */
static enum fill_result let_go(struct space *space, const struct mapping *m, uint64_t addr)
{
	uint64_t page_addr = addr & ~(space->page_size - 1);
	int err = -EBUSY;

	/* Another's by now is refused: older kernels let anybody unregister it. */
	if (uffd_register(space->uffd, page_addr, space->page_size, UFFD_REGISTER_MODE) == UFFD_OK)
		err = home_unregister(space, m->start, m->end);
	if (err == -EAGAIN)
		return FILL_RETRY;
	if (err < 0)
		(void)uffd_wake(space->uffd, page_addr, space->page_size);
	return FILL_DONE;
}

bool object_fault(struct space *space, const struct fault *fault, enum fill_result *ret_result)
{
	struct object *object;
	struct mapping m;
	struct spot spot;

	if (maps_query(space->maps_fd, fault->addr, &m) < 0 || mapping_is_private_anonymous(&m))
		return false;
	if (!m.shared) {
		*ret_result = let_go(space, &m, fault->addr);
		return true;
	}
	object = object_of_space(space, m.dev, m.ino);
	if (!object)
		object = object_take_in(space, m.dev, m.ino);
	if (!object) {
		*ret_result = let_go(space, &m, fault->addr);
		return true;
	}
	spot = spot_of(space, &m, fault->addr);
	lock_unless_noting(object);
	*ret_result = object_serve(space, object, fault, &spot);
	object_unlock(object);
	return true;
}

/* ---- home without a fault ------------------------------------------------------------ */

static enum fill_result restore_mapping(struct space *space, struct object *object,
					const struct mapping *m, uint64_t *at, uint64_t end,
					uint32_t *budget, uint64_t *pages)
{
	enum fill_result result = FILL_DONE;
	uint64_t stop = end < m->end ? end : m->end;

	object_lock(object);
	while (*at < stop && *budget && result == FILL_DONE) {
		struct spot spot = spot_of(space, m, *at);
		uint64_t last = spot.page + ((stop - *at) >> space->page_shift), got = 0;
		struct page_rec rec;
		uint64_t page = pagemap_next(&object->map, spot.page, last, &rec);

		*at += (page - spot.page) << space->page_shift;
		if (page >= last)
			break;
		spot = spot_of(space, m, *at);
		if (page_rec_state(rec) == PAGE_COMING) {
			result = FILL_LATER;
		} else if (page_rec_state(rec) == PAGE_STORED) {
			result = serve_stored(space, object, &spot, *budget, false, &got);
			*pages += got;
			*budget -= got < *budget ? (uint32_t)got : *budget;
		}
		if (result == FILL_DONE)
			*at += (got ? got : 1) << space->page_shift;
	}
	object_unlock(object);
	return result;
}

enum fill_result object_restore(struct space *space, uint64_t *at, uint64_t end, uint32_t budget,
				uint64_t *pages)
{
	enum fill_result result = FILL_DONE;

	while (*at < end && budget && result == FILL_DONE && space->n_objects) {
		const struct mapping *m = maps_at_or_after(&space->maps, *at);
		struct object *object;
		struct mapping now;

		if (!m || m->start >= end)
			break;
		if (*at < m->start)
			*at = m->start;
		object = m->shared ? object_of_space(space, m->dev, m->ino) : NULL;
		/* What lies there now is what a fill would go to. */
		if (object && maps_query(space->maps_fd, *at, &now) == 0 && now.shared &&
		    object == object_of_space(space, now.dev, now.ino))
			result = restore_mapping(space, object, &now, at, end, &budget, pages);
		else
			*at = m->end;
	}
	if (result == FILL_DONE && budget)
		*at = end;
	return result;
}

unsigned char object_where(struct space *space, uint64_t addr)
{
	struct object *object;
	struct mapping m;
	enum page_state state;

	if (!space->n_objects || maps_query(space->maps_fd, addr, &m) < 0 || !m.shared)
		return 0;
	object = object_of_space(space, m.dev, m.ino);
	if (!object)
		return 0;
	object_lock(object);
	state = page_rec_state(pagemap_get(&object->map, spot_of(space, &m, addr).page));
	object_unlock(object);
	return state == PAGE_LEAVING			      ? 1
	       : state == PAGE_STORED || state == PAGE_COMING ? 2
	       : state == PAGE_POISONED			      ? 3
							      : 0;
}
