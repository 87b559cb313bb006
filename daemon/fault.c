/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fault journey. A thread of the program touched a page that is not there; its message is
 * read here, its record looked up, the bytes fetched from where the record says they are, and
 * filled by one ioctl that wakes the thread.
 *
 * Runs on the space's worker. It allocates nothing, logs nothing unless bytes are lost, and
 * waits for nobody but the tier.
 *
 * The page table is the judge. Before bytes are served, the program's pagemap must show our
 * marker on the hole (uffd_mark, after the MOVE): it travels with mremap and vanishes with
 * whatever the program does to give the page up, also with what raises no event (guard
 * regions, WIPEONFORK). A record without its marker is stale: the page is zero. A marker
 * without a record is a loss: the page is poisoned, never zero. An event that is unread at the
 * moment of the fill makes the fill itself fail with EAGAIN, so what was judged still holds.
 */
#define _GNU_SOURCE
#include "fault.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent.h"
#include "event.h"
#include "event_who.h"
#include "evict.h"
#include "guard.h"
#include "identify.h"
#include "log.h"
#include "object.h"
#include "tier.h"
#include "uffd.h"

#define FAULT_WINDOW_MAX 64u

/* ---- judging -------------------------------------------------------------------------- */

int fault_read_pagemap(const struct space *space, uint64_t pgidx, uint32_t n, uint64_t *ret)
{
	ssize_t got = pread(space->pagemap_fd, ret, n * sizeof(*ret),
			    (off_t)(pgidx * sizeof(*ret)));

	if (got < 0)
		return -errno;
	return (int)((size_t)got / sizeof(*ret));
}

static bool entry_is_mapped(uint64_t entry)
{
	return entry & UHMM_PAGEMAP_PRESENT ||
	       (entry & UHMM_PAGEMAP_SWAPPED && !(entry & UHMM_PAGEMAP_UFFD_WP));
}

/* A hole that carries our marker. */
bool fault_is_marked_hole(uint64_t entry)
{
	return !(entry & UHMM_PAGEMAP_PRESENT) && entry & UHMM_PAGEMAP_UFFD_WP;
}

static bool record_is_backed(struct page_rec rec, uint64_t entry)
{
	if (entry & UHMM_PAGEMAP_PRESENT)
		return false;
	return fault_is_marked_hole(entry) ||
	       (rec.v & PAGE_REC_UNMARKED && !entry_is_mapped(entry));
}

static int record_drop(struct space *space, uint64_t pgidx)
{
	return pagemap_set(&space->map, pgidx, (struct page_rec){ 0 });
}

void fault_count_lost(struct space *space, uint64_t pgidx, const char *why)
{
	stats_add(&space->stats.lost, 1);
	stats_add(&space->group->stats.lost, 1);
	log_err("pid %d: page at 0x%llx is lost: %s", space->pid,
		(unsigned long long)space_addr(space, pgidx), why);
}

enum fill_result fault_poison(struct space *space, uint64_t pgidx, const char *why)
{
	uint64_t addr = space_addr(space, pgidx);
	struct page_rec rec = pagemap_get(&space->map, pgidx);
	bool known = page_rec_state(rec) == PAGE_POISONED, recorded = known;

	if (!known)
		recorded = pagemap_set(&space->map, pgidx, page_rec_move(rec, PAGE_POISONED)) == 0;
	if (!known && !space->given_up)
		fault_count_lost(space, pgidx, why);
	/* A marked hole takes no poison: EEXIST. */
	(void)uffd_unmark(space->uffd, addr, space->page_size);
	if (uffd_poison(space->uffd, addr, space->page_size) == UFFD_AGAIN) {
		/* Neither marker nor record: now any hole may be this one. */
		space_distrust(space, !recorded);
		return FILL_RETRY;
	}
	(void)uffd_wake(space->uffd, addr, space->page_size);
	return FILL_DONE;
}

