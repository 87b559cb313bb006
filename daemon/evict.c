/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The evict journey, a batch at a time, one batch a staging chunk. Runs on the space's worker;
 * the work in the program is done by its agent, which answers through the ring and an eventfd.
 *
 *   IDLE -> MOVING   victims picked, slots taken, records LEAVING, staging registered (the gate
 *                    is open), MOVE commanded
 *   MOVING -> MOVED  gate closed; the kernel was asked what is in staging; records STAGED or
 *                    RESIDENT again; holes marked
 *   MOVED -> STORING the agent answered; STORE commanded
 *   STORING -> FREEING  records STORED; FREE commanded
 *   FREEING -> IDLE
 *
 * Nobody waits for the agent without a bound: it may be stopped at any time. What it says
 * speeds things up; where a page is, the kernel says. Each slot of a batch carries a reference
 * of the batch's own until the agent has answered, so that a slot whose page was touched and
 * went home meanwhile cannot be handed out while the agent may still write it.
 */
#define _GNU_SOURCE
#include "evict.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "event.h"
#include "fault.h"
#include "ground.h"
#include "home.h"
#include "log.h"
#include "pick.h"
#include "store_slots.h"
#include "tier.h"
#include "uffd.h"

/* How long a read waits for an agent that is moving: about one batch of single pages. */
#define GATE_GRACE_NS 300000
/* After this the gate closes even if nobody wants to read: a stopped agent. */
#define GATE_MAX_NS 20000000u
/* When the kernel has no memory for what it takes: how long until the next try. */
#define GATE_RETRY_NS 1000000
/* An agent that has not finished a batch after this is not waited for. */
#define AGENT_LATE_NS 100000000u
/* Units of the arena that stay free, beside those for an mremap of all that is out. */
#define EVICT_RESERVE_UNITS 64u
/* Looking for leaves of the page map that are not needed any more costs time. */
#define PRUNE_PAUSE_NS 100000000u
/* When a pick finds nothing, the next one is this much later. */
#define PICK_PAUSE_NS 5000000u

static uint64_t chunk_addr(const struct space *space, const struct batch *batch)
{
	return space->layout.staging_addr +
	       (uint64_t)batch->chunk * BATCH_PAGES_MAX * space->page_size;
}

static struct uhmm_ring_box *batch_box(const struct space *space, const struct batch *batch)
{
	return &space->ring->boxes[batch->chunk];
}

static bool batch_answered(const struct space *space, const struct batch *batch)
{
	return __atomic_load_n(&batch_box(space, batch)->done, __ATOMIC_ACQUIRE) == batch->seq;
}

static void batch_publish_state(struct space *space, struct batch *batch)
{
	__atomic_store_n(&space->unit->batches[batch->chunk].n_pages, batch->n_pages,
			 __ATOMIC_RELEASE);
	__atomic_store_n(&space->unit->batches[batch->chunk].state, (uint32_t)batch->state,
			 __ATOMIC_RELEASE);
}

static void batch_set_state(struct space *space, struct batch *batch, enum batch_state state)
{
	batch->state = state;
	batch_publish_state(space, batch);
}

