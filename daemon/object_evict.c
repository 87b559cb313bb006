/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages of an open object leave, a pass at a time. Runs on the object thread.
 *
 *   pick     what the object has, from the hand on; records LEAVING, slots taken
 *   protect  every mapping of these pages, in every mapper, write-protected; the kernel's
 *            pagemap says so. A store from now on is a message, and takes the page back
 *   prove    no thread is in a system call that may have pinned a page before: the pin of a
 *            direct read would go on writing into a page that has left
 *   copy     an agent of a mapper reads the object and writes the slots, so that they are
 *            charged to its cgroup; for other tiers the daemon does
 *   punch    under the lock, with no madvise and no fork under way: what is still LEAVING
 *            becomes a hole, and STORED
 *
 * A page that is wanted meanwhile simply ceases to be LEAVING. Each slot carries a reference
 * of the pass beside the record's until the agent has answered. If this thread stops anywhere,
 * the object still has every byte until its punch, and the slot has it after.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"
#include "object_pass.h"
#include "store_slots.h"
#include "tier.h"

/* When nothing has left for so long, what there is is in use: others wait for this thread. */
#define TARGET_PATIENCE_NS 200000000u
#define REQUEST_PATIENCE_NS 2000000000u

/* How a pass ends. */
enum pass_end { PASS_DONE, PASS_STUCK };

/* ---- pick ---------------------------------------------------------------------------- */

/* May this page leave? Spares a referenced one once. */
static bool wants(struct object *object, uint64_t page, bool any)
{
	struct page_rec rec = pagemap_get(&object->map, page);

	if (page_rec_state(rec) != PAGE_RESIDENT)
		return false;
	if (!(rec.v & PAGE_REC_REFERENCED))
		return true;
	(void)pagemap_set(&object->map, page, (struct page_rec){ 0 });
	return any;
}