enum fill_result fault_result_of(struct space *space, enum uffd_result result, uint64_t addr)
{
	switch (result) {
	case UFFD_OK:
		return FILL_DONE;
	case UFFD_AGAIN:
		return FILL_RETRY;
	case UFFD_GONE:
		space->gone = true;
		return FILL_GONE;
	case UFFD_NO_VMA:
		/* See uffd_fill: gone only if no event is unread. */
		if (uffd_settled(space->uffd) == UFFD_AGAIN)
			return FILL_RETRY;
		(void)uffd_wake(space->uffd, addr, space->page_size);
		return FILL_DONE;
	case UFFD_EXISTS:
	case UFFD_NO_MEM:
	case UFFD_ERROR:
		break;
	}
	return FILL_LATER;
}

enum fill_result fault_unprotect(struct space *space, uint64_t addr)
{
	return fault_result_of(space, uffd_unprotect(space->uffd, addr, space->page_size), addr);
}

/* ---- filling ---------------------------------------------------------------------------- */

static void note_recent(struct recent *recent, uint64_t pgidx)
{
	recent->pgidx[recent->next++ % SPACE_RECENT] = pgidx;
	recent->ns = clock_now_ns();
}

/* The pages [pgidx, pgidx + n) are home. */
static void fill_finish(struct space *space, uint64_t pgidx, uint32_t n, bool referenced)
{
	uint32_t returned = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct page_rec rec = pagemap_get(&space->map, pgidx + i);
		struct page_rec home = { 0 };

		returned += page_state_is_away(page_rec_state(rec));
		if (referenced && i == 0)
			home.v |= PAGE_REC_REFERENCED;
		(void)pagemap_set(&space->map, pgidx + i, home);
	}
	if (referenced)
		note_recent(&space->recent, pgidx);
	stats_add(&space->stats.returned, returned);
	stats_add(&space->group->stats.returned, returned);
	group_add_est(space->group, n);
}

/* One COPY, and what its answer means. */
static enum fill_result uffd_fill(struct space *space, uint64_t pgidx, const void *src, uint32_t n,
				  bool referenced, uint32_t *ret_pages)
{
	uint64_t done = 0, addr = space_addr(space, pgidx);
	enum uffd_result result;

	result = uffd_copy(space->uffd, addr, src, n * space->page_size, &done);
	if (done) {
		*ret_pages = (uint32_t)(done >> space->page_shift);
		fill_finish(space, pgidx, *ret_pages, referenced);
		return FILL_DONE;
	}
	*ret_pages = 1;
	switch (result) {
	case UFFD_NO_VMA:
		/* A run over two mappings that touch is refused whole. */
		if (n > 1)
			return uffd_fill(space, pgidx, src, 1, referenced, ret_pages);
		/* The kernel looks for the mapping before it looks for events: only a mapping that
		 * went without an unread event has really gone. */
		if (uffd_settled(space->uffd) == UFFD_AGAIN)
			return FILL_RETRY;
		(void)record_drop(space, pgidx);
		(void)uffd_wake(space->uffd, addr, space->page_size);
		return FILL_DONE;
	case UFFD_EXISTS: /* the page table has a page: it is newer than our record */
		(void)record_drop(space, pgidx);
		(void)uffd_wake(space->uffd, addr, space->page_size);
		return FILL_DONE;
	case UFFD_ERROR:
		return fault_poison(space, pgidx, "the kernel refused the fill");
	case UFFD_OK:
	case UFFD_AGAIN:
	case UFFD_GONE:
	case UFFD_NO_MEM:
		break;
	}
	return fault_result_of(space, result, addr);
}

/* How many records from pgidx on continue the first: same store, next slot, marker there. */
static uint32_t run_length(const struct space *space, uint64_t pgidx, uint32_t n,
			   struct page_rec first, const uint64_t *entries)
{
	uint32_t i;

	for (i = 1; i < n; i++) {
		struct page_rec rec = pagemap_get(&space->map, pgidx + i);

		if (page_rec_state(rec) != PAGE_STORED ||
		    page_rec_store(rec) != page_rec_store(first) ||
		    page_rec_slot(rec) != page_rec_slot(first) + i ||
		    !record_is_backed(rec, entries[i]))
			break;
	}
	return i;
}

