/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A space: one enrolled address space.
 *
 * Life:  space_new (control) -> ENROLLING -> space_start -> SERVING
 *        SERVING -> DRAINING   its socket closed: exec or exit is in progress, or the agent
 *                              ended; faults are served until an ioctl answers ESRCH
 *        any -> DEAD           the address space is gone; the worker ends
 *
 * Owner: the space's worker, one thread that is started at the first thing there is to do
 * (evict, serve a forked child). It alone reads the userfaultfd, applies events, changes the
 * page map, fills and marks pages, opens and closes the gate for MOVE. So the one order of
 * things that keeps bytes right is the program order of one function, worker_run, and needs
 * no lock. Everybody else talks to it by mail.
 *
 * Members are grouped by who may touch them.
 */
#ifndef UHMMD_SPACE_H
#define UHMMD_SPACE_H

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "event_log.h"
#include "event_who.h"
#include "family.h"
#include "group.h"
#include "maps.h"
#include "pagemap.h"
#include "pinned.h"
#include "quiesce.h"
#include "ranges.h"
#include "stats.h"
#include "uhmm/wire.h"
#include "util/list.h"

struct config;
struct tier;
struct daemon_env;
struct object;
struct object_copy;
struct recovered_space;
struct survey;

enum space_state {
	SPACE_ENROLLING = 0, /* no userfaultfd yet, or not verified */
	SPACE_SERVING,
	SPACE_DRAINING,
	SPACE_DEAD,
};

/* Where the agent and its things lie in the program. */
struct space_layout {
	uint64_t staging_addr;
	uint64_t private_addr, private_bytes;
	uint64_t ring_addr, ring_bytes;
	uint64_t beacon_addr;
	pid_t agent_tid;
};

/* A page of a batch. pgidx follows mremap. */
struct batch_page {
	uint64_t pgidx;
	uint64_t slot; /* of the space's own store; the batch holds one reference on it */
};

enum batch_state {
	BATCH_IDLE = 0,
	BATCH_MOVING,	/* command is out, its staging chunk is registered: the gate is open */
	BATCH_MOVED,	/* gate closed, records say what moved; the agent may not have answered */
	BATCH_STORING,	/* command is out: the agent writes slots */
	BATCH_FREEING,	/* command is out: the agent frees staging */
};

#define BATCH_PAGES_MAX 512u

/* A batch's pages fill whole units of the arena. */
#define BATCH_UNIT_PAGES (ARENA_UNIT / sizeof(struct batch_page))
#define BATCH_UNITS (BATCH_PAGES_MAX / BATCH_UNIT_PAGES)

/* One batch a staging chunk. Page i of the batch is page i of the chunk. */
struct batch {
	enum batch_state state;
	uint32_t chunk;
	uint32_t n_pages;
	uint32_t seq;	    /* of the command that is out */
	bool beacon;	    /* this batch takes the beacon page out and nothing else */
	bool owes_pinned;   /* pages of it must come home, and could not yet */
	uint64_t opened_ns; /* when the gate was opened */
	struct batch_page *units[BATCH_UNITS]; /* in the arena: a successor needs them */
	uint64_t moved[BATCH_PAGES_MAX / 64];  /* bit: this page is in staging */
	struct {
		uint16_t first, n; /* pages of the batch */
	} runs[BATCH_PAGES_MAX];   /* of the STORE that is out */
	uint32_t n_runs;
};

static inline struct batch_page *batch_page(const struct batch *batch, uint32_t i)
{
	return &batch->units[i / BATCH_UNIT_PAGES][i % BATCH_UNIT_PAGES];
}

static inline bool batch_has_moved(const struct batch *batch, uint32_t i)
{
	return batch->moved[i / 64] >> (i % 64) & 1;
}

/* In the arena: what a successor needs to take the space over. */
struct space_unit {
	arena_off next; /* the list from arena_header.spaces */
	uint64_t space_id;
	int32_t pid; /* 0: has not enrolled, or is not known yet */
	uint32_t uid;
	uint8_t token[UHMM_TOKEN_BYTES];
	struct space_layout layout;
	arena_off root; /* of the page map */
	arena_off log; /* of events */
	uint32_t log_is_ordered;
	uint32_t n_batches;
	uint32_t beacon_out;
	uint32_t given_up, distrust; /* as in struct space */
	uint32_t has_shared; /* it maps an object that is open */
	uint64_t raced_start, raced_end; /* being unregistered: see home.c */
	arena_off past; /* root of a page map: see fork.c; 0: none */
	uint32_t unmarked_inherited; /* as in struct space */
	struct {
		uint64_t target_pages;
		uint32_t kind; /* enum group_kind */
		uint32_t uid;
		uint8_t token[UHMM_TOKEN_BYTES];
	} group;
	struct {
		uint32_t state; /* enum batch_state */
		uint32_t n_pages;
		arena_off units[BATCH_UNITS];
	} batches[UHMM_RING_BOXES];
};

