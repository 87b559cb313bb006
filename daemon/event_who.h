/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which thread does an event come from? See event_who.c. */
#ifndef UHMMD_EVENT_WHO_H
#define UHMMD_EVENT_WHO_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "threads.h"

struct space;

#define WHO_WAITING_MAX 64u
/* LOG_WHO of a message is one byte. */
#define WHO_TIDS_MAX 255u

/* Owned by the space's worker. */
struct event_who {
	struct {
		pid_t tid;
		struct threads_call call;
	} waiting[WHO_WAITING_MAX]; /* were seen to wait, and their events have not been read */
	uint32_t n_waiting;
	pid_t tids[WHO_TIDS_MAX]; /* whose events are in the log: LOG_WHO is the index, from 1 on */
	uint32_t n_tids;
	uint64_t moved_ns; /* when an mremap was last heard of; 0: never */
};

/* Does the thread wait until its event is read? Then in which call. Until the next reading it
 * does nothing else. */
bool event_who_waits(int task_fd, pid_t tid, struct threads_call *ret_call);

/* Before messages are read, after object_before_read: look who waits, if that matters. Returns how
 * many may be read, lest an event come along of somebody who was not seen. */
uint32_t event_who_look(struct space *space);
/* An event was read: note in it whose it is. */
void event_who_note(struct space *space, struct uffd_msg *msg);
/* All events have been applied. */
void event_who_forget(struct event_who *who);

#endif
