/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon was at when it ended, finished or undone by the next one. Runs on the space's
 * worker, once, before it reads the userfaultfd or serves anything.
 *
 * When it begins the agent is back: so it is at no command, and no MOVE is under way. Then
 *
 *   gates      staging is not registered any more (space_verify_again has seen to it)
 *   registered what the kernel says
 *   batches    what lies in staging is what moved; each such page goes to its slot, the others
 *              that were commanded never left
 *   beacon     is out if it is not there
 *   messages   those that were read and not applied are in the log: event.c goes on there
 *   madvise    every thread may be in one whose event was read: nothing leaves before the proof
 *   faults     of messages that died with their reader are raised again by one wake
 *
 * Events that are unread stay so until then. They stop fills, not what is done here; a hole that
 * cannot be marked for them is marked late (UNMARKED).
 */
#define _GNU_SOURCE
#include "comeback.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "control.h"
#include "evict.h"
#include "fault.h"
#include "fork.h"
#include "log.h"
#include "quiesce.h"
#include "tier.h"
#include "uffd.h"

/* All addresses that a program can have. */
#define LOWEST_ADDR 0x10000ull
#define HIGHEST_ADDR (1ull << 47)

/* ---- what is registered ------------------------------------------------------------------ */

void comeback_is_needed(struct space *child)
{
	__atomic_store_n(&child->registered_bytes, child->page_size, __ATOMIC_RELAXED);
}

void comeback_find_registered(struct space *space)
{
	if (maps_read(&space->maps, space->maps_fd) < 0 ||
	    maps_apply_smaps(&space->maps, space->smaps_fd) < 0)
		return;
	space->maps_read_ns = 0;
	for (size_t i = 0; i < space->maps.n; i++)
		if (space->maps.v[i].registered)
			(void)ranges_add(&space->registered, space->maps.v[i].start,
					 space->maps.v[i].end, 0);
	__atomic_store_n(&space->registered_bytes, ranges_bytes(&space->registered),
			 __ATOMIC_RELAXED);
	/* With changes outstanding it is not known what was there before them. */
	space->occupied_unknown = true;
}

/* It was being unregistered. With an event unread what it holds may have lost its markers. */
static void register_again(struct space *space)
{
	uint64_t start = space->unit->raced_start, end = space->unit->raced_end;

	if (end == 0)
		return;
	(void)uffd_register(space->uffd, start, end - start, UFFD_REGISTER_MODE);
	space_set_raced(space, start, end);
	if (uffd_settled(space->uffd) == UFFD_OK && space->log.n == 0)
		space_set_raced(space, 0, 0);
}

/* ---- batches ----------------------------------------------------------------------------- */

/* Which page of which batch has that slot? */
static bool find_by_slot(struct space *space, uint64_t slot, struct batch **ret_batch,
			 uint32_t *ret_i)
{
	for (uint32_t b = 0; b < space->n_batches; b++) {
		struct batch *batch = &space->batches[b];

		for (uint32_t i = 0; i < batch->n_pages; i++)
			if (batch_page(batch, i)->slot == slot) {
				*ret_batch = batch;
				*ret_i = i;
				return true;
			}
	}
	return false;
}

static void read_batches(struct space *space)
{
	for (uint32_t b = 0; b < space->n_batches; b++) {
		struct batch *batch = &space->batches[b];
		uint32_t n = space->unit->batches[b].n_pages;

		batch->n_pages = n < BATCH_PAGES_MAX ? n : BATCH_PAGES_MAX;
		batch->state = (enum batch_state)space->unit->batches[b].state;
		if (batch->state == BATCH_IDLE || batch->state == BATCH_FREEING)
			batch->n_pages = 0; /* every record had been brought to its end */
	}
}

static bool is_in_staging(struct space *space, const struct batch *batch, uint32_t i)
{
	uint64_t addr = space->layout.staging_addr +
			((uint64_t)batch->chunk * BATCH_PAGES_MAX + i) * space->page_size;
	uint64_t entry = 0;

	while (fault_read_pagemap(space, space_pgidx(space, addr), 1, &entry) != 1) {
		if (uffd_alive(space->uffd) == UFFD_GONE)
			return false;
		usleep(1000);
	}
	return entry & (UHMM_PAGEMAP_PRESENT | UHMM_PAGEMAP_SWAPPED);
}