/* A fault whose message was read and that is not resolved yet. */
struct fault {
	uint64_t addr;
	uint64_t read_ns; /* when the read of its message returned */
	uint32_t tid;	  /* in the faulting task's pid namespace */
	bool write;
	bool protected; /* a store to a write-protected page */
	bool paced; /* waits for room */
};

#define SPACE_RECENT 64u

/* What came home by a fault last. */
struct recent {
	uint64_t pgidx[SPACE_RECENT];
	uint32_t next;
	uint64_t ns; /* when the last of them did */
};

#define SPACE_FAULTS_MAX 1024u
#define SPACE_STREAMS 8u

/* Sequential faults of one thread widen its window. */
struct stream {
	uint32_t tid;
	uint32_t window; /* pages to bring along */
	uint64_t next;	 /* page index that would continue it */
};

enum mail_type {
	MAIL_EVICT,   /* bytes, 0: all */
	MAIL_RESTORE, /* everything */
	MAIL_MIGRATE, /* a range */
	MAIL_QUERY,   /* a range */
	MAIL_MAPS,    /* what lies where, all of it */
	MAIL_AGENT,   /* a child, or a restarted agent, has enrolled */
	MAIL_QUIT,    /* bring everything home, and take nothing out again */
	MAIL_OBJECT_JOIN,  /* from the object thread, see object.h */
	MAIL_OBJECT_LEAVE,
	MAIL_OBJECT_PROTECT,
	MAIL_OBJECT_STORE,
};

/* The userfaultfd of a forked child, that an agent kept while there was no daemon. */
struct kept_child {
	uint8_t token[UHMM_TOKEN_BYTES];
	int uffd; /* -1: taken */
};

/* What comes back with an agent whose daemon ended. */
struct comeback {
	uint32_t n_children;
	struct kept_child children[UHMM_CHILDREN_MAX];
};

/* A new agent for a space that exists. Descriptors that are taken over become -1. */
struct attach {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	int sock;
	int ring_fd;
	struct uhmm_ring *ring;
	struct space_layout layout;
	uint32_t gen; /* which of the space's agents it became */
};

/* A request to a worker. The sender owns it until it is posted, then the worker; the worker
 * hands it to control_complete, which answers and frees it. */
struct mail {
	struct list link;
	enum mail_type type;
	uint64_t conn_id; /* whom control answers; 0: nobody */
	uint64_t addr, bytes;
	bool home, hold, release;
	uint64_t home_ns; /* hold: when all was home; 0: not yet */
	/* the answer */
	int error;
	uint64_t pages;
	unsigned char *where; /* QUERY: one byte a page; heap, freed with the mail */
	size_t n_where;
	struct survey *survey; /* MAPS; freed with the mail */
	struct attach attach; /* AGENT */
	struct object *object; /* OBJECT_*: not owned */
	struct object_copy *copy; /* OBJECT_STORE */
	const void *arg;	  /* OBJECT_PROTECT */
	void (*done)(struct mail *mail); /* instead of control's answer; any thread */
};

/* A thread that was seen waiting for its event to be read. */
struct event_waiter {
	pid_t tid;
	struct threads_call call;
	int advice;	     /* of its madvise; or one of object_advice.c */
	uint64_t start, end; /* what that is about */
};

/* A REMOVE that was just read, and whose it may be. */
struct event_removed {
	uint64_t start, end;
	uint64_t whose; /* bit: this waiter */
};

#define SPACE_WAITERS 64u
/* Requests of clients that wait for one worker: each holds memory. */
#define SPACE_REQUESTS_MAX 16u

struct space {
	/* Guarded by the registry's lock. */
	struct list link;
	unsigned int n_refs;

	/* Set before the worker starts, never changed after. */
	uint64_t id;
	const struct daemon_env *env;
	struct group *group;
	struct family *family;
	uint8_t token[UHMM_TOKEN_BYTES];
	uint64_t page_size;
	unsigned int page_shift;

