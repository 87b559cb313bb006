/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared objects: shared memory segments (shmem: MAP_SHARED|MAP_ANONYMOUS, memfd, unlinked
 * tmpfs files) whose pages leave for all who map them at once. An object is keyed by device
 * and inode; a page of it is away or not, whoever asks and at whatever address.
 *
 *   fault:  object_fault -> (fetch) -> uffd_copy | uffd_continue      on a mapper's worker
 *   evict:  object_pick -> protect -> prove -> agent copies -> punch  on the object thread
 *
 * An object is open while pages of it may be away. Then every mapping of it, in every process,
 * is registered MISSING|MINOR|WP with the userfaultfd of an enrolled space (a mapper), and no
 * other way to its pages exists: no descriptor, no name. So nobody reaches a page for the
 * first time without a message, and new mappings come only from old ones, by fork or mremap,
 * with their registration.
 *
 * States of a page are those of page_state.h, of which an object uses
 *   RESIDENT   in the object (or a hole that was never filled)
 *   LEAVING    in the object, write-protected in every mapping, being copied to its slot;
 *              a store or a first touch takes it back
 *   STORED     a hole in the object
 *   COMING     a worker reads its slot, without the lock
 *   POISONED   lost
 *
 * Locks: object->lock guards the records, the mappers and the pending removes. It is held
 * over ioctls on userfaultfds and over the punch, never over backend I/O, nor over anything
 * that waits for a program. Order: object->lock, then family->lock; and object->lock, then
 * the registry's, then the table's. Nothing takes object->lock under one of these.
 */
#ifndef UHMMD_OBJECT_H
#define UHMMD_OBJECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "fault.h"
#include "maps.h"
#include "pagemap.h"
#include "space.h"
#include "util/list.h"

/* A madvise on shared memory whose end is not proven yet. */
struct object_remove {
	const struct space *space; /* whose thread called it; an identity only */
	uint64_t seq;		   /* of the space's removes */
	uint64_t first, n;	   /* pages of the object */
	bool surely;		   /* MADV_REMOVE was seen */
	/* Else: a page that the object had after the event was read, unless another remove takes
	 * it too. */
	uint64_t witness;
	bool contested;
};

#define OBJECT_NO_WITNESS UINT64_MAX

struct object {
	/* Set before it is found by others. */
	dev_t dev;
	uint64_t ino;
	struct group *group; /* whose target its host pages count against */
	uint32_t number;     /* in messages to agents */
	uint64_t page_size;
	unsigned int page_shift;

	/* Guarded by the table's lock. */
	struct list link;
	unsigned int n_refs;

	pthread_mutex_t lock;
	/* Guarded by it. */
	bool open;
	bool broken; /* a mapper was lost that could not follow: never evict again */
	struct family *family; /* of its own: the arena and the store; NULL until first opened */
	struct store *store;
	struct pagemap map;
	uint64_t shown_away; /* how many pages the group counts as being on a tier */
	struct space **mappers; /* each with a reference */
	uint32_t n_mappers, cap_mappers;
	uint64_t gen; /* changes with the mappers */
	struct object_remove *removes;
	uint32_t n_removes, cap_removes;
	bool stamped; /* its mtime says whether anybody has changed it since */

	/* Any thread, atomic. */
	uint64_t resident_pages;
	uint64_t want_pages; /* to evict; by the keeper */
	uint32_t reason;     /* enum uhmm_reason: why it is not open */
	bool busy;	     /* pages of it are on their way out */
	bool still;	     /* see object_lock_still */

	/* Set by the object thread before the object has a mapper; constant from then on. */
	int fd;

	/* The object thread's own. */
	uint64_t hand;	      /* page */
	uint64_t tried_ns;    /* when it was last tried to open */
	uint64_t vain_ns, pause_ns; /* when some was last to be taken out, and until the next try */
	uint64_t idle_ns;     /* since when nothing is away */
	uint64_t seen_ns;     /* in a program's maps */
	uint64_t quit_ns;     /* since when a mapper takes its leave */
};