static enum fill_result fetch_stored(struct space *space, uint64_t pgidx, uint32_t n,
				     struct page_rec rec, bool referenced, uint32_t *ret_pages)
{
	struct store *store;
	const char *src;
	int err;

	pthread_mutex_lock(&space->family->lock);
	store = family_store(space->family, page_rec_store(rec));
	pthread_mutex_unlock(&space->family->lock);
	if (store->map) {
		src = (const char *)store->map + page_rec_slot(rec) * space->page_size;
	} else {
		err = store->tier->ops->read(store->backend_store, page_rec_slot(rec), n,
					     space->bounce);
		if (err < 0) {
			stats_add(&store->tier->n_errors, 1);
			*ret_pages = 1;
			return fault_poison(space, pgidx, strerror(-err));
		}
		src = space->bounce;
	}
	stats_add(&store->tier->n_out, n);
	return uffd_fill(space, pgidx, src, n, referenced, ret_pages);
}

static enum fill_result fetch_staged(struct space *space, uint64_t pgidx, struct page_rec rec,
				     uint32_t *ret_pages)
{
	uint64_t staging = evict_staging_addr(space, pgidx, rec);
	enum fill_result result;

	*ret_pages = 1;
	if (!staging || pread(space->mem_fd, space->bounce, space->page_size, (off_t)staging) !=
				(ssize_t)space->page_size) {
		if (uffd_alive(space->uffd) == UFFD_GONE) {
			space->gone = true;
			return FILL_GONE;
		}
		return fault_poison(space, pgidx, "staging cannot be read");
	}
	result = uffd_fill(space, pgidx, space->bounce, 1, true, ret_pages);
	if (result == FILL_DONE) {
		stats_add(&space->stats.second_chance, 1);
		stats_add(&space->group->stats.second_chance, 1);
	}
	return result;
}

static bool is_marked_hole(const struct space *space, uint64_t pgidx)
{
	uint64_t entry;

	return fault_read_pagemap(space, pgidx, 1, &entry) == 1 && fault_is_marked_hole(entry);
}

/*
 * A page whose bytes nobody has: zero, as the kernel would give. The zero page, which a writer
 * copies at once: a COPY would also take the place of a guard, which may be there by now, for the
 * message of a thread that got on long ago may have waited until here. Only a hole that still
 * carries a marker (MADV_FREE leaves it) takes nothing else.
 */
static enum fill_result fetch_zero(struct space *space, uint64_t pgidx, bool write,
				   uint32_t *ret_pages)
{
	uint64_t done = 0, addr = space_addr(space, pgidx);
	enum uffd_result result;

	*ret_pages = 1;
	result = uffd_zeropage(space->uffd, addr, space->page_size, &done);
	if (result == UFFD_EXISTS && is_marked_hole(space, pgidx))
		return uffd_fill(space, pgidx, space->zero_page, 1, false, ret_pages);
	if (result == UFFD_OK && write)
		group_add_est(space->group, 1);
	if (result == UFFD_OK || result == UFFD_EXISTS) {
		(void)record_drop(space, pgidx);
		if (result == UFFD_EXISTS)
			(void)uffd_wake(space->uffd, addr, space->page_size);
		return FILL_DONE;
	}
	if (result == UFFD_AGAIN)
		return FILL_RETRY;
	if (result == UFFD_NO_MEM)
		return FILL_LATER;
	if (result == UFFD_GONE) {
		space->gone = true;
		return FILL_GONE;
	}
	(void)uffd_wake(space->uffd, addr, space->page_size);
	return FILL_DONE;
}