	/* Set by control at enrolment; a child's are set while its worker runs, behind
	 * `identified` (release/acquire). */
	bool identified;
	pid_t pid;
	uid_t uid;
	gid_t gid;
	char command[64];
	int pidfd, mem_fd, maps_fd, smaps_fd, pagemap_fd, status_fd, task_fd;
	int peek_fd; /* as mem_fd, read-only: what its agent is given */
	uint32_t n_filters; /* seccomp filters that were there first: the agent lives with them */
	uint64_t stack_top_addr; /* from here up the initial stack stays */
	int ring_fd;
	struct uhmm_ring *ring;
	int agent_efd; /* the agent's answers */
	int sock;      /* to the agent; -1: none */
	struct space_layout layout;

	/* One agent gives way to the next with this held: gid, ring, ring_fd, sock and layout,
	 * which nobody but the worker may read without; command too. */
	pthread_mutex_t agent_lock;
	uint32_t agent_gen; /* counts agents */
	uint32_t retired_gen; /* atomic: this one is told to end once all is home; 0: none */

	/* Any thread. */
	int uffd;
	int mail_efd;
	pthread_mutex_t mail_lock;
	struct list mail;
	uint32_t state;		/* enum space_state, atomic */
	uint32_t agent_reason;	/* enum uhmm_reason, atomic: why there is no agent; 0: there is */
	uint64_t want_pages;	/* to evict, atomic, by the target keeper */
	uint64_t leaving_pages; /* in batches: counted in host RAM still, atomic */
	uint64_t host_pages;	/* private, sampled, atomic */
	uint64_t locked_kb;	/* VmLck, sampled, atomic */
	uint64_t tier_pages;	/* atomic */
	uint64_t registered_bytes; /* atomic */
	uint64_t why_not_bytes[UHMM_REASON_MAX]; /* atomic, as of the last scan */
	bool hold;		/* atomic: an administrator wants it home, and to stay there */
	bool no_room;		/* atomic: the page map may not grow, so nothing more leaves */
	uint64_t looked_locked_kb; /* VmLck before locked mappings were last looked for, atomic */
	bool reading;		/* atomic: events may have been read that are not applied yet */
	bool noting;		/* atomic: a madvise may have begun that no object knows of yet */
	uint64_t shmem_pages;	/* shared memory in host RAM, sampled, atomic */
	struct stats stats;
	bool orphan;	     /* a daemon before left it, and its agent has not come back, atomic */
	bool worker_started; /* guarded by the registry's lock */
	bool told_to_quit;   /* the same: QUIT was posted */

