/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The torture: random operations on managed memory, checked against a shadow in memory that
 * nobody manages.
 *
 *   runner    unmanaged; starts the daemon and, round by round, the worlds; watches; reports
 *   nudger    unmanaged, forked by the runner; asks the daemon to evict and restore at random
 *   neighbour unmanaged, forked by the runner; reads and writes the worlds' memory when asked
 *   world     a managed process: the runner's binary, executed anew under the preload
 *   actor     a thread of a world, or a forked child of one. It owns regions of memory and does
 *             one operation after another on them
 *
 * All of them map the same file at the same address: struct control. It is a regular file's
 * mapping, which uhmm does not manage, so it is the place for the shadow, for the traces and
 * for whatever one process must know of another.
 */
#ifndef UHMM_TORTURE_H
#define UHMM_TORTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct uhmm;

#define ACTORS_MAX 256u
#define REGIONS_MAX 24u
#define REGION_PAGES_MAX 512u
#define TRACE_MAX 16384u
#define SCRIPT_MAX (1u << 20)
#define CELLS 8u
#define HISTORY 8u
#define KIDS_MAX 8u
/* At least 16 pages. */
#define BOUNCE_BYTES (64u << 10)
#define FAILURE_TEXT 16384u
/* No actor may take longer than this for one operation; the daemon's answers may, for proving
 * that memory can leave takes time, and requests wait for each other. */
#define HANG_SEC 25
#define ANSWER_SEC 180

/* ---- what a page must hold ------------------------------------------------------------- */

/* How it is mapped. */
enum page_map {
	MAP_GONE = 0, /* not mapped: a touch is a fault */
	MAP_RW,
	MAP_RO,
	MAP_NONE, /* PROT_NONE */
};

/* MADV_FREE: the kernel may give the old bytes or zeros. */
enum page_freed {
	FREED_NO = 0,
	FREED_LAZY,   /* it may turn to zero at any time */
	FREED_UNSURE, /* it was written since, so it is decided, and nobody has looked yet */
};

#define PAGE_LOCKED (1u << 0)
#define PAGE_WIPE (1u << 1)	/* MADV_WIPEONFORK */
#define PAGE_DONTFORK (1u << 2) /* MADV_DONTFORK */
#define PAGE_GUARD (1u << 3)	/* MADV_GUARD_INSTALL: no touch, whatever the protection */

struct page_event {
	uint32_t op;	  /* the actor's operation number */
	uint32_t version; /* the page's newest at its end */
	uint8_t code;
};

/* One page: eight cells of equal length, each with a version of its own; version 0 is zeros. */
struct page_shadow {
	uint32_t key; /* of this page alone in this round: goes into every word */
	uint32_t version;
	uint32_t cell[CELLS];
	uint8_t map;   /* enum page_map */
	uint8_t freed; /* enum page_freed */
	uint8_t sure;  /* FREED_UNSURE: the cells that were written since, a bit each */
	uint8_t flags; /* PAGE_* */
	uint32_t n_events;
	struct page_event events[HISTORY];
};

enum region_kind {
	REGION_FREE = 0,
	REGION_PRIVATE, /* MAP_PRIVATE | MAP_ANONYMOUS */
	REGION_SHARED,	/* MAP_SHARED: nobody else stores into it, but children map it too */
};

/* A range of memory that one actor owns: nobody else stores there. */
struct region {
	uint8_t kind;
	bool patched; /* several mappings, perhaps: mremap takes one */
	bool fenced;  /* the page below is ours, and nothing will ever be there */
	uint32_t n_pages;
	char *addr;
	struct page_shadow pages[REGION_PAGES_MAX];
};

/* ---- who does what ----------------------------------------------------------------------- */

/* One operation; what exactly it does follows from r and from the actor's own state. */
struct op {
	uint8_t code;
	uint32_t r[3];
};

enum actor_state {
	ACTOR_FREE = 0,
	ACTOR_RUNNING,
	ACTOR_DONE,
};

/* What the neighbour is asked to do with an actor's memory. */
struct ask {
	uint32_t state; /* atomic, a futex. 0: nothing; 1: asked; 2: done */
	bool write;	/* from bounce into the memory; else from the memory into bounce */
	uint64_t addr, bytes;
	int64_t result; /* bytes, or a negative errno */
};