enum fill_result fault_fetch_page(struct space *space, uint64_t pgidx, uint32_t n,
				  bool referenced, uint32_t *ret_pages)
{
	uint64_t entries[FAULT_WINDOW_MAX];
	struct page_rec rec = pagemap_get(&space->map, pgidx);
	int got;

	*ret_pages = 1;
	if (n > FAULT_WINDOW_MAX)
		n = FAULT_WINDOW_MAX;
	got = fault_read_pagemap(space, pgidx, n, entries);
	if (got <= 0) {
		space->gone = uffd_alive(space->uffd) == UFFD_GONE;
		return space->gone ? FILL_GONE : FILL_LATER;
	}
	if (!record_is_backed(rec, entries[0])) {
		/* Stale: the program gave the page up, or has another in its place. */
		if (uffd_settled(space->uffd) == UFFD_AGAIN)
			return FILL_RETRY;
		/* Where a shared leaf cannot be copied it stays, and is found stale again. */
		(void)record_drop(space, pgidx);
		return FILL_STALE;
	}
	if (page_rec_state(rec) == PAGE_STAGED)
		return fetch_staged(space, pgidx, rec, ret_pages);
	n = run_length(space, pgidx, (uint32_t)got, rec, entries);
	return fetch_stored(space, pgidx, n, rec, referenced, ret_pages);
}

/* ---- one fault -------------------------------------------------------------------------- */

/* How many pages beyond the faulting one to bring along: sequential faults of a thread widen
 * its window, any other closes it. */
static uint32_t stream_window(struct space *space, uint32_t tid, uint64_t pgidx)
{
	struct stream *stream = NULL;

	for (uint32_t i = 0; i < SPACE_STREAMS; i++)
		if (space->streams[i].tid == tid)
			stream = &space->streams[i];
	if (!stream) {
		stream = &space->streams[space->stream_next++ % SPACE_STREAMS];
		*stream = (struct stream){ .tid = tid };
	}
	if (stream->next == pgidx)
		stream->window = stream->window ? stream->window * 2 : 4;
	else
		stream->window = 0;
	if (stream->window > FAULT_WINDOW_MAX)
		stream->window = FAULT_WINDOW_MAX;
	stream->next = pgidx + 1;
	return stream->window;
}

/* After the faulting page: its neighbours, while the program goes on. */
static void fault_around(struct space *space, const struct fault *fault, uint32_t window)
{
	uint64_t at = space_pgidx(space, fault->addr) + 1, end = at + window;
	struct stream *stream = NULL;

	while (at < end && !space->gone) {
		struct page_rec rec = pagemap_get(&space->map, at);
		uint32_t pages = 1;

		if (page_rec_state(rec) != PAGE_STORED || group_over(space->group) > 0)
			break;
		if (fault_fetch_page(space, at, (uint32_t)(end - at), false, &pages) != FILL_DONE)
			break;
		at += pages;
	}
	for (uint32_t i = 0; i < SPACE_STREAMS; i++)
		if (space->streams[i].tid == fault->tid)
			stream = &space->streams[i];
	if (stream)
		stream->next = at;
}

/* A child that looks for its beacon, or a thread of a space whose beacon is out. */
static enum fill_result fault_beacon(struct space *space)
{
	struct uhmm_beacon beacon = { .word = UHMM_BEACON_TOKEN };
	uint32_t pages;

	if (agent_is_sandboxed(space))
		beacon.flags |= UHMM_RING_SANDBOXED;
	memcpy(beacon.token, space->token, UHMM_TOKEN_BYTES);
	memset(space->bounce, 0, space->page_size);
	memcpy(space->bounce, &beacon, sizeof(beacon));
	return uffd_fill(space, space_pgidx(space, space->layout.beacon_addr), space->bounce, 1,
			 false, &pages);
}

/* No record: a first touch, unless the hole carries a marker, which means that we lost the
 * record of an evicted page. */
static enum fill_result fault_first_touch(struct space *space, const struct fault *fault,
					  struct page_rec rec)
{
	uint64_t entry = 0, pgidx = space_pgidx(space, fault->addr);
	uint32_t pages;

	if (page_rec_state(rec) == PAGE_RESIDENT) {
		if (fault_read_pagemap(space, pgidx, 1, &entry) != 1) {
			space->gone = uffd_alive(space->uffd) == UFFD_GONE;
			return space->gone ? FILL_GONE : FILL_LATER;
		}
		if (fault_is_marked_hole(entry) ||
		    (space->distrust && !(entry & UHMM_PAGEMAP_PRESENT))) {
			if (uffd_settled(space->uffd) == UFFD_AGAIN)
				return FILL_RETRY;
			return fault_poison(space, pgidx, "its record is missing");
		}
	}
	return fetch_zero(space, pgidx, fault->write, &pages);
}