/* Pages that the object has in [from, end), from `from` on. Returns where it stopped. */
static uint64_t pick(struct pass *pass, uint64_t from, uint64_t end, uint64_t want, bool any)
{
	struct object *object = pass->object;
	uint64_t at = from;

	object_lock(object);
	while (at < end && pass->n_pages < want) {
		off_t data = lseek(object->fd, (off_t)(at << object->page_shift), SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(object->fd, data, SEEK_HOLE);
		uint64_t stop;

		if (data < 0 || hole < 0) {
			at = end;
			break;
		}
		at = (uint64_t)data >> object->page_shift;
		stop = ((uint64_t)hole + object->page_size - 1) >> object->page_shift;
		for (; at < stop && at < end && pass->n_pages < want; at++)
			if (wants(object, at, any))
				pass->page[pass->n_pages++] = at;
	}
	object_unlock(object);
	return at;
}

static bool mark_leaving(struct pass *pass)
{
	struct object *object = pass->object;
	uint32_t store = object->store->unit->index, i = 0;

	object_lock(object);
	for (; i < pass->n_pages; i++) {
		int err;

		pthread_mutex_lock(&object->family->lock);
		err = family_slot_ref(object->family, store, pass->slot[i]);
		pthread_mutex_unlock(&object->family->lock);
		if (err == 0)
			err = pagemap_set(&object->map, pass->page[i],
					  page_rec_make(PAGE_LEAVING, store, pass->slot[i]));
		if (err == 0)
			continue;
		pthread_mutex_lock(&object->family->lock);
		family_slot_unref(object->family, store, pass->slot[i]);
		pthread_mutex_unlock(&object->family->lock);
		break;
	}
	object_unlock(object);
	return i == pass->n_pages;
}

/* What has not left stays. It may be write-protected still: a store will tell. */
static void take_back(struct pass *pass)
{
	struct page_rec rec;

	object_lock(pass->object);
	for (uint32_t i = 0; i < pass->n_pages; i++)
		if (pass_is_leaving(pass, i, &rec))
			(void)pagemap_set(&pass->object->map, pass->page[i],
					  page_rec_move(rec, PAGE_RESIDENT));
	object_unlock(pass->object);
}

static void release_slots(struct pass *pass)
{
	struct family *family = pass->object->family;

	pthread_mutex_lock(&family->lock);
	for (uint32_t i = 0; i < pass->n_pages; i++)
		family_slot_unref(family, pass->object->store->unit->index, pass->slot[i]);
	pthread_mutex_unlock(&family->lock);
}

/* ---- copy ---------------------------------------------------------------------------- */

/* Runs of pages [from, to) of the pass that are still leaving. Returns where it stopped. */
static uint32_t make_runs(struct pass *pass, uint32_t from)
{
	struct object *object = pass->object;
	struct object_copy *copy = pass->copy;
	uint64_t size = object->page_size;
	struct page_rec rec;
	uint32_t i = from;

	copy->n_runs = 0;
	object_lock(object);
	for (; i < pass->n_pages; i++) {
		struct uhmm_run *last = copy->n_runs ? &copy->runs[copy->n_runs - 1] : NULL;

		if (!pass_is_leaving(pass, i, &rec))
			continue;
		if (last && last->home_addr + last->n_pages * size == pass->page[i] * size &&
		    last->store_off + last->n_pages * size == pass->slot[i] * size) {
			last->n_pages++;
			continue;
		}
		if (copy->n_runs == UHMM_RING_RUNS)
			break;
		copy->runs[copy->n_runs++] = (struct uhmm_run){
			.home_addr = pass->page[i] * size,
			.store_off = pass->slot[i] * size,
			.n_pages = 1,
		};
	}
	object_unlock(object);
	return i;
}

/* What a run of the copy did not bring to its slot stays. */
static void drop_failed_runs(struct pass *pass)
{
	struct page_rec rec;

	object_lock(pass->object);
	for (uint32_t r = 0; r < pass->copy->n_runs; r++) {
		const struct uhmm_run *run = &pass->copy->runs[r];
		uint64_t page = run->home_addr >> pass->object->page_shift;
		uint32_t i = pass_first_at(pass, page);

		for (uint32_t k = 0; run->result != 0 && k < run->n_pages; k++)
			if (pass_is_leaving(pass, i + k, &rec))
				(void)pagemap_set(&pass->object->map, page + k,
						  page_rec_move(rec, PAGE_RESIDENT));
	}
	object_unlock(pass->object);
}

/* For a tier that no agent writes. */
static void copy_by_daemon(struct pass *pass)
{
	const struct store *store = pass->object->store;
	uint64_t size = pass->object->page_size;
	char *page = aligned_alloc(size, size);

	for (uint32_t r = 0; r < pass->copy->n_runs; r++) {
		struct uhmm_run *run = &pass->copy->runs[r];

		run->result = page ? 0 : -ENOMEM;
		for (uint32_t k = 0; k < run->n_pages && run->result == 0; k++) {
			off_t at = (off_t)(run->home_addr + k * size);

			run->result = pread(pass->object->fd, page, size, at) == (ssize_t)size ?
					      store->tier->ops->write(store->backend_store,
								      run->store_off / size + k, 1,
								      page) :
					      -EIO;
		}
		if (run->result)
			stats_add(&store->tier->n_errors, 1);
	}
	free(page);
}

static enum pass_end copy_by_agent(struct pass *pass)
{
	int err = -EBUSY;

	for (uint32_t i = 0; i < pass->n_mappers && err == -EBUSY; i++)
		if (space_has_agent(pass->mappers[i]))
			err = object_ask_copy(pass->mappers[i], pass->object, &pass->copy);
	if (!pass->copy)
		log_warn("shared memory (inode %llu): an agent does not answer",
			 (unsigned long long)pass->object->ino);
	/* Also one that is lost may have been at it, and write the slots at any time from now on. */
	if (!pass->copy || err == -ENOTCONN)
		return PASS_STUCK;
	for (uint32_t r = 0; err < 0 && r < pass->copy->n_runs; r++)
		pass->copy->runs[r].result = err;
	return PASS_DONE;
}

static enum pass_end copy_some(struct pass *pass)
{
	if (pass->object->store->tier->ops->flags & UHMM_BACKEND_NATIVE_CHARGE) {
		if (copy_by_agent(pass) == PASS_STUCK)
			return PASS_STUCK;
	} else {
		copy_by_daemon(pass);
	}
	drop_failed_runs(pass);
	return PASS_DONE;
}

/* ---- punch --------------------------------------------------------------------------- */

/* Part of a huge page: the kernel may have kept it, and have cleared what we punched. Nobody
 * has seen that: who comes meanwhile waits for the lock. */
static void undo_punch(struct pass *pass, uint32_t i)
{
	struct object *object = pass->object;
	const struct store *store = object->store;
	uint64_t size = object->page_size;
	char *page = aligned_alloc(size, size);
	int err = page ? store->tier->ops->read(store->backend_store, pass->slot[i], 1, page) :
			 -ENOMEM;

	if (err == 0 && pwrite(object->fd, page, size, (off_t)(pass->page[i] * size)) !=
				(ssize_t)size)
		err = -EIO;
	free(page);
	if (err == 0)
		return;
	log_err("shared page %llu is lost: it could not be put back",
		(unsigned long long)pass->page[i]);
	(void)pagemap_set(&object->map, pass->page[i],
			  page_rec_move(pagemap_get(&object->map, pass->page[i]), PAGE_POISONED));
}

static void punched(struct pass *pass, uint32_t i)
{
	struct object *object = pass->object;
	struct page_rec rec = pagemap_get(&object->map, pass->page[i]);

	if (!object_is_hole(object, pass->page[i])) {
		undo_punch(pass, i);
		rec = pagemap_get(&object->map, pass->page[i]);
		if (page_rec_state(rec) == PAGE_LEAVING)
			(void)pagemap_set(&object->map, pass->page[i],
					  page_rec_move(rec, PAGE_RESIDENT));
		return;
	}
	rec = page_rec_move(page_rec_move(rec, PAGE_STAGED), PAGE_STORED);
	(void)pagemap_set(&object->map, pass->page[i], rec);
	pass->left++;
}

static void punch_run(struct pass *pass, uint32_t i, uint32_t n)
{
	struct object *object = pass->object;

	if (fallocate(object->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(pass->page[i] << object->page_shift),
		      (off_t)((uint64_t)n << object->page_shift)) < 0)
		return;
	for (uint32_t k = i; k < i + n; k++)
		punched(pass, k);
}

/*
 * With the lock held. No madvise is between its event and its end: it would punch what is
 * being stored, and the slot would keep it. One whose event is unread has not begun. A mapper
 * that came since is a child that inherited the protection.
 */
static int may_punch(const struct object *object)
{
	if (object->n_removes || object->broken)
		return -EBUSY;
	for (uint32_t i = 0; i < object->n_mappers; i++)
		if (__atomic_load_n(&object->mappers[i]->quitting, __ATOMIC_RELAXED) ||
		    __atomic_load_n(&object->mappers[i]->hold, __ATOMIC_RELAXED))
			return -EBUSY;
	return object_all_applied(object) ? 0 : -EAGAIN;
}

/* Pages [from, to) of the pass, a few at a time: faults wait for the lock. */
static void punch(struct pass *pass, uint32_t from, uint32_t to)
{
	struct object *object = pass->object;
	uint64_t before = pass->left;
	struct page_rec rec;
	int err = 0, tries = 0;

	while (from < to && tries < PASS_TRIES) {
		uint32_t budget = 64;

		/* What was locked meanwhile stays. */
		if (pass_locks_changed(pass) && pass_protect(pass) < 0)
			break;
		object_lock_still(object);
		err = may_punch(object);
		if (err < 0) {
			object_unlock_still(object);
			tries += err == -EAGAIN ? 1 : PASS_TRIES;
			usleep(err == -EAGAIN ? PASS_PAUSE_USEC : 0);
			continue;
		}
		while (from < to && budget) {
			uint32_t n = 0;

			while (from + n < to && n < budget && pass_is_leaving(pass, from + n, &rec) &&
			       pass->page[from + n] == pass->page[from] + n)
				n++;
			if (n)
				punch_run(pass, from, n);
			from += n ? n : 1;
			budget -= n ? n : 1;
		}
		object_stamp(object);
		object_unlock_still(object);
	}
	stats_add(&object->group->stats.evicted, pass->left - before);
	stats_add(&object->store->tier->n_in, pass->left - before);
	group_add_est(object->group, -(int64_t)(pass->left - before));
}

/* ---- the pass ------------------------------------------------------------------------ */

static void run_pass(struct pass *pass)
{
	enum pass_end end = PASS_DONE;
	uint32_t at = 0, next;

	if (mark_leaving(pass) && pass_protect(pass) == 0 && pass_prove(pass) == 0) {
		while (at < pass->n_pages && end == PASS_DONE) {
			next = make_runs(pass, at);
			if (pass->copy->n_runs)
				end = copy_some(pass);
			if (end == PASS_DONE)
				punch(pass, at, next);
			at = next;
		}
	}
	take_back(pass);
	/* Slots that an agent may still write are nobody's until the object ends. */
	if (end == PASS_DONE)
		release_slots(pass);
}

static int pass_init(struct pass *pass, struct object *object)
{
	*pass = (struct pass){ .object = object };
	pass->page = calloc(PASS_PAGES, sizeof(*pass->page));
	pass->slot = calloc(PASS_PAGES, sizeof(*pass->slot));
	pass->copy = calloc(1, sizeof(*pass->copy));
	return pass->page && pass->slot && pass->copy ? 0 : -ENOMEM;
}

static void pass_deinit(struct pass *pass)
{
	pass_forget_mappers(pass);
	free(pass->page);
	free(pass->slot);
	free(pass->copy);
}

/* Pick up to `want` pages from *at on and take them out. Returns how many left. */
static uint64_t one_pass(struct object *object, uint64_t *at, uint64_t end, uint64_t want, bool any)
{
	struct pass pass;
	uint64_t left = 0;

	if (want > PASS_PAGES)
		want = PASS_PAGES;
	if (pass_init(&pass, object) == 0) {
		*at = pick(&pass, *at, end, want, any);
		pass.n_pages = store_take_slots(object->family, object->store, pass.n_pages,
						pass.slot);
		if (pass.n_pages)
			run_pass(&pass);
		left = pass.left;
	}
	pass_deinit(&pass);
	return left;
}

/* Pages that are to come home and that no mapper maps now, so that no COPY can bring them.
 * Written here, and charged to us: the daemon is about to end, or they would be kept for ever. */
void object_write_back(struct object *object)
{
	const uint64_t end = UINT64_MAX >> object->page_shift;
	uint64_t size = object->page_size;
	char *page = aligned_alloc(size, size);
	struct page_rec rec;

	if (!page)
		return;
	object_lock(object);
	for (uint64_t i = 0; (i = pagemap_next(&object->map, i, end, &rec)) < end; i++) {
		const struct store *store = object->store;

		if (page_rec_state(rec) != PAGE_STORED ||
		    store->tier->ops->read(store->backend_store, page_rec_slot(rec), 1, page) < 0 ||
		    pwrite(object->fd, page, size, (off_t)(i * size)) != (ssize_t)size)
			continue;
		(void)pagemap_set(&object->map, i, page_rec_move(rec, PAGE_RESIDENT));
	}
	object->stamped = false;
	object_unlock(object);
	free(page);
}

uint64_t object_evict(struct object *object, uint64_t first, uint64_t end, uint64_t want, bool any)
{
	uint64_t patience_ns = any ? REQUEST_PATIENCE_NS : TARGET_PATIENCE_NS;
	uint64_t left = 0, at = first, since_ns = clock_now_ns();

	__atomic_store_n(&object->busy, true, __ATOMIC_RELAXED);
	while (at < end && left < want && clock_now_ns() - since_ns < patience_ns) {
		uint64_t before = at, n = one_pass(object, &at, end, want - left, any);

		left += n;
		if (n)
			since_ns = clock_now_ns();
		if (at == before)
			break;
	}
	object->hand = at < end ? at : 0;
	__atomic_store_n(&object->busy, false, __ATOMIC_RELAXED);
	return left;
}