#define OBJECT_REGISTER_MODE                                                                       \
	(UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP)

/* A worker's answer to MAIL_OBJECT_STORE: what the agent is to copy. The object thread's until
 * posted, then the worker's until completed. */
struct object_copy {
	uint32_t n_runs;
	struct uhmm_run runs[UHMM_RING_RUNS];
};

/* ---- the table (object.c); any thread ------------------------------------------------ */

/* The object of this identity, made if it is not there and `group` is not NULL; with a
 * reference. NULL: none, or no memory. */
struct object *object_get(dev_t dev, uint64_t ino, struct group *group,
			  const struct daemon_env *env);
void object_put(struct object *object); /* NULL is fine */
/* Why it is not managed; NONE: it is. SHARED: nobody has looked yet. */
enum uhmm_reason object_reason(dev_t dev, uint64_t ino);
/* Pages of the object from `first` on that are away, at most n. */
uint64_t object_count_away(struct object *object, uint64_t first, uint64_t n);
/* Call fn for each object, with the table's lock held: it must not wait. */
void object_each(void (*fn)(struct object *object, void *arg), void *arg);
/* Forget objects that nobody uses or maps any more. On the object thread. */
void object_sweep(uint64_t unseen_since_ns);

/* The lock of one object. Letting go of it tells the group what is away. */
void object_lock(struct object *object);
void object_unlock(struct object *object);
/* The same, and no worker begins to read: one sets `reading` first, then looks at `still`, so that
 * either it waits for us or we see it. If nothing was unapplied then, no madvise begins. */
void object_lock_still(struct object *object);
void object_unlock_still(struct object *object);

/* With object->lock held: */
int object_add_mapper(struct object *object, struct space *space);
void object_remove_mapper(struct object *object, struct space *space);
/* Everything that was read of this space has been applied. */
static inline bool object_has_applied(const struct space *space)
{
	return space_get_state(space) == SPACE_DEAD ||
	       !__atomic_load_n(&space->reading, __ATOMIC_SEQ_CST);
}
/* The same of all mappers. */
bool object_all_applied(const struct object *object);
/* Mark it by an mtime of ours, while nobody can be removing pages of it. */
void object_stamp(struct object *object);
/* Has anybody removed pages of it since, or stored? */
bool object_was_changed(const struct object *object);
bool object_is_hole(const struct object *object, uint64_t page);

/* The object of this identity that the space is a mapper of, or NULL. On its worker. */
struct object *object_of_space(const struct space *space, dev_t dev, uint64_t ino);

/* For one that it is not known to be a mapper of, but touches: if any of it is away, what is not
 * there is no zero. NULL: nothing is. On its worker. */
struct object *object_take_in(struct space *space, dev_t dev, uint64_t ino);

/* ---- serving (object_serve.c); on the space's worker --------------------------------- */

/* Is the fault one of shared memory, or of a private file? Then it is dealt with. */
bool object_fault(struct space *space, const struct fault *fault, enum fill_result *ret_result);
/* Bring home what lies in [*at, end), at most `budget` pages; *at moves on, `end` when all of
 * it is home. Adds to *pages. FILL_RETRY or FILL_LATER: go on after the loop went round. */
enum fill_result object_restore(struct space *space, uint64_t *at, uint64_t end, uint32_t budget,
				uint64_t *pages);
/* One byte a page, as QUERY answers. */
unsigned char object_where(struct space *space, uint64_t addr);

/* ---- mapping (object_map.c); on the space's worker ----------------------------------- */

/* Register every mapping of the object and become a mapper. 0; -EAGAIN: not yet, ask again;
 * -ENOENT (it maps none), -ENOTCONN, -ESRCH, -EBUSY (a userfaultfd of the program's
 * own watches it), -ENOTSUP (a private mapping of it), -EACCES (one that is for reading only). */
