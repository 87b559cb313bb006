/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program's mappings, read from outside, each with a verdict: can its pages leave,
 * and if not, why. Owned by one thread.
 */
#ifndef UHMMD_MAPS_H
#define UHMMD_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

#include "uhmm/wire.h"

struct mapping {
	uint64_t start, end;
	dev_t dev; /* with ino: what is mapped there; 0 and 0: anonymous */
	uint64_t ino;
	uint64_t offset; /* bytes, of `start` in what is mapped */
	bool shared, writable;
	bool is_zero_device; /* MAP_SHARED|MAP_ANONYMOUS: no descriptor of it ever was */
	bool pins_memory;    /* rings of an io_uring or a socket, or the older asynchronous I/O */
	enum uhmm_reason reason; /* NONE: private, anonymous, writable: its pages can leave */
	bool is_stack;
	bool wiped;	 /* MADV_WIPEONFORK; only after maps_apply_smaps */
	bool not_inherited; /* MADV_DONTFORK; the same */
	bool registered; /* with a userfaultfd; only after maps_apply_smaps */
};

static inline bool mapping_is_private_anonymous(const struct mapping *m)
{
	return !m->shared && m->ino == 0;
}

struct maps {
	struct mapping *v;
	size_t n, cap;
	char *buf; /* the text, kept between reads */
	size_t buf_cap;
};

#define MAPS_NULL ((struct maps){ .v = NULL })

void maps_deinit(struct maps *maps);
/* Read /proc/PID/maps through an open descriptor (bound to one address space). An empty
 * result means that the address space is gone. */
int maps_read(struct maps *maps, int maps_fd);
/* The same, with the program's /proc/PID/task, and sure that no mapping was passed over because it
 * moved meanwhile. -EAGAIN: mappings changed all the time. */
int maps_read_whole(struct maps *maps, int maps_fd, int task_fd);
/* The same from text; for tests. `text` need not be terminated. */
int maps_parse(struct maps *maps, const char *text, size_t len);
/* Read smaps: give mappings that are locked (or otherwise special) their reason, and say which
 * are registered. */
int maps_apply_smaps(struct maps *maps, int smaps_fd);
const struct mapping *maps_find(const struct maps *maps, uint64_t addr);
/* The first mapping that ends after addr. */
const struct mapping *maps_at_or_after(const struct maps *maps, uint64_t addr);
/* Each mapping m of which some lies in [from, to). */
#define maps_for_each_in(m, maps, from, to)                                                        \
	for (const struct mapping *m = maps_at_or_after((maps), (from));                           \
	     m && m < (maps)->v + (maps)->n && m->start < (to); m++)
/* The kernel's word on the one mapping that covers addr now, through the descriptor of its
 * /proc/PID/maps: 0, -ENOENT (there is none), or another negative errno. Sets start, end,
 * dev, ino, offset, shared, writable, and reason as far as these tell. Older kernels read all
 * of the file: not fast. */
int maps_query(int maps_fd, uint64_t addr, struct mapping *ret);
/* The same of all mappings of which some lies in [from, to), one after the other. */
int maps_read_in(struct maps *maps, int maps_fd, uint64_t from, uint64_t to);

#endif