	/* The worker's own. */
	pthread_t worker;
	struct comeback *comeback; /* taken over from a daemon before, and not settled yet; heap;
				      others see only whether it is there, atomic */
	struct space *warden;	   /* whose agent keeps our userfaultfd for a successor; a reference;
				      changes with the registry's lock held */
	struct pagemap map;
	struct ranges registered; /* at least all that is: what must be let go in the end */
	struct ranges certain;	  /* registered by us, and no event has touched it since */
	struct ranges occupied;	  /* mapped and registered as of the events that were applied, for
				     the order of events is inferred from it: rather too little */
	bool unmarked_inherited;  /* a child's: some of its records without marker are of its parent;
				     also in the arena */
	struct range assumed; /* where some of it is not certain; end is 0: nowhere */
	bool occupied_unknown;	  /* a child's, that nobody has looked at yet */
	struct ranges unmanaged; /* refused by the kernel: tag says why; cleared now and then */
	uint64_t unmanaged_ns;
	struct maps maps;
	struct maps maps_check, maps_now; /* to look again at what is registered */
	uint64_t maps_read_ns;
	struct store *store; /* of the tier that pages leave to; NULL until first needed */
	bool slots_dirty; /* its slots have memory since they were last let go */
	struct batch *batches;
	uint32_t n_batches;
	bool beacon_out;
	bool gone;		 /* an ioctl said ESRCH */
	bool given_up;		 /* the page map could not follow: nothing leaves any more */
	bool distrust;		 /* and a hole without a marker may have had bytes, too */
	bool recovered;		 /* it, or whom it was forked from, was a dead daemon's: a hole may
				    lack its record */
	bool quitting; /* atomic */
	struct object **objects; /* that it maps, each with a reference */
	uint32_t n_objects, objects_cap;
	bool has_others; /* other memory than private and anonymous is, or was, registered */
	bool shared_unmapped;	 /* something was, since the last prune */
	uint64_t pruned_ns;	 /* when the page map was last pruned */
	uint64_t shared_pruned_ns; /* the same for the objects that it maps */
	bool beacon_wanted;
	struct event_waiter waiters[SPACE_WAITERS]; /* what is read next is theirs */
	uint32_t n_waiters;
	struct event_removed removed[SPACE_WAITERS]; /* of the last reading, if it is known */
	uint32_t n_removed;
	bool left_over; /* the last reading may have woken a thread and left its event */
	bool woken_noted;
	struct threads woken; /* these have not been seen to sleep since, or to get on */
	uint64_t remove_seq;	 /* of the last madvise on an object */
	struct mail *object_mail; /* STORE that the agent is at */
	uint32_t object_seq;	 /* of its command */
	struct mail *attaching;	 /* AGENT that waits until it can be had */
	uint64_t attaching_ns;
	struct mail *current;	 /* RESTORE, EVICT, MIGRATE in progress */
	struct mail *surveying;	 /* MAPS in progress */
	bool retiring;		 /* all has been brought home for an agent that is to end */
	uint64_t current_at;	 /* how far it is: an address */
	uint64_t current_start, current_end;
	uint64_t current_shared;	 /* the same for its shared memory */
	uint64_t current_left;	 /* pages that it may still take out */
	uint64_t pruned_away;	 /* the most that was away since */
	uint64_t pick_failed_ns; /* when a pick last found nothing; 0: it found something */
	uint64_t hand;		 /* the clock's hand: an address */
	struct recent recent;	 /* stays, see pick.c */
	struct pinned pinned;
	struct space_unit *unit; /* in the arena */
	arena_off unit_off;
	struct event_log log;	 /* in the arena */
	uint32_t n_events;	 /* of the log: read and not applied yet */
	struct event_who who;	 /* whose they are */
	struct pagemap past;	 /* what the set that is being applied has taken away from children
				    that are not born yet; also in the arena */
	struct quiesce quiesce;
	struct range raced;	 /* unregistered with an event unread: see home.c */
	uint32_t n_unmarked;	 /* records that may carry UNMARKED */
	uint64_t identify_next_ns, identify_pause_ns; /* looking for the process: identify.c */
	struct fault faults[SPACE_FAULTS_MAX];
	uint32_t n_faults;
	struct stream streams[SPACE_STREAMS];
	uint32_t stream_next;
	char *bounce;	 /* BATCH_PAGES_MAX pages, for what cannot be filled from a mapping */
	char *zero_page;
	int worker_cpu;
	uint32_t follow_countdown;
	bool readable; /* the userfaultfd, at the last look */
};

/* What all spaces share; made by main, constant after. */
struct daemon_env {
	const struct config *config;
	struct tier *tier;
	uint64_t page_size;
};

/* ---- the registry: every space and group; any thread ------------------------------- */
void registry_lock(void);
void registry_unlock(void);
/* A number that no space and no family has had. */
uint64_t registry_new_id(void);
/* A daemon before has used numbers up to this one. */
void registry_used_id(uint64_t id);
extern struct list registry_spaces; /* with the lock held */
extern struct list registry_groups; /* with the lock held */

/* The group of this token, or a new one if it is not there and `make`; with a reference. */
struct group *group_get(const uint8_t token[UHMM_TOKEN_BYTES], uid_t uid, enum group_kind kind,
			bool make);
void group_ref(struct group *group);
void group_put(struct group *group); /* NULL is fine */

/* ---- spaces --------------------------------------------------------------------------- */
/* A space in ENROLLING, in a family of its own. Takes over uffd (may be -1 until enrolment). The
 * caller holds one reference. */
int space_new(const struct daemon_env *env, struct group *group, int uffd,
	      struct space **ret_space);
/* The same for a forked child, whose token (not NULL) its parent's agent has been told. */
int space_new_child(struct space *parent, int uffd, const uint8_t token[UHMM_TOKEN_BYTES],
		    struct space **ret_space);
/* A space that a daemon before has left in this family, in ENROLLING and an orphan; its process
 * may come back. Takes over the page map. Its one reference is nobody's until it is claimed. */
int space_restore(const struct daemon_env *env, struct group *group, struct family *family,
		  struct recovered_space *found, struct space **ret_space);
/* The space's page map is there: from now on a successor finds both. space_new does it for a
 * space without a parent; a child's map is forked first. */
void space_publish(struct space *space);
/* Give back a unit that no list has any more, and what it leads to but the page map and the
 * log. */
void space_unit_free(struct arena *arena, arena_off off);
struct space *space_ref(struct space *space);
void space_unref(struct space *space); /* NULL is fine */
/* The orphan of this token in that family (NULL: in any), which is none any more: its reference
 * is the caller's from now on. `nameless`: only one that had no agent yet. NULL. */