static struct page_rec mark(struct space *space, uint64_t pgidx, struct page_rec rec)
{
	if (uffd_mark(space->uffd, space_addr(space, pgidx), space->page_size) == UFFD_OK)
		return rec;
	space->n_unmarked += !(rec.v & PAGE_REC_UNMARKED);
	rec.v |= PAGE_REC_UNMARKED;
	return rec;
}

/* A page that was commanded: where is it? What moved lies in staging; the record follows. */
static struct page_rec settle_leaving(struct space *space, uint64_t pgidx, struct page_rec rec)
{
	struct batch *batch;
	uint32_t i;

	if (!find_by_slot(space, page_rec_slot(rec), &batch, &i) ||
	    batch->state != BATCH_MOVING || !is_in_staging(space, batch, i))
		return page_rec_move(rec, PAGE_RESIDENT);
	return mark(space, pgidx, page_rec_move(rec, PAGE_STAGED));
}

/* Of a batch that is published as MOVING it is not known whether the holes had been marked. */
static struct page_rec mark_again(struct space *space, uint64_t pgidx, struct page_rec rec)
{
	struct batch *batch;
	uint32_t i;

	if (!find_by_slot(space, page_rec_slot(rec), &batch, &i) || batch->state != BATCH_MOVING)
		return rec;
	return mark(space, pgidx, rec);
}

/* The bytes are in staging: the daemon writes them to the slot. What cannot be read or written
 * stays as it is, and is poisoned when it is touched. */
static struct page_rec settle_staged(struct space *space, struct page_rec rec)
{
	const struct store *store = space->store;
	struct batch *batch;
	uint64_t addr;
	uint32_t i;

	if (!store || page_rec_store(rec) != store->unit->index ||
	    !find_by_slot(space, page_rec_slot(rec), &batch, &i))
		return rec;
	addr = space->layout.staging_addr +
	       ((uint64_t)batch->chunk * BATCH_PAGES_MAX + i) * space->page_size;
	if (pread(space->mem_fd, space->bounce, space->page_size, (off_t)addr) !=
		    (ssize_t)space->page_size ||
	    store->tier->ops->write(store->backend_store, page_rec_slot(rec), 1, space->bounce) < 0)
		return rec;
	return page_rec_move(rec, PAGE_STORED);
}

static void settle_records(struct space *space)
{
	struct page_rec rec;

	for (uint64_t i = 0; (i = pagemap_next_slot(&space->map, i, UINT64_MAX, &rec)) < UINT64_MAX; i++) {
		struct page_rec now = rec;

		if (page_rec_state(now) == PAGE_STAGED)
			now = mark_again(space, i, now);
		if (page_rec_state(now) == PAGE_LEAVING)
			now = settle_leaving(space, i, now);
		if (page_rec_state(now) == PAGE_COMING)
			now = page_rec_move(now, PAGE_STORED);
		if (page_rec_state(now) == PAGE_STAGED)
			now = settle_staged(space, now);
		if (now.v != rec.v)
			(void)pagemap_set(&space->map, i, now);
	}
}

static void end_batches(struct space *space)
{
	for (uint32_t b = 0; b < space->n_batches; b++) {
		space->batches[b].n_pages = 0;
		space->batches[b].state = BATCH_IDLE;
		space->unit->batches[b].state = BATCH_IDLE;
		space->unit->batches[b].n_pages = 0;
	}
}

/* ---- the beacon -------------------------------------------------------------------------- */

static void find_beacon(struct space *space)
{
	uint64_t entry = UHMM_PAGEMAP_PRESENT;

	(void)fault_read_pagemap(space, space_pgidx(space, space->layout.beacon_addr), 1, &entry);
	/* A child of a process that had it out has it there once it was read. */
	space->beacon_out |= !(entry & UHMM_PAGEMAP_PRESENT);
	space->unit->beacon_out = space->beacon_out;
}

/* ---- children ---------------------------------------------------------------------------- */

/* Is it of a fork of the set that is to be applied, or has been in part? Then fork.c goes on. */
static bool is_in_log(const struct space *space, const uint8_t token[UHMM_TOKEN_BYTES])
{
	for (uint32_t i = 0; i < space->log.n; i++) {
		struct uffd_msg *msg = event_log_at(&space->log, i);

		if (msg->event == UFFD_EVENT_FORK &&
		    memcmp(event_log_token(msg), token, UHMM_TOKEN_BYTES) == 0)
			return true;
	}
	return false;
}