int object_join(struct space *space, struct object *object);
/* Nothing is away: let go. -EBUSY: something is. */
int object_leave(struct space *space, struct object *object);
/* [start, end) was unregistered, and registered again with an event unread. */
void object_registered_again(struct space *space, uint64_t start, uint64_t end);
/* Something was unmapped: the space is no mapper any more of what it does not map. */
void object_prune(struct space *space);
/* The address space has ended. */
void object_leave_all(struct space *space);
/* The child has what the parent has. -ENOMEM. */
int object_fork(struct space *space, struct space *child);
/* A fork whose child nobody will serve: it must never see a hole as zeros. */
void object_poison_child(struct space *space, int uffd);
/* The agent has a command of the object thread: publish it, or see whether it is done. */
void object_take_store(struct space *space, struct mail *mail);
void object_agent_step(struct space *space);

/* ---- madvise (object_advice.c, object_remove.c); on the space's worker --------------- */

enum object_advice { OBJECT_ADVICE_UNKNOWN, OBJECT_ADVICE_DONTNEED, OBJECT_ADVICE_REMOVE };

/* Before messages are read: MADV_REMOVE cannot be told from MADV_DONTNEED afterwards. How many
 * may be read; 0: none for now. From here on, until object_after_read, nothing leaves the space's
 * objects. */
uint32_t object_before_read(struct space *space);
/* These were read: how many more must be before anything else is done. */
uint32_t object_left_to_read(const struct space *space, const struct uffd_msg *msgs, uint32_t n);
/* Directly after it: these were read. */
void object_match(struct space *space, const struct uffd_msg *msgs, uint32_t n);
/* What it was that brought a REMOVE of [start, end), of those just read. */
enum object_advice object_advice_of(const struct space *space, uint64_t start, uint64_t end);
/* What was read is noted. */
void object_end_noting(struct space *space);
/* Nothing that was read is left to be applied. */
void object_after_read(struct space *space);
void object_note_remove(struct space *space, uint64_t start, uint64_t end);
/* Every madvise of the space whose event had this number or a smaller one has ended. */
void object_removes_ended(struct space *space, uint64_t seq);
/* With the lock held: is the worker of a mapper about to read, or has it read and not noted yet? */
bool object_is_noting(const struct object *object);
/* With the lock held: does a fill of this page have to wait? */
bool object_remove_pending(const struct object *object, uint64_t page);

/* ---- the object thread (object_thread.c, object_open.c, object_evict.c) -------------- */

int object_thread_start(const struct daemon_env *env);
/* The rest of an EVICT or MIGRATE: shared memory. Takes over the mail, completes it. */
void object_post(struct space *space, struct mail *mail);
/* Make it look at what is wanted. Any thread, never blocks. */
void object_kick(void);

/* Post a mail to a space's worker and wait for the answer: its error. */
int object_ask(struct space *space, struct object *object, enum mail_type type, const void *arg);
/* Have its agent copy. One that does not answer in time takes *copy with it: NULL then, and
 * -ETIMEDOUT. -EBUSY: nothing was commanded. -ENOTCONN: the agent ended meanwhile. */
int object_ask_copy(struct space *space, struct object *object, struct object_copy **copy);

/* Bring it under management: 0, or -EBUSY with object->reason set. `space` maps it at `m`. */
int object_open(struct object *object, struct space *space, const struct mapping *m,
		const struct daemon_env *env);
/* A descriptor of what is mapped there, to read and write; a negative errno. */
int object_open_mapped(const struct space *space, const struct mapping *m);
/* Nothing is away: every mapper lets go. */
void object_close(struct object *object);
/* References to the mappers as of now; NULL when there are none or no memory. */
struct space **object_mappers(struct object *object, uint32_t *ret_n, uint64_t *ret_gen);
void object_mappers_free(struct space **mappers, uint32_t n);

/* A new read-only descriptor of it; the caller owns it. A negative errno. */
int object_reopen(const struct object *object);

/* On a mapper's worker: PROTECT of object_evict.c, which alone knows what arg is. */
int object_protect(struct space *space, const void *arg);

/* Bring home what no mapper can. */
void object_write_back(struct object *object);
/* Take up to `want` pages of [first, end) out; returns how many left. */
uint64_t object_evict(struct object *object, uint64_t first, uint64_t end, uint64_t want, bool any);

#endif