struct space *space_claim_orphan(const uint8_t token[UHMM_TOKEN_BYTES],
				 const struct family *family, bool nameless);
struct space *space_find_pid(pid_t pid);	 /* the newest of that pid; with a reference */
struct space *space_find_token(const uint8_t token[UHMM_TOKEN_BYTES]); /* with a reference */
unsigned int space_count(uid_t uid, unsigned int *ret_of_uid);

/* Open the /proc files of `pid`; they stay bound to its present address space. */
int space_open_proc(struct space *space, pid_t pid);
void space_close_proc(struct space *space);
/* What is mapped now, with what smaps says of it: in space->maps, without pick.c's own verdicts,
 * so that it reads them again. On the worker. */
int space_read_smaps(struct space *space);
/* What is the agent's, or never registered, has that for a reason. */
void space_judge_mapping(const struct space *space, struct mapping *m);
/* How much memory it has locked now (locked_kb is as of the last sample). UINT64_MAX: it has gone,
 * or cannot be seen. */
uint64_t space_locked_kb(const struct space *space);
/* Is the space's userfaultfd one of the address space that mem_fd and peek_fd read? Leaves a page
 * in staging. */
int space_verify(struct space *space, uint64_t staging_addr);
/* The same where events may be unread, which stop that proof. Unregisters all of staging: no
 * agent may be at work. */
int space_verify_again(struct space *space, uint64_t staging_addr);

/* Start the worker if it does not run. The second one with the registry's lock held. */
int space_start_worker(struct space *space);
int space_start_worker_locked(struct space *space);
/* Hand a request to the worker, starting it if need be. Takes over the mail. */
void space_post(struct space *space, struct mail *mail);
/* The same for a space whose worker is known to have been started; any lock may be held. */
void space_post_started(struct space *space, struct mail *mail);
/* Make the worker look around. Any thread, never blocks. */
void space_kick(struct space *space);

static inline enum space_state space_get_state(const struct space *space)
{
	return (enum space_state)__atomic_load_n(&space->state, __ATOMIC_ACQUIRE);
}

static inline bool space_has_agent(const struct space *space)
{
	return __atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) &&
	       __atomic_load_n(&space->agent_reason, __ATOMIC_ACQUIRE) == UHMM_REASON_NONE &&
	       __atomic_load_n(&space->sock, __ATOMIC_ACQUIRE) >= 0;
}

/* For threads that are not the worker. */
static inline pid_t space_pid(const struct space *space)
{
	return __atomic_load_n(&space->pid, __ATOMIC_RELAXED);
}

static inline uid_t space_uid(const struct space *space)
{
	return __atomic_load_n(&space->uid, __ATOMIC_RELAXED);
}

/* Does nothing leave of its own accord? On its worker. */
static inline bool space_is_held(const struct space *space)
{
	return __atomic_load_n(&space->hold, __ATOMIC_RELAXED) || space->quitting;
}

/* What a successor must know, too. */
static inline void space_give_up(struct space *space)
{
	space->given_up = true;
	space->unit->given_up = 1;
}

/* The range that was unregistered, perhaps, with an event unread; 0, 0: none. */
static inline void space_set_raced(struct space *space, uint64_t start, uint64_t end)
{
	space->raced = (struct range){ .start = start, .end = end };
	space->unit->raced_end = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	space->unit->raced_start = start;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	space->unit->raced_end = end;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void space_set_unmarked_inherited(struct space *space, bool inherited)
{
	space->unmarked_inherited = inherited;
	space->unit->unmarked_inherited = inherited;
}

static inline void space_distrust(struct space *space, bool distrust)
{
	if (!distrust)
		return;
	space->distrust = true;
	space->unit->distrust = 1;
}

static inline uint64_t space_pgidx(const struct space *space, uint64_t addr)
{
	return addr >> space->page_shift;
}

static inline uint64_t space_addr(const struct space *space, uint64_t pgidx)
{
	return pgidx << space->page_shift;
}

/* 0 where there is no staging: a forked child has none before it has an agent. */
static inline uint64_t space_staging_bytes(const struct space *space)
{
	if (space->layout.staging_addr == 0)
		return 0;
	return (uint64_t)space->n_batches * BATCH_PAGES_MAX * space->page_size;
}

/* Nanoseconds of the monotonic clock. */
uint64_t clock_now_ns(void);

#endif