/* Children that no agent of their own speaks for yet, or ever. */
static void serve_children(struct space *space)
{
	for (uint32_t i = 0; i < space->comeback->n_children; i++) {
		struct kept_child *kept = &space->comeback->children[i];
		struct space *child;

		if (kept->uffd < 0 || is_in_log(space, kept->token))
			continue;
		/* Where an agent of its own was, that comes back itself. */
		child = space_claim_orphan(kept->token, space->family, true);
		if (!child)
			continue;
		child->uffd = kept->uffd;
		child->warden = space_ref(space);
		child->comeback = calloc(1, sizeof(*child->comeback));
		kept->uffd = -1;
		comeback_is_needed(child);
		__atomic_store_n(&child->state, SPACE_SERVING, __ATOMIC_RELEASE);
		if (!child->comeback || space_start_worker(child) < 0)
			log_err("pid %d: its forked child cannot be served", space->pid);
		space_unref(child);
	}
}

/* ---- messages ---------------------------------------------------------------------------- */

/* Faults are raised again; what was applied stays applied. */
static void read_log(struct space *space)
{
	for (uint32_t i = 0; i < space->log.n; i++) {
		struct uffd_msg *msg = event_log_at(&space->log, i);

		if (msg->event == UFFD_EVENT_PAGEFAULT)
			event_log_flag(msg, LOG_DONE);
		if (msg->LOG_FLAGS & LOG_ASKED)
			event_log_flag(msg, LOG_DOUBT);
		if (msg->event == UFFD_EVENT_FORK && !event_log_is_done(msg))
			msg->arg.fork.ufd = (uint32_t)comeback_take_child(space, event_log_token(msg));
		space->n_events += !event_log_is_done(msg);
	}
	if (space->n_events == 0) {
		fork_forget_past(space);
		__atomic_store_n(&space->unit->log_is_ordered, 0, __ATOMIC_RELEASE);
		event_log_clear(&space->log);
	}
}

int comeback_take_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES])
{
	for (uint32_t i = 0; space->comeback && i < space->comeback->n_children; i++) {
		struct kept_child *child = &space->comeback->children[i];
		int uffd = child->uffd;

		if (uffd < 0 || memcmp(child->token, token, UHMM_TOKEN_BYTES) != 0)
			continue;
		child->uffd = -1;
		return uffd;
	}
	return -1;
}

/* Has it ended, or a space in which its own agent comes back, or has? */
static bool needs_no_keeper(const struct kept_child *child)
{
	struct space *known = space_find_token(child->token);

	space_unref(known);
	return known || uffd_alive(child->uffd) == UFFD_GONE;
}

void comeback_end(struct space *space)
{
	struct comeback *comeback = space->comeback;

	for (uint32_t i = 0; comeback && i < comeback->n_children; i++) {
		struct kept_child *child = &comeback->children[i];

		if (child->uffd < 0)
			continue;
		if (needs_no_keeper(child)) {
			close(child->uffd);
			agent_forget_child(space, child->token);
			continue;
		}
		/* It was given up (give_up.c): without us it would read zeros. */
		log_err("pid %d: nothing is known of a child of it, which waits for ever",
			space->pid);
		control_keep_stranded(child->uffd);
	}
	/* From here on whoever was not taken may be forgotten: see adopt.c. */
	__atomic_store_n(&space->comeback, NULL, __ATOMIC_RELEASE);
	free(comeback);
}

void comeback_settle(struct space *space)
{
	if (space->store && space_has_agent(space) && agent_send_slots(space) < 0)
		log_warn("pid %d: its agent cannot be sent its slots", space->pid);
	register_again(space);
	comeback_find_registered(space);
	read_batches(space);
	settle_records(space);
	end_batches(space);
	find_beacon(space);
	quiesce_note_all(space);
	space->has_others = true;
	read_log(space);
	serve_children(space);
	if (space->n_events == 0)
		comeback_end(space);
	(void)uffd_wake(space->uffd, LOWEST_ADDR, HIGHEST_ADDR - LOWEST_ADDR - space->page_size);
	space->readable = true;
	log_info("pid %d (%s): taken over, %llu pages are away", space->pid, space->command,
		 (unsigned long long)space->map.n_away);
}
