/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event log: owns a list of units in the arena, and an index of them in the heap. A unit more
 * is only made where one read does not have room, which is where events come in storms. Runs on
 * the space's worker.
 *
 * What may never happen here: that a message which was read is not found by a successor. So a
 * unit is linked before anything is read into it, and is zero behind the last message.
 */
#include "event_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/array.h"

_Static_assert(sizeof(struct log_unit) == ARENA_UNIT, "a log unit is a unit of the arena");

static int index_unit(struct event_log *log, arena_off off)
{
	struct log_unit **units =
		array_room(log->units, log->n_units, &log->cap_units, sizeof(struct log_unit *));

	if (!units)
		return -ENOMEM;
	log->units = units;
	log->units[log->n_units++] = arena_ptr(log->arena, off);
	return 0;
}

int event_log_init(struct event_log *log, struct arena *arena, arena_off *ret_head)
{
	arena_off off;
	int err;

	*log = (struct event_log){ .arena = arena };
	err = arena_alloc(arena, &off);
	if (err < 0)
		return err;
	err = index_unit(log, off);
	if (err < 0)
		arena_free(arena, off);
	else
		*ret_head = off;
	return err;
}

/* How many messages there are from the start of the log on. */
static uint32_t count_msgs(const struct event_log *log)
{
	uint32_t n = 0, max = log->n_units * LOG_UNIT_MSGS;

	while (n < max && event_log_at(log, n)->event != 0)
		n++;
	return n;
}

int event_log_open(struct event_log *log, struct arena *arena, arena_off head)
{
	uint64_t max = arena->header->n_units;
	int err = 0;

	*log = (struct event_log){ .arena = arena };
	for (arena_off off = head; off && err == 0; off = log->units[log->n_units - 1]->next) {
		if (off % ARENA_UNIT || off / ARENA_UNIT >= max || log->n_units == max)
			err = -EPROTO;
		else
			err = index_unit(log, off);
		if (err < 0)
			break;
	}
	if (err == 0 && log->n_units == 0)
		err = -EPROTO;
	if (err < 0) {
		free(log->units);
		*log = EVENT_LOG_NULL;
		return err;
	}
	log->n = count_msgs(log);
	/* The numbers that the daemon before gave to threads are not known any more. */
	for (uint32_t i = 0; i < log->n; i++)
		event_log_at(log, i)->LOG_WHO = 0;
	return 0;
}

static arena_off offset_of(const struct event_log *log, uint32_t i)
{
	return (arena_off)((const char *)log->units[i] - (const char *)log->arena->header);
}

void event_log_deinit(struct event_log *log)
{
	while (log->n_units) {
		log->n_units--;
		arena_free(log->arena, offset_of(log, log->n_units));
	}
	free(log->units);
	*log = EVENT_LOG_NULL;
}

static int add_unit(struct event_log *log)
{
	arena_off off;
	int err = arena_alloc(log->arena, &off);

	if (err < 0)
		return err;
	err = index_unit(log, off);
	if (err < 0)
		arena_free(log->arena, off);
	else
		arena_publish(&log->units[log->n_units - 2]->next, off);
	return err;
}

static uint32_t room_in_unit(const struct event_log *log)
{
	return log->n_units * LOG_UNIT_MSGS - log->n;
}

bool event_log_has_room(struct event_log *log)
{
	uint32_t room = room_in_unit(log);

	if (room >= LOG_ROOM_MIN)
		return true;
	if (add_unit(log) < 0)
		return false;
	for (; room; room--) {
		struct uffd_msg *msg = event_log_at(log, log->n++);

		msg->LOG_FLAGS = LOG_DONE;
		msg->event = UFFD_EVENT_PAGEFAULT;
	}
	return true;
}

struct uffd_msg *event_log_room(struct event_log *log, uint32_t *ret_n)
{
	if (!event_log_has_room(log))
		return NULL;
	*ret_n = room_in_unit(log);
	return event_log_at(log, log->n);
}

void event_log_add(struct event_log *log, uint32_t n)
{
	log->n += n;
}

/* From the first on: once that says that the log has ended, the rest is not looked at, and it is
 * all done. What follows is zeroed before anything can be read in front of it. */
uint64_t event_log_offset(const struct event_log *log, const struct uffd_msg *msg)
{
	return (uint64_t)((const char *)msg - (const char *)log->arena->header);
}

void event_log_clear(struct event_log *log)
{
	for (uint32_t i = 0; i < log->n; i++) {
		__atomic_store_n(&event_log_at(log, i)->event, 0, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
	for (uint32_t i = 0; i < log->n; i += LOG_UNIT_MSGS)
		memset(log->units[i / LOG_UNIT_MSGS]->msgs, 0,
		       (log->n - i < LOG_UNIT_MSGS ? log->n - i : LOG_UNIT_MSGS) *
			       sizeof(struct uffd_msg));
	log->n = 0;
	while (log->n_units > 1) {
		arena_off last = offset_of(log, log->n_units - 1);

		arena_publish(&log->units[log->n_units - 2]->next, 0);
		log->n_units--;
		arena_free(log->arena, last);
	}
}
