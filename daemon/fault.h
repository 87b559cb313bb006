/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fault journey:
 *   fault_read -> pagemap_lookup -> fetch_page -> uffd_fill
 * All on the space's worker.
 */
#ifndef UHMMD_FAULT_H
#define UHMMD_FAULT_H

#include "space.h"
#include "uffd.h"

/* What became of an attempt to bring bytes home. */
enum fill_result {
	FILL_DONE = 0, /* home, or nothing was left to bring home */
	FILL_RETRY,    /* an event is unread: read it, look the record up again */
	FILL_LATER,    /* no memory in the program's cgroup, or the process is not known yet */
	FILL_GONE,     /* the address space is gone */
	FILL_STALE,    /* the record is not about what is there: as if it had none */
};

/* Read what the userfaultfd has: faults are queued, events are applied. Closes the gate. */
void fault_read(struct space *space);

/* One read(2), with every gate closed already: true if it brought anything. */
bool fault_read_batch(struct space *space);

/* Serve what is queued and can be served now. */
void fault_serve_all(struct space *space);

/*
 * Bring up to n pages home, from pgidx on, all of one record run: pages of the same state
 * that can be filled by one ioctl. *ret_pages: how many were dealt with (at least 1 when
 * FILL_DONE). `referenced`: the program asked for the first of them.
 */
enum fill_result fault_fetch_page(struct space *space, uint64_t pgidx, uint32_t n,
				  bool referenced, uint32_t *ret_pages);

/* Ask the kernel for n entries of the program's pagemap; a count, or a negative errno. */
int fault_read_pagemap(const struct space *space, uint64_t pgidx, uint32_t n, uint64_t *ret);

/* Of such an entry: a hole that carries our marker. */
bool fault_is_marked_hole(uint64_t entry);

/* What an ioctl at addr said, where that is not about the page itself. */
enum fill_result fault_result_of(struct space *space, enum uffd_result result, uint64_t addr);

/* A store to a page that is there, and write-protected: let it through. */
enum fill_result fault_unprotect(struct space *space, uint64_t addr);

/* Bytes that cannot be had back: say so. */
void fault_count_lost(struct space *space, uint64_t pgidx, const char *why);

/* The same, and the page raises SIGBUS from now on. FILL_RETRY: an event is
 * unread, do it again. */
enum fill_result fault_poison(struct space *space, uint64_t pgidx, const char *why);

#endif