/* Must this fault wait until the evictor has made room? Bounded: nobody waits for ever for a
 * target. Never while nothing can be evicted. */
static bool fault_must_wait(struct space *space, struct fault *fault, bool first_touch)
{
	uint64_t bound_ns = first_touch ? 50000000u : 5000000u;
	int64_t slack = first_touch ? 0 : (int64_t)(space->n_batches * BATCH_PAGES_MAX);

	if (group_over(space->group) <= slack || !evict_is_useful(space))
		return false;
	if (clock_now_ns() - fault->read_ns > bound_ns)
		return false;
	fault->paced = true;
	return true;
}

static void fault_count(struct space *space, const struct fault *fault, bool first_touch)
{
	if (first_touch) {
		stats_add(&space->stats.first_touch, 1);
		stats_add(&space->group->stats.first_touch, 1);
		return;
	}
	uint64_t ns = clock_now_ns() - fault->read_ns;

	stats_add(&space->stats.faults, 1);
	stats_add(&space->group->stats.faults, 1);
	histogram_add(&space->stats.fault_ns, ns);
	histogram_add(&space->group->stats.fault_ns, ns);
}

static enum fill_result fault_serve(struct space *space, struct fault *fault)
{
	uint64_t pgidx = space_pgidx(space, fault->addr);
	struct page_rec rec = pagemap_get(&space->map, pgidx);
	enum page_state state = page_rec_state(rec);
	enum fill_result result;
	bool first_touch = state == PAGE_RESIDENT || state == PAGE_REMOVED;
	uint32_t pages;

	if (space_addr(space, pgidx) == space->layout.beacon_addr)
		return fault_beacon(space);
	if (evict_is_staging(space, fault->addr)) {
		/* What is in staging counts as moved: never put anything there. */
		(void)uffd_wake(space->uffd, fault->addr, space->page_size);
		return FILL_DONE;
	}
	if (!__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) &&
	    !identify_by_fault(space, fault->tid))
		return FILL_LATER;
	if (space->unmarked_inherited)
		return FILL_LATER;
	if (space->has_others && object_fault(space, fault, &result))
		return result;
	/* A marker that was set late found the page present. */
	if (fault->protected && first_touch)
		return fault_unprotect(space, fault->addr);
	if (fault_must_wait(space, fault, first_touch))
		return FILL_LATER;
	switch (state) {
	case PAGE_RESIDENT:
	case PAGE_REMOVED:
		result = fault_first_touch(space, fault, rec);
		break;
	case PAGE_STAGED:
	case PAGE_STORED:
	case PAGE_COMING:
		result = fault_fetch_page(space, pgidx, 1, true, &pages);
		if (result == FILL_STALE) {
			result = fault_first_touch(space, fault, (struct page_rec){ 0 });
			first_touch = true;
		}
		break;
	case PAGE_POISONED:
		result = fault_poison(space, pgidx, "");
		break;
	case PAGE_LEAVING:
		/* A message that was read before the page came home and was picked again. Whoever
		 * still waits is woken when the MOVE is over, or touches it anew. */
		return FILL_LATER;
	case PAGE_STATE_MAX:
	default:
		log_err("pid %d: fault in state %s", space->pid, page_state_name(state));
		__builtin_trap();
	}
	if (result == FILL_DONE) {
		fault_count(space, fault, first_touch);
		if (!first_touch && state == PAGE_STORED)
			fault_around(space, fault, stream_window(space, fault->tid, pgidx));
	}
	return result;
}

void fault_serve_all(struct space *space)
{
	uint32_t kept = 0;

	/* An event is waiting to be applied: nothing that we know is certain. */
	if (space->n_events)
		return;
	for (uint32_t i = 0; i < space->n_faults; i++) {
		enum fill_result result = FILL_RETRY;

		if (!space->gone)
			result = fault_serve(space, &space->faults[i]);
		if (result == FILL_RETRY || result == FILL_LATER)
			space->faults[kept++] = space->faults[i];
		if (result == FILL_RETRY) {
			/* Keep the rest as it is: all of it would meet the same answer. */
			memmove(&space->faults[kept], &space->faults[i + 1],
				(space->n_faults - i - 1) * sizeof(space->faults[0]));
			kept += space->n_faults - i - 1;
			break;
		}
	}
	space->n_faults = kept;
}

