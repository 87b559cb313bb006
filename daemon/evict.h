/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The evict journey:
 *   pick_pages -> pagemap_mark_leaving -> agent_move -> store_pages -> pagemap_store ->
 *   staging_free
 * All on the space's worker.
 */
#ifndef UHMMD_EVICT_H
#define UHMMD_EVICT_H

#include "space.h"

/* Look at what the agent answered, and start what is wanted and possible. */
void evict_step(struct space *space);

/* No MOVE can succeed after this: staging is unregistered, the records say what moved. Gives
 * an agent that is at it a short moment first. To be called before every read. False, after a
 * moment: the kernel has no memory to unregister it, so it is open and nothing may be read. */
bool evict_close_gates(struct space *space);

/* Do any bytes lie in staging and nowhere else? */
bool evict_has_staged(const struct space *space);

/* What lies in staging gets into its slot now, written by the daemon. For fork. */
void evict_settle_batches(struct space *space);

/* The agent is gone: as evict_settle_batches, and every batch ends. */
void evict_abandon(struct space *space);

/* The address space is gone: what the batches hold of slots is given back. */
void evict_end(struct space *space);

/* An mremap was applied: pages in batches follow it. */
void evict_batches_moved(struct space *space, uint64_t from, uint64_t to, uint64_t n);

/* Where in the program's staging the bytes of a STAGED page lie; 0: nowhere. */
uint64_t evict_staging_addr(const struct space *space, uint64_t pgidx, struct page_rec rec);

/* Could waiting bring room? */
bool evict_is_useful(const struct space *space);

/* Does the address lie in the staging range? */
bool evict_is_staging(const struct space *space, uint64_t addr);

/* Give the memory of slots that are not in use any more back to the tier. */
void evict_trim(struct space *space);

/* May a MOVE still succeed? Soon not: an agent is not waited for. */
bool evict_gate_is_open(const struct space *space);

/* Is a command out? */
bool evict_is_busy(const struct space *space);

#endif