struct actor {
	uint32_t state; /* enum actor_state, atomic */
	uint32_t id;	/* the same in each replay */
	uint32_t slot;
	uint32_t depth; /* forks above it */
	int32_t pid, tid;
	uint64_t rng;
	uint32_t n_ops, n_ops_max;
	const struct op *script; /* replay: n_ops_max of them */
	uint32_t last_key;
	uint32_t n_forks;
	uint32_t pages_used;
	uint64_t beat;	  /* atomic: moves on while it is alive */
	uint32_t waiting; /* atomic: for another actor, whose beat counts then */
	uint32_t asking;  /* atomic: it waits for an answer of the daemon */
	uint8_t code;	  /* of the operation in progress */
	pid_t kids[KIDS_MAX];
	struct actor *kid_actors[KIDS_MAX];
	bool foreign; /* in a pid namespace of its own: its pid means nothing outside */
	bool dropped; /* it has given its privileges up */
	struct uhmm *handle; /* its process's own; NULL: none yet */
	int pipe[2];	     /* -1: none */
	int file;	     /* a regular file without a name; -1: none */
	int direct;	     /* the same, O_DIRECT; -1: none */
	struct ask ask;
	/* For system calls that must not touch managed memory on both sides. */
	_Alignas(4096) char bounce[BOUNCE_BYTES];
	struct region regions[REGIONS_MAX];
	struct region glance; /* what some short-lived children look at */
	struct op trace[TRACE_MAX];
};

/* ---- memory that everybody stores into ---------------------------------------------------- */

#define COMMON_PAGES 96u
#define COMMON_WORDS 8u

struct common_word {
	uint32_t lo; /* atomic: at least this version is there; 0: perhaps none */
	uint32_t hi; /* atomic: the newest that somebody may have stored */
	uint32_t floor; /* atomic: versions up to this were removed */
};

struct common_page {
	uint32_t drops;	    /* atomic: MADV_REMOVEs begun and ended: odd while one is under way */
	uint32_t n_writing; /* atomic: stores under way */
	struct common_word words[COMMON_WORDS];
};

/* One object: a world's MAP_SHARED | MAP_ANONYMOUS memory, or the memfd of all worlds. */
struct common {
	struct common_page pages[COMMON_PAGES];
};

struct failure {
	uint32_t state; /* atomic. 0: none; 1: being written; 2: complete */
	char text[FAILURE_TEXT];
};

struct control {
	int fd; /* of this file, in every process */
	uint64_t seed;
	uint32_t round;
	uint32_t n_threads, n_processes;
	uint32_t pages_max; /* that one actor may own */
	uint32_t replaying;
	uint32_t stop;	    /* atomic: the round ends */
	uint32_t n_actors;  /* atomic: slots handed out */
	uint32_t n_alive;   /* atomic: processes */
	uint32_t has_words; /* worlds speak into a file, see words.h */
	uint32_t n_incomplete; /* atomic: children that ended so in this round */
	/* See op_guard and op_rug: nobody brings pages home unasked while some of these run. */
	uint32_t n_unaided; /* atomic */
	uint32_t restoring;  /* atomic */
	uint32_t n_asks;    /* atomic, a futex: the neighbour sleeps on it */
	uint64_t operations; /* atomic, of all rounds */
	struct {
		uint64_t after_ns, served_ns; /* atomic; see probe.h */
	} probe;
	struct {
		uint64_t n, ns; /* atomic */
	} costs[256]; /* by operation code, of all rounds */
	uint64_t page_size;
	uint8_t enabled[256]; /* by operation code: may be drawn */
	struct failure failure;
	int memfd;	     /* of the worlds, while they start */
	uint32_t n_mapped;   /* atomic: worlds that have mapped it */
	struct common commons[1 + ACTORS_MAX]; /* the memfd's; each world's by its first slot */
	uint32_t n_scripts;
	struct {
		uint32_t actor, first, n;
	} scripts[ACTORS_MAX];
	struct op script_ops[SCRIPT_MAX];
	struct actor actors[ACTORS_MAX];
};

/* At the same address in every process that takes part. */
extern struct control *const ctl;

/* Of the monotonic clock. */
static inline uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline double now_sec(void)
{
	return (double)now_ns() / 1e9;
}

static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A good hash of two numbers; never 0. */
static inline uint64_t hash2(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15ull + b;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return x ? x : 1;
}

#endif