/* ---- reading ---------------------------------------------------------------------------- */

static void fault_queue(struct space *space, const struct uffd_msg *msg, uint64_t now_ns)
{
	struct fault *fault;

	if (space->n_faults == SPACE_FAULTS_MAX) {
		/* No room to remember it: the thread faults again. */
		(void)uffd_wake(space->uffd,
				msg->arg.pagefault.address & ~(space->page_size - 1),
				space->page_size);
		return;
	}
	fault = &space->faults[space->n_faults++];
	fault->addr = msg->arg.pagefault.address & ~(space->page_size - 1);
	fault->write = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
	fault->protected = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
	fault->tid = msg->arg.pagefault.feat.ptid;
	fault->read_ns = now_ns;
	fault->paced = false;
}

/* Where nothing is away a child needs nobody, see fork_note. */
static struct guard_note *guard_reading(const struct space *space, const struct uffd_msg *msgs,
					uint32_t room)
{
	if (!space->beacon_out || space->sock < 0)
		return NULL;
	return guard_begin(space->sock, space->log.arena->fd, event_log_offset(&space->log, msgs),
			   room);
}

/* What may be read for now, into the log: *ret_msgs. */
static uint32_t read_messages(struct space *space, struct uffd_msg **ret_msgs)
{
	struct guard_note *note;
	uint32_t n = 0, room, want, seen;

	*ret_msgs = event_log_room(&space->log, &room);
	if (!*ret_msgs)
		return 0;
	want = object_before_read(space);
	seen = want ? event_who_look(space) : 0;
	if (want > seen && !space->n_objects)
		want = seen;
	note = guard_reading(space, *ret_msgs, room);
	while (want && n < room) {
		ssize_t got = uffd_read(space->uffd, *ret_msgs + n,
					(want < room - n ? want : room - n) * sizeof(**ret_msgs));

		if (got <= 0)
			break;
		got /= (ssize_t)sizeof(**ret_msgs);
		event_note_forks(space, *ret_msgs + n, (size_t)got);
		event_log_add(&space->log, (uint32_t)got);
		n += (uint32_t)got;
		want = object_left_to_read(space, *ret_msgs, n);
	}
	guard_end(note);
	object_match(space, *ret_msgs, n);
	return n;
}

bool fault_read_batch(struct space *space)
{
	struct uffd_msg *msgs;
	uint64_t now_ns;
	uint32_t n;

	/* Nothing before it is needed any more. */
	if (space->n_events == 0)
		event_log_clear(&space->log);
	/* Reading a FORK lets the parent go on, and it may end at once, and its staging with it:
	 * what lies there is the child's too. */
	if (evict_has_staged(space) && uffd_settled(space->uffd) == UFFD_AGAIN)
		evict_settle_batches(space);
	n = read_messages(space, &msgs);
	now_ns = clock_now_ns();
	for (uint32_t i = 0; i < n; i++) {
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT) {
			fault_queue(space, &msgs[i], now_ns);
			event_log_flag(&msgs[i], LOG_DONE);
		} else {
			event_note(space, &msgs[i]);
			space->n_events++;
		}
	}
	object_end_noting(space);
	return n > 0;
}

void fault_read(struct space *space)
{
	/* The one order of things: no MOVE may be in flight when an event is read, and nobody
	 * knows what the next message is. */
	if (!evict_close_gates(space))
		return;
	/* Where there is shared memory faults come one by one. */
	for (uint32_t i = 0; i < LOG_UNIT_MSGS && space->n_events == 0; i++)
		if (!fault_read_batch(space) || space->n_objects == 0)
			break;
	if (space->n_events)
		event_settle(space);
	object_after_read(space);
}