static void agent_command(struct space *space, struct batch *batch, uint32_t ops, uint32_t n_runs)
{
	struct uhmm_ring_box *box = batch_box(space, batch);
	struct uhmm_msg bell = { .type = UHMM_MSG_DOORBELL, .len = sizeof(bell) };

	box->ops = ops;
	box->n_runs = n_runs;
	box->slots = 0;
	__atomic_store_n(&box->seq, ++batch->seq, __ATOMIC_RELEASE);
	/* A full queue is full of bells. */
	(void)send(space->sock, &bell, sizeof(bell), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void batch_free_staging(struct space *space, struct batch *batch)
{
	batch_set_state(space, batch, BATCH_FREEING);
	agent_command(space, batch, UHMM_OP_FREE, 0);
}

/* The record of page i of the batch, if it is still this batch's. */
static bool batch_record(const struct space *space, const struct batch *batch, uint32_t i,
			 enum page_state state, struct page_rec *ret_rec)
{
	const struct batch_page *page = batch_page(batch, i);
	struct page_rec rec = pagemap_get(&space->map, page->pgidx);

	*ret_rec = rec;
	return page_rec_state(rec) == state && page_rec_store(rec) == space->store->unit->index &&
	       page_rec_slot(rec) == page->slot;
}

static bool batch_is_staged(const struct space *space, const struct batch *batch, uint32_t i)
{
	struct page_rec rec;

	return batch_has_moved(batch, i) && batch_record(space, batch, i, PAGE_STAGED, &rec);
}

/* Length of the run from page i on for which all of `next` holds. */
static uint32_t batch_run(const struct space *space, const struct batch *batch, uint32_t i,
			  bool (*joins)(const struct space *, const struct batch *, uint32_t))
{
	uint32_t n = 1;

	while (i + n < batch->n_pages && joins(space, batch, i + n))
		n++;
	return n;
}

/* ---- slots ------------------------------------------------------------------------------ */

static void batch_release_slots_from(struct space *space, struct batch *batch, uint32_t first)
{
	if (batch->beacon)
		return;
	pthread_mutex_lock(&space->family->lock);
	for (uint32_t i = first; i < batch->n_pages; i++)
		family_slot_unref(space->family, space->store->unit->index,
				  batch_page(batch, i)->slot);
	pthread_mutex_unlock(&space->family->lock);
}

static void batch_release_slots(struct space *space, struct batch *batch)
{
	batch_release_slots_from(space, batch, 0);
}

/* The store that this space fills, and the agent's way to write it. */
static int evict_open_store(struct space *space)
{
	struct tier *tier = space->env->tier;
	struct store *store;
	int err;

	if (space->store)
		return 0;
	err = family_add_store(space->family, tier, space->id, &store);
	if (err < 0)
		return err;
	space->store = store;
	return agent_send_slots(space);
}

/* Everything came home: the backend may let go of the slots' memory. */
void evict_trim(struct space *space)
{
	struct store *store = space->store;
	uint64_t n_slots = 0;

	if (!store || evict_is_busy(space))
		return;
	pthread_mutex_lock(&space->family->lock);
	if (store->unit->slots.n_used)
		space->slots_dirty = true;
	else
		n_slots = store->unit->slots.n_slots;
	pthread_mutex_unlock(&space->family->lock);
	/* Only this worker takes slots, so none is taken meanwhile. */
	if (n_slots && space->slots_dirty) {
		space->slots_dirty = false;
		store->tier->ops->free(store->backend_store, 0, (uint32_t)n_slots);
	}
}

/* A slot for each page of the batch; returns for how many there was one. */
static uint32_t batch_take_slots(struct space *space, struct batch *batch, uint32_t n)
{
	uint64_t slots[BATCH_PAGES_MAX];

	n = store_take_slots(space->family, space->store, n, slots);
	for (uint32_t i = 0; i < n; i++)
		batch_page(batch, i)->slot = slots[i];
	return n;
}

/* ---- MOVE ------------------------------------------------------------------------------- */

/* One MOVE takes pages of one mapping. */
static bool joins_move(const struct space *space, const struct batch *batch, uint32_t i)
{
	uint64_t addr = space_addr(space, batch_page(batch, i)->pgidx);
	const struct mapping *m = maps_find(&space->maps, addr);

	return batch_page(batch, i)->pgidx == batch_page(batch, i - 1)->pgidx + 1 && m &&
	       m->start != addr;
}

/* Is there room in the arena for more to be out? An mremap may need all leaves of the map a
 * second time, and what it cannot have is lost: so as much stays free. */
static bool arena_has_room(const struct space *space)
{
	struct arena *arena = &space->family->arena;

	return arena_room(arena) > EVICT_RESERVE_UNITS + space->map.n_leaves &&
	       arena_reserve(arena, EVICT_RESERVE_UNITS / 2) == 0;
}

/* Is it worth a look at all leaves? Now and then, and when many pages came home since. */
static bool prune_is_due(const struct space *space)
{
	return space->map.n_away + space->map.n_leaves / 2 < space->pruned_away ||
	       clock_now_ns() - space->pruned_ns > PRUNE_PAUSE_NS;
}

static bool evict_has_room(struct space *space)
{
	bool room = arena_has_room(space);

	if (space->pruned_away < space->map.n_away)
		space->pruned_away = space->map.n_away;
	if (!room && prune_is_due(space)) {
		pagemap_prune(&space->map);
		space->pruned_ns = clock_now_ns();
		space->pruned_away = space->map.n_away;
		room = arena_has_room(space);
	}
	__atomic_store_n(&space->no_room, !room, __ATOMIC_RELAXED);
	return room;
}

/* The slot's second reference: the record's. The first is the batch's. */
static bool page_mark_leaving(struct space *space, const struct batch_page *page)
{
	uint32_t store = space->store->unit->index;
	int err;

	if (!evict_has_room(space))
		return false;
	pthread_mutex_lock(&space->family->lock);
	err = family_slot_ref(space->family, store, page->slot);
	pthread_mutex_unlock(&space->family->lock);
	if (err < 0)
		return false;
	err = pagemap_set(&space->map, page->pgidx,
			  page_rec_make(PAGE_LEAVING, store, page->slot));
	if (err == 0)
		return true;
	pthread_mutex_lock(&space->family->lock);
	family_slot_unref(space->family, store, page->slot);
	pthread_mutex_unlock(&space->family->lock);
	return false;
}

/* The batch ends where there is no room for a record. */
static bool pagemap_mark_leaving(struct space *space, struct batch *batch)
{
	uint32_t n = 0;

	while (n < batch->n_pages && page_mark_leaving(space, batch_page(batch, n)))
		n++;
	batch_release_slots_from(space, batch, n);
	batch->n_pages = n;
	return n > 0;
}

/* What is in staging after the gate is closed counts as moved, so nothing may be there before
 * it opens: not the token of space_verify, nor what a program wrote where it has no business. */
static bool staging_is_empty(const struct space *space, const struct batch *batch)
{
	uint64_t entries[BATCH_PAGES_MAX];
	int got = fault_read_pagemap(space, space_pgidx(space, chunk_addr(space, batch)),
				     BATCH_PAGES_MAX, entries);

	for (int i = 0; i < got; i++)
		if (entries[i] & (UHMM_PAGEMAP_PRESENT | UHMM_PAGEMAP_SWAPPED))
			return false;
	return got == (int)BATCH_PAGES_MAX;
}

/* Open the gate and tell the agent what to move. */
static bool agent_move(struct space *space, struct batch *batch)
{
	struct uhmm_ring_box *box = batch_box(space, batch);
	uint32_t n_runs = 0;

	if (uffd_register(space->uffd, chunk_addr(space, batch), batch->n_pages * space->page_size,
			  UFFDIO_REGISTER_MODE_MISSING) != UFFD_OK)
		return false;
	for (uint32_t i = 0; i < batch->n_pages;) {
		uint32_t n = batch_run(space, batch, i, joins_move);

		box->runs[n_runs++] = (struct uhmm_run){
			.home_addr = space_addr(space, batch_page(batch, i)->pgidx),
			.staging_page = i,
			.n_pages = n,
		};
		i += n;
	}
	memset(batch->moved, 0, sizeof(batch->moved));
	batch->opened_ns = clock_now_ns();
	__atomic_fetch_add(&space->leaving_pages, batch->n_pages, __ATOMIC_RELAXED);
	batch_set_state(space, batch, BATCH_MOVING);
	agent_command(space, batch, UHMM_OP_MOVE, n_runs);
	return true;
}

/* The beacon leaves before anything else, and alone, so that whoever reads a fork event knows
 * whether it was out. */
static void evict_beacon(struct space *space, struct batch *batch)
{
	uint32_t here = UHMM_BEACON_HERE;
	uint64_t addr = space->layout.beacon_addr;

	if (!ground_register(space, addr, addr + space->page_size))
		return;
	/* A store makes the page this process's own again if an earlier fork shared it. */
	(void)!pwrite(space->mem_fd, &here, sizeof(here), (off_t)addr);
	batch->n_pages = 1;
	batch->beacon = true;
	batch_page(batch, 0)->pgidx = space_pgidx(space, addr);
	batch_page(batch, 0)->slot = 0;
	if (!agent_move(space, batch))
		batch->n_pages = 0;
}

static uint32_t evict_pick(struct space *space, struct batch *batch, uint32_t max)
{
	struct pick_request request = { .max = max, .any = true };
	uint32_t n;

	if (!space->current || space->current->type == MAIL_RESTORE)
		return pick_by_clock(space, batch, max);
	request.from = space->current_at;
	request.end = space->current_end;
	n = pick_pages(space, batch, &request, &space->current_at);
	return n;
}

/* IDLE -> MOVING. Returns the number of pages commanded. */
static uint32_t evict_start(struct space *space, struct batch *batch, uint32_t want)
{
	uint32_t n, with_slot;

	batch->n_pages = 0;
	batch->beacon = false;
	if (!staging_is_empty(space, batch)) {
		memset(batch->moved, 0, sizeof(batch->moved));
		batch_free_staging(space, batch);
		return 0;
	}
	if (pick_refresh_maps(space, PICK_PAUSE_NS) < 0 || pick_collect_pinned(space) < 0)
		return 0;
	if (!space->beacon_out) {
		evict_beacon(space, batch);
		return batch->n_pages;
	}
	if (!evict_has_room(space) || evict_open_store(space) < 0)
		return 0;
	n = evict_pick(space, batch, want);
	with_slot = n ? batch_take_slots(space, batch, n) : 0;
	batch->n_pages = with_slot;
	if (with_slot && (!pagemap_mark_leaving(space, batch) || !agent_move(space, batch))) {
		for (uint32_t i = 0; i < batch->n_pages; i++) {
			struct page_rec rec;

			if (batch_record(space, batch, i, PAGE_LEAVING, &rec))
				(void)pagemap_set(&space->map, batch_page(batch, i)->pgidx,
						  (struct page_rec){ 0 });
		}
		batch_release_slots(space, batch);
		batch->n_pages = 0;
	}
	return batch->n_pages;
}

/* ---- closing the gate ------------------------------------------------------------------- */

/* What is in staging is what moved: the kernel's word. False: it does not say, for the moment. */
static bool batch_ask_kernel(struct space *space, struct batch *batch)
{
	uint64_t entries[BATCH_PAGES_MAX];
	int got = fault_read_pagemap(space, space_pgidx(space, chunk_addr(space, batch)),
				     batch->n_pages, entries);

	if (got != (int)batch->n_pages) {
		space->gone |= uffd_alive(space->uffd) == UFFD_GONE;
		return space->gone;
	}
	for (int i = 0; i < got; i++)
		if (entries[i] & (UHMM_PAGEMAP_PRESENT | UHMM_PAGEMAP_SWAPPED))
			batch->moved[i / 64] |= 1ull << (i % 64);
	return true;
}

static bool joins_mark(const struct space *space, const struct batch *batch, uint32_t i)
{
	return joins_move(space, batch, i) && batch_is_staged(space, batch, i);
}

static void record_set_unmarked(struct space *space, uint64_t pgidx)
{
	struct page_rec rec = pagemap_get(&space->map, pgidx);

	rec.v |= PAGE_REC_UNMARKED;
	(void)pagemap_set(&space->map, pgidx, rec);
	space->n_unmarked++;
}

/* Each hole that is ours carries a marker from now on, before anything is read. */
static void batch_mark_holes(struct space *space, struct batch *batch)
{
	for (uint32_t i = 0; i < batch->n_pages;) {
		uint32_t n = 1;

		if (batch_is_staged(space, batch, i)) {
			uint64_t pgidx = batch_page(batch, i)->pgidx;

			n = batch_run(space, batch, i, joins_mark);
			if (uffd_mark(space->uffd, space_addr(space, pgidx),
				      n * space->page_size) != UFFD_OK)
				for (uint32_t k = 0; k < n; k++)
					record_set_unmarked(space, pgidx + k);
		}
		i += n;
	}
}

/* Is page i of the batch away, by this batch's doing? */
static bool batch_is_away(const struct space *space, const struct batch *batch, uint32_t i)
{
	struct page_rec rec;

	return batch_has_moved(batch, i) && (batch_record(space, batch, i, PAGE_STAGED, &rec) ||
					     batch_record(space, batch, i, PAGE_STORED, &rec));
}

/* A thread that was born since the pick, or a mutex that was taken: such pages come home before
 * the thread can end, for an ending thread's faults are not delivered. An event that is unread
 * stops that too: then the batch owes them. */
static void batch_return_pinned(struct space *space, struct batch *batch)
{
	uint32_t pages;

	batch->owes_pinned = false;
	if (pick_collect_pinned(space) < 0)
		return;
	for (uint32_t i = 0; i < batch->n_pages; i++) {
		uint64_t pgidx = batch_page(batch, i)->pgidx;

		if (batch_is_away(space, batch, i) && pinned_has(&space->pinned, pgidx) &&
		    fault_fetch_page(space, pgidx, 1, true, &pages) != FILL_DONE)
			batch->owes_pinned = true;
	}
}

/* Is nothing of the chunk registered any more? A chunk that the program mapped something else
 * over is refused as a whole; then page by page, where a page that has nothing to unregister
 * holds no gate open. */
static bool gate_unregister(const struct space *space, const struct batch *batch)
{
	uint64_t addr = chunk_addr(space, batch), end = addr + batch->n_pages * space->page_size;
	enum uffd_result result = uffd_unregister(space->uffd, addr, end - addr);

	if (result != UFFD_NO_VMA)
		return result == UFFD_OK || result == UFFD_GONE;
	for (; addr < end; addr += space->page_size) {
		result = uffd_unregister(space->uffd, addr, space->page_size);
		if (result != UFFD_OK && result != UFFD_NO_VMA)
			return result == UFFD_GONE;
	}
	return true;
}

/* For a request: what stayed was not taken out after all. If the gate was closed before the agent
 * had finished, it may leave yet, and is picked again. */
static void batch_count_stayed(struct space *space, const struct batch *batch, bool answered)
{
	uint64_t stayed = 0, first = UINT64_MAX;

	if (!space->current || space->current->home)
		return;
	for (uint32_t i = 0; i < batch->n_pages; i++) {
		uint64_t addr = space_addr(space, batch_page(batch, i)->pgidx);

		if (batch_has_moved(batch, i) || addr < space->current_start ||
		    addr >= space->current_end)
			continue;
		stayed++;
		if (addr < first)
			first = addr;
	}
	if (UINT64_MAX - space->current_left >= stayed)
		space->current_left += stayed;
	if (!answered && first < space->current_at)
		space->current_at = first;
}

/* False: it is open still, or nobody knows what went through: nothing may be read. */
static bool gate_close(struct space *space, struct batch *batch)
{
	bool answered = batch_answered(space, batch);
	struct page_rec rec;

	if (!gate_unregister(space, batch) || !batch_ask_kernel(space, batch))
		return false;
	/* For a successor only when all records and markers say so, too. */
	batch->state = BATCH_MOVED;
	if (batch->beacon) {
		space->beacon_out = batch_has_moved(batch, 0);
		space->unit->beacon_out = space->beacon_out;
		batch_publish_state(space, batch);
		return true;
	}
	for (uint32_t i = 0; i < batch->n_pages; i++) {
		if (!batch_record(space, batch, i, PAGE_LEAVING, &rec))
			continue;
		rec = batch_has_moved(batch, i) ? page_rec_move(rec, PAGE_STAGED)
						: page_rec_move(rec, PAGE_RESIDENT);
		(void)pagemap_set(&space->map, batch_page(batch, i)->pgidx, rec);
	}
	batch_count_stayed(space, batch, answered);
	batch_mark_holes(space, batch);
	batch_publish_state(space, batch);
	batch_return_pinned(space, batch);
	return true;
}

static void agent_wait(struct space *space, int64_t ns)
{
	struct pollfd pollfd = { .fd = space->agent_efd, .events = POLLIN };
	struct timespec timeout = { .tv_nsec = ns };
	uint64_t count;

	if (ppoll(&pollfd, 1, &timeout, NULL) > 0)
		(void)!read(space->agent_efd, &count, sizeof(count));
}

bool evict_close_gates(struct space *space)
{
	bool closed = true;

	for (uint32_t i = 0; i < space->n_batches; i++) {
		struct batch *batch = &space->batches[i];

		if (batch->state != BATCH_MOVING)
			continue;
		if (!batch_answered(space, batch) && space_has_agent(space))
			agent_wait(space, GATE_GRACE_NS);
		closed &= gate_close(space, batch);
	}
	if (!closed)
		agent_wait(space, GATE_RETRY_NS);
	return closed;
}

/* ---- STORE ------------------------------------------------------------------------------ */

static bool joins_store(const struct space *space, const struct batch *batch, uint32_t i)
{
	return batch_is_staged(space, batch, i) &&
	       batch_page(batch, i)->slot == batch_page(batch, i - 1)->slot + 1;
}

static void pagemap_store(struct space *space, struct batch *batch, uint32_t i)
{
	struct page_rec rec;

	if (!batch_record(space, batch, i, PAGE_STAGED, &rec))
		return;
	(void)pagemap_set(&space->map, batch_page(batch, i)->pgidx,
			  page_rec_move(rec, PAGE_STORED));
	if (space->current && !space->current->home &&
	    batch_page(batch, i)->pgidx >= space_pgidx(space, space->current_start) &&
	    batch_page(batch, i)->pgidx < space_pgidx(space, space->current_end))
		space->current->pages++;
	stats_add(&space->stats.evicted, 1);
	stats_add(&space->group->stats.evicted, 1);
	stats_add(&space->store->tier->n_in, 1);
}

/* The daemon writes one page itself; if the tier refuses, the page goes home. */
static void store_by_daemon(struct space *space, struct batch *batch, uint32_t i)
{
	uint64_t from = chunk_addr(space, batch) + (uint64_t)i * space->page_size;
	const struct store *store = space->store;
	uint32_t pages;

	if (pread(space->mem_fd, space->bounce, space->page_size, (off_t)from) ==
	    (ssize_t)space->page_size) {
		if (store->tier->ops->write(store->backend_store, batch_page(batch, i)->slot, 1,
					    space->bounce) == 0) {
			pagemap_store(space, batch, i);
			return;
		}
		stats_add(&store->tier->n_errors, 1);
	}
	(void)fault_fetch_page(space, batch_page(batch, i)->pgidx, 1, false, &pages);
}

static void evict_settle_batch(struct space *space, struct batch *batch)
{
	if (batch->beacon || (batch->state != BATCH_MOVED && batch->state != BATCH_STORING))
		return;
	for (uint32_t i = 0; i < batch->n_pages && !space->gone; i++)
		if (batch_is_staged(space, batch, i))
			store_by_daemon(space, batch, i);
}

/* MOVED -> STORING: slots need not be contiguous for a MOVE, but each run of them is a write. */
static void store_pages(struct space *space, struct batch *batch)
{
	struct uhmm_ring_box *box = batch_box(space, batch);
	uint32_t n_runs = 0;

	if (batch->owes_pinned)
		return; /* the next step comes here again */
	for (uint32_t i = 0; i < batch->n_pages;) {
		uint32_t n = 1;

		if (!batch->beacon && batch_is_staged(space, batch, i)) {
			n = batch_run(space, batch, i, joins_store);
			batch->runs[n_runs].first = (uint16_t)i;
			batch->runs[n_runs].n = (uint16_t)n;
			box->runs[n_runs++] = (struct uhmm_run){
				.store_off = batch_page(batch, i)->slot * space->page_size,
				.staging_page = i,
				.n_pages = n,
			};
		}
		i += n;
	}
	batch->n_runs = n_runs;
	if (n_runs == 0 || !(space->store->tier->ops->flags & UHMM_BACKEND_NATIVE_CHARGE)) {
		evict_settle_batch(space, batch);
		batch_release_slots(space, batch);
		batch_free_staging(space, batch);
		return;
	}
	batch_set_state(space, batch, BATCH_STORING);
	agent_command(space, batch, UHMM_OP_STORE, n_runs);
}

/* STORING -> FREEING: what the agent wrote counts; what it could not, the daemon writes. */
static void batch_stored(struct space *space, struct batch *batch)
{
	const struct uhmm_ring_box *box = batch_box(space, batch);
	bool all = __atomic_load_n(&box->status, __ATOMIC_RELAXED) == 0;

	for (uint32_t r = 0; r < batch->n_runs; r++) {
		uint32_t first = batch->runs[r].first;
		bool ok = all && __atomic_load_n(&box->runs[r].result, __ATOMIC_RELAXED) == 0;

		for (uint32_t i = first; i < first + batch->runs[r].n; i++) {
			if (ok)
				pagemap_store(space, batch, i);
			else if (batch_is_staged(space, batch, i))
				store_by_daemon(space, batch, i);
		}
	}
	batch_release_slots(space, batch);
	batch_free_staging(space, batch);
}

static void batch_freed(struct space *space, struct batch *batch)
{
	int64_t n = 0;

	for (uint32_t i = 0; i < batch->n_pages; i++)
		n += batch_has_moved(batch, i);
	group_add_est(space->group, -n);
	__atomic_fetch_sub(&space->leaving_pages, batch->n_pages, __ATOMIC_RELAXED);
	batch->n_pages = 0;
	batch_set_state(space, batch, BATCH_IDLE);
}

bool evict_has_staged(const struct space *space)
{
	for (uint32_t i = 0; i < space->n_batches; i++)
		if (!space->batches[i].beacon && (space->batches[i].state == BATCH_MOVED ||
						  space->batches[i].state == BATCH_STORING))
			return true;
	return false;
}

void evict_settle_batches(struct space *space)
{
	for (uint32_t i = 0; i < space->n_batches; i++)
		evict_settle_batch(space, &space->batches[i]);
}

void evict_abandon(struct space *space)
{
	if (!evict_close_gates(space))
		return; /* the agent may be there still: the next step tries again */
	evict_settle_batches(space);
	for (uint32_t i = 0; i < space->n_batches; i++) {
		struct batch *batch = &space->batches[i];

		if (batch->state == BATCH_MOVED || batch->state == BATCH_STORING)
			batch_release_slots(space, batch);
		__atomic_store_n(&space->leaving_pages, 0, __ATOMIC_RELAXED);
		batch->n_pages = 0;
		batch_set_state(space, batch, BATCH_IDLE);
	}
}

void evict_end(struct space *space)
{
	for (uint32_t i = 0; i < space->n_batches; i++) {
		struct batch *batch = &space->batches[i];

		if (batch->state == BATCH_MOVING || batch->state == BATCH_MOVED ||
		    batch->state == BATCH_STORING)
			batch_release_slots(space, batch);
		batch->n_pages = 0;
		batch_set_state(space, batch, BATCH_IDLE);
	}
}

/* ---- steps ------------------------------------------------------------------------------ */

static void batch_step(struct space *space, struct batch *batch)
{
	bool answered = batch_answered(space, batch);

	if (batch->owes_pinned && !space->n_events)
		batch_return_pinned(space, batch);
	switch (batch->state) {
	case BATCH_IDLE:
		break;
	case BATCH_MOVING:
		if (!answered && clock_now_ns() - batch->opened_ns <= GATE_MAX_NS)
			break;
		if (gate_close(space, batch) && answered)
			store_pages(space, batch);
		break;
	case BATCH_MOVED:
		if (answered)
			store_pages(space, batch);
		break;
	case BATCH_STORING:
		if (answered)
			batch_stored(space, batch);
		break;
	case BATCH_FREEING:
		if (answered)
			batch_freed(space, batch);
		break;
	}
}

/* How many pages to take out now. */
static uint32_t evict_wanted(const struct space *space)
{
	uint64_t want = __atomic_load_n(&space->want_pages, __ATOMIC_RELAXED);

	if (space->current)
		want = space->current->home ? 0 : space->current_left;
	else if (space_is_held(space))
		want = 0;
	if (space->given_up)
		want = 0;
	if (space->beacon_wanted && !space->beacon_out && want == 0)
		want = 1; /* it leaves first, and alone */
	return want > BATCH_PAGES_MAX ? BATCH_PAGES_MAX : (uint32_t)want;
}

static void evict_took(struct space *space, uint32_t n)
{
	if (space->current) {
		space->current_left -= n;
		return;
	}
	uint64_t want = __atomic_load_n(&space->want_pages, __ATOMIC_RELAXED), less;

	do {
		less = want > n ? want - n : 0;
	} while (!__atomic_compare_exchange_n(&space->want_pages, &want, less, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/*
 * There is nothing registered here any more, and no event that says why. An munmap has one, so it
 * is what shmat has replaced; that needs no bytes. But where private memory lies, of which a page
 * of this space's own was just taken, it was taken from memory that was not registered, and reads
 * zero now.
 */
static void late_forget(struct space *space, uint64_t pgidx, struct page_rec rec)
{
	struct mapping m;

	if (space->store && page_rec_store(rec) == space->store->unit->index &&
	    maps_query(space->maps_fd, space_addr(space, pgidx), &m) == 0 &&
	    mapping_is_private_anonymous(&m))
		fault_count_lost(space, pgidx, "it was taken from what is not registered");
	(void)pagemap_set(&space->map, pgidx, (struct page_rec){ 0 });
}

/* Records whose hole could not be marked because of an unread event: try again. */
static void mark_late(struct space *space)
{
	struct page_rec rec;
	uint32_t left = 0;

	if (!space->n_unmarked || space->n_events || space->unmarked_inherited)
		return;
	for (uint64_t i = 0; (i = pagemap_next(&space->map, i, UINT64_MAX, &rec)) < UINT64_MAX; i++) {
		if (!(rec.v & PAGE_REC_UNMARKED))
			continue;
		switch (uffd_mark(space->uffd, space_addr(space, i), space->page_size)) {
		case UFFD_OK:
			rec.v &= ~PAGE_REC_UNMARKED;
			(void)pagemap_set(&space->map, i, rec);
			break;
		case UFFD_NO_VMA:
			/* See uffd_fill: gone only if no event is unread. */
			if (uffd_settled(space->uffd) == UFFD_OK)
				late_forget(space, i, rec);
			else
				left++;
			break;
		case UFFD_AGAIN:
		case UFFD_EXISTS:
		case UFFD_GONE:
		case UFFD_NO_MEM:
		case UFFD_ERROR:
			left++;
			break;
		}
	}
	space->n_unmarked = left;
}

void evict_step(struct space *space)
{
	bool gate_open = false;

	mark_late(space);
	if (!space_has_agent(space)) {
		if (evict_is_busy(space))
			evict_abandon(space);
		return;
	}
	for (uint32_t i = 0; i < space->n_batches; i++) {
		batch_step(space, &space->batches[i]);
		gate_open |= space->batches[i].state == BATCH_MOVING;
	}
	for (uint32_t i = 0; i < space->n_batches && !gate_open && !space->gone; i++) {
		struct batch *batch = &space->batches[i];
		uint32_t want = evict_wanted(space), n;
		bool beacon;

		if (batch->state != BATCH_IDLE || want == 0 || space->n_events)
			continue;
		if (space->pick_failed_ns &&
		    clock_now_ns() - space->pick_failed_ns < PICK_PAUSE_NS && !space->current)
			break;
		n = evict_start(space, batch, want);
		if (batch->state == BATCH_FREEING)
			continue;
		beacon = batch->beacon;
		space->pick_failed_ns = n ? 0 : clock_now_ns();
		if (n == 0) {
			home_evict_exhausted(space);
			break;
		}
		if (!beacon)
			evict_took(space, n);
		gate_open = true;
	}
}

void evict_batches_moved(struct space *space, uint64_t from, uint64_t to, uint64_t n)
{
	for (uint32_t b = 0; b < space->n_batches; b++) {
		struct batch *batch = &space->batches[b];

		for (uint32_t i = 0; i < batch->n_pages; i++) {
			struct batch_page *page = batch_page(batch, i);

			if (page->pgidx >= from && page->pgidx < from + n)
				page->pgidx += to - from;
		}
	}
}

uint64_t evict_staging_addr(const struct space *space, uint64_t pgidx, struct page_rec rec)
{
	for (uint32_t b = 0; b < space->n_batches; b++) {
		const struct batch *batch = &space->batches[b];

		/* Only these have bytes that count: what is being freed may be an older copy. */
		if (batch->beacon || (batch->state != BATCH_MOVED && batch->state != BATCH_STORING))
			continue;
		for (uint32_t i = 0; i < batch->n_pages; i++)
			if (batch_page(batch, i)->pgidx == pgidx &&
			    batch_page(batch, i)->slot == page_rec_slot(rec) &&
			    batch_has_moved(batch, i))
				return chunk_addr(space, batch) + (uint64_t)i * space->page_size;
	}
	return 0;
}

bool evict_is_staging(const struct space *space, uint64_t addr)
{
	uint64_t start = space->layout.staging_addr;

	return addr >= start && addr < start + space_staging_bytes(space);
}

bool evict_gate_is_open(const struct space *space)
{
	for (uint32_t i = 0; i < space->n_batches; i++)
		if (space->batches[i].state == BATCH_MOVING)
			return true;
	return false;
}

bool evict_is_busy(const struct space *space)
{
	for (uint32_t i = 0; i < space->n_batches; i++)
		if (space->batches[i].state != BATCH_IDLE)
			return true;
	return false;
}

/* Is there a batch that could start, or one that has not been out for ever? A program whose
 * agent is stopped must not wait for it. */
static bool evict_makes_progress(const struct space *space)
{
	for (uint32_t i = 0; i < space->n_batches; i++)
		if (space->batches[i].state == BATCH_IDLE ||
		    clock_now_ns() - space->batches[i].opened_ns < AGENT_LATE_NS)
			return true;
	return false;
}

bool evict_is_useful(const struct space *space)
{
	return evict_makes_progress(space) && space_has_agent(space) && !space_is_held(space) &&
	       !space->given_up &&
	       (evict_is_busy(space) || space->pick_failed_ns == 0 ||
		clock_now_ns() - space->pick_failed_ns > PICK_PAUSE_NS);
}
