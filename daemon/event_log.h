/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of a space: the messages of its userfaultfd, in the order in which they were read, from
 * the moment of the read until all that they tell has been applied. It lies in the arena, and the
 * kernel writes there, because to read a message is what lets the program go on: a successor must
 * find what was read and finish it.
 *
 * It ends at the first message whose `event` is 0, so nothing has to be stored after a read. What
 * is dealt with stays in its place, and says so, until the log is cleared. What we note of a
 * message is in fields that the kernel leaves zero.
 *
 * Threads: the space's worker.
 */
#ifndef UHMMD_EVENT_LOG_H
#define UHMMD_EVENT_LOG_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "ranges.h"

/* LOG_FLAGS of a message. */
#define LOG_FLAGS reserved2
#define LOG_DONE (1u << 0)    /* it has been dealt with */
#define LOG_VACATES (1u << 1) /* a REMAP: its source is unmapped by it */
#define LOG_DROPPED (1u << 2) /* a REMAP: what its destination held is forgotten */
#define LOG_PAST (1u << 3)    /* what it takes away is noted for children that are not born yet */
#define LOG_UNKEPT (1u << 4)  /* a FORK: no agent keeps the child's userfaultfd */
#define LOG_ASKED (1u << 5)   /* a REMAP: children were asked whether they were born before it */
#define LOG_DOUBT (1u << 6)   /* and that by a daemon before: what they say now is no answer */
/* The place of an event in the order in which they are applied, from 1 on; 0: not known yet. */
#define LOG_TURN reserved3
/* Events with the same number are of the same thread; 0: not known whose. See event_who.c. */
#define LOG_WHO reserved1

/* Messages in a unit. */
#define LOG_UNIT_MSGS 127u
/* So many lie together, if need be behind others that say nothing. */
#define LOG_ROOM_MIN 64u

struct log_unit {
	arena_off next;
	uint64_t reserved[3];
	struct uffd_msg msgs[LOG_UNIT_MSGS];
};

struct event_log {
	struct arena *arena; /* not owned */
	struct log_unit **units;
	uint32_t n_units, cap_units;
	uint32_t n; /* messages, those that are done included */
};

#define EVENT_LOG_NULL ((struct event_log){ .arena = NULL })

/* A new, empty one; *ret_head is what a successor opens it by. -ENOSPC, -ENOMEM. */
int event_log_init(struct event_log *log, struct arena *arena, arena_off *ret_head);
/* The log that a daemon before left. -EPROTO: it leads nowhere. */
int event_log_open(struct event_log *log, struct arena *arena, arena_off head);
/* Gives the units back. Safe on EVENT_LOG_NULL. */
void event_log_deinit(struct event_log *log);

/* Where the next messages are to be read to; *ret_n: how many fit there, at least LOG_ROOM_MIN.
 * NULL: the arena has no room for more. */
struct uffd_msg *event_log_room(struct event_log *log, uint32_t *ret_n);
/* Is there room for another read? */
bool event_log_has_room(struct event_log *log);
/* So many were read there. */
void event_log_add(struct event_log *log, uint32_t n);
/* Where in the arena's file a message of it lies. */
uint64_t event_log_offset(const struct event_log *log, const struct uffd_msg *msg);
/* Nothing of it is needed any more. */
void event_log_clear(struct event_log *log);

/* Of a FORK: the child's token, 16 bytes behind what the kernel tells. */
static inline uint8_t *event_log_token(struct uffd_msg *msg)
{
	return (uint8_t *)msg + sizeof(*msg) - 16;
}

static inline bool event_log_is_done(const struct uffd_msg *msg)
{
	return msg->LOG_FLAGS & LOG_DONE;
}

/* Note something of a message, after all that was stored before. */
static inline void event_log_flag(struct uffd_msg *msg, unsigned int flag)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	msg->LOG_FLAGS = (uint16_t)(msg->LOG_FLAGS | flag);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline struct uffd_msg *event_log_at(const struct event_log *log, uint32_t i)
{
	return &log->units[i / LOG_UNIT_MSGS]->msgs[i % LOG_UNIT_MSGS];
}

/* From where an event takes memory: what it moves, unmaps or gives up. Empty, if nothing. */
static inline struct range event_source(const struct uffd_msg *msg)
{
	uint64_t from = msg->arg.remap.from;

	if (msg->event == UFFD_EVENT_REMAP)
		return (struct range){ from, from + msg->arg.remap.len, 0 };
	if (msg->event == UFFD_EVENT_UNMAP || msg->event == UFFD_EVENT_REMOVE)
		return (struct range){ msg->arg.remove.start, msg->arg.remove.end, 0 };
	return (struct range){ 0 };
}

/* And where it brings memory. */
static inline struct range event_target(const struct uffd_msg *msg)
{
	uint64_t to = msg->arg.remap.to;

	if (msg->event != UFFD_EVENT_REMAP)
		return (struct range){ 0 };
	return (struct range){ to, to + msg->arg.remap.len, 0 };
}

#endif
