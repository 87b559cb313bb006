/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a space does to be, or not to be, a mapper of an object: its mappings registered and
 * let go, its children and its end, and the agent's part in an eviction. Runs on the space's
 * worker (object_leave_all and object_fork too), on behalf of the object thread.
 *
 * What may never happen here: that a mapping of an object with pages away is not registered.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "home.h"
#include "log.h"
#include "object.h"
#include "tier.h"
#include "uffd.h"
#include "util/array.h"
#include "wire.h"

/* A program that unmaps all the time is looked at this often. */
#define PRUNE_NS 100000000u

/* ---- the space's list ---------------------------------------------------------------- */

static int list_object(struct space *space, struct object *object)
{
	struct object **objects;

	if (object_of_space(space, object->dev, object->ino))
		return 0;
	objects = array_room(space->objects, space->n_objects, &space->objects_cap,
			     sizeof(struct object *));
	if (!objects)
		return -ENOMEM;
	space->objects = objects;
	space->objects[space->n_objects++] =
		object_get(object->dev, object->ino, NULL, space->env);
	space->unit->has_shared = 1;
	return 0;
}

/* The space has let go, or has gone: it no longer stands in the way of anything. */
static void unlist_object(struct space *space, struct object *object)
{
	uint32_t i = 0;

	object_lock(object);
	object_remove_mapper(object, space);
	for (uint32_t k = 0; k < object->n_removes; k++)
		if (object->removes[k].space == space)
			object->removes[k--] = object->removes[--object->n_removes];
	object_unlock(object);
	while (i < space->n_objects && space->objects[i] != object)
		i++;
	if (i == space->n_objects)
		return;
	space->objects[i] = space->objects[--space->n_objects];
	space->unit->has_shared = space->n_objects != 0;
	object_put(object);
}

static int add_mapper(struct space *space, struct object *object)
{
	int err;

	object_lock(object);
	err = object_add_mapper(object, space);
	object_unlock(object);
	return err < 0 ? err : list_object(space, object);
}

struct object *object_take_in(struct space *space, dev_t dev, uint64_t ino)
{
	struct object *object = object_get(dev, ino, NULL, space->env);
	bool away, taken = false;

	if (!object)
		return NULL;
	object_lock(object);
	away = object->family && (object->map.n_away || object->map.n_poisoned);
	object_unlock(object);
	if (away) {
		log_warn("pid %d: maps shared memory (inode %llu) and was not known to", space->pid,
			 (unsigned long long)ino);
		taken = add_mapper(space, object) == 0;
	}
	object_put(object);
	return taken ? object_of_space(space, dev, ino) : NULL;
}

/* ---- registering --------------------------------------------------------------------- */

static bool is_of(const struct mapping *m, const struct object *object)
{
	return m->dev == object->dev && m->ino == object->ino;
}

static int register_mapping(struct space *space, const struct mapping *m)
{
	switch (uffd_register(space->uffd, m->start, m->end - m->start, OBJECT_REGISTER_MODE)) {
	case UFFD_OK:
		space->has_others = true;
		return ranges_add(&space->registered, m->start, m->end, 0);
	case UFFD_GONE:
		space->gone = true;
		return -ESRCH;
	case UFFD_AGAIN:
	case UFFD_EXISTS:
	case UFFD_NO_MEM:
		return -EAGAIN;
	case UFFD_NO_VMA: /* it changed since we looked; or it can never be registered */
	case UFFD_ERROR:
		break;
	}
	if (errno == EPERM) /* from a descriptor that is for reading only */
		return -EACCES;
	if (errno == ENOENT || errno == EINVAL)
		return -EAGAIN;
	(void)ranges_add(&space->unmanaged, m->start, m->end, UHMM_REASON_APP_UFFD);
	space->unmanaged_ns = clock_now_ns(); /* remembered until the object is let go */
	return -EBUSY;
}

/* REGISTER passes over holes in silence, and what is mapped into one is not registered: so
 * look again afterwards, and believe it only with no event unread. */
static int certify_mappings(struct space *space, const struct object *object)
{
	bool found = false;

	if (maps_read_whole(&space->maps_check, space->maps_fd, space->task_fd) < 0)
		return -EAGAIN;
	for (size_t i = 0; i < space->maps_check.n; i++) {
		const struct mapping *m = &space->maps_check.v[i];

		if (!is_of(m, object))
			continue;
		if (!m->shared)
			return -ENOTSUP; /* a private mapping reads holes as zeros */
		found = true;
		if (ranges_cover(&space->certain, m->start, m->end))
			continue;
		const struct mapping *before = maps_find(&space->maps, m->start);

		if (!before || !is_of(before, object) || before->start > m->start ||
		    before->end < m->end || uffd_settled(space->uffd) != UFFD_OK)
			return -EAGAIN;
		if (ranges_add(&space->certain, m->start, m->end, 0) < 0 ||
		    ranges_add(&space->occupied, m->start, m->end, 0) < 0)
			return -ENOMEM;
	}
	return found ? 0 : -ENOENT;
}

int object_join(struct space *space, struct object *object)
{
	bool mine = false;
	int err;

	if (space_get_state(space) == SPACE_DEAD)
		return -ESRCH;
	/* A child that is forked while pages are away must find its beacon away too. */
	if (!space->beacon_out) {
		space->beacon_wanted = true;
		return space_has_agent(space) ? -EAGAIN : -ENOTCONN;
	}
	if (space->n_events || uffd_settled(space->uffd) != UFFD_OK)
		return -EAGAIN;
	err = maps_read(&space->maps, space->maps_fd);
	space->maps_read_ns = 0; /* without pick.c's own verdicts: it reads them again */
	for (size_t i = 0; i < space->maps.n && err == 0; i++) {
		const struct mapping *m = &space->maps.v[i];

		if (!is_of(m, object) || ranges_cover(&space->certain, m->start, m->end))
			continue;
		mine = true;
		err = m->shared ? register_mapping(space, m) : -ENOTSUP;
	}
	if (err == 0)
		err = certify_mappings(space, object);
	/* A mapper from the first registration on, so that a fork is followed; also when the next
	 * is refused, so that it is let go. */
	if ((err == 0 || err == -EAGAIN || mine) && err != -ESRCH && add_mapper(space, object) < 0)
		return -ENOMEM;
	return err;
}

int object_leave(struct space *space, struct object *object)
{
	bool away;

	object_lock(object);
	away = object->open;
	object_unlock(object);
	if (away)
		return -EBUSY;
	if (space->n_events || uffd_settled(space->uffd) != UFFD_OK)
		return -EAGAIN;
	if (maps_read(&space->maps, space->maps_fd) < 0)
		return -EAGAIN;
	space->maps_read_ns = 0;
	for (size_t i = 0; i < space->maps.n; i++) {
		const struct mapping *m = &space->maps.v[i];

		/* Not one that a userfaultfd of the program's own watches: an older kernel lets
		 * anybody unregister it. */
		if (is_of(m, object) && m->shared && !ranges_find(&space->unmanaged, m->start) &&
		    home_unregister(space, m->start, m->end) == -EAGAIN)
			return -EAGAIN;
	}
	unlist_object(space, object);
	return 0;
}

static void take_back_leaving(struct object *object)
{
	const uint64_t end = UINT64_MAX >> object->page_shift;
	struct page_rec rec;

	object_lock(object);
	for (uint64_t i = 0; (i = pagemap_next_slot(&object->map, i, end, &rec)) < end; i++)
		if (page_rec_state(rec) == PAGE_LEAVING)
			(void)pagemap_set(&object->map, i, page_rec_move(rec, PAGE_RESIDENT));
	object_unlock(object);
}

/* What was moved there has lost its protection, so that no page of it may leave, and has the
 * registration of private memory. */
void object_registered_again(struct space *space, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < space->n_objects; i++)
		take_back_leaving(space->objects[i]);
	if (maps_read(&space->maps_check, space->maps_fd) < 0)
		return;
	maps_for_each_in(m, &space->maps_check, start, end) {
		space->has_others |= m->shared;
		if (m->shared && object_of_space(space, m->dev, m->ino))
			(void)uffd_register(space->uffd, m->start, m->end - m->start,
					    OBJECT_REGISTER_MODE);
	}
}

static bool maps_it(const struct maps *maps, const struct object *object)
{
	for (size_t i = 0; i < maps->n; i++)
		if (is_of(&maps->v[i], object))
			return true;
	return false;
}

static bool has_removes(struct space *space, struct object *object)
{
	bool has = false;

	object_lock(object);
	for (uint32_t k = 0; k < object->n_removes; k++)
		has |= object->removes[k].space == space;
	object_unlock(object);
	return has;
}

/* Every fork that took a mapping along has been applied, and no mremap can have hidden one from
 * the reading of the maps: nothing was unread before it, nor after. */
void object_prune(struct space *space)
{
	bool kept = false;

	if (!space->shared_unmapped || space->n_events ||
	    clock_now_ns() - space->shared_pruned_ns < PRUNE_NS || uffd_settled(space->uffd) != UFFD_OK)
		return;
	space->shared_pruned_ns = clock_now_ns();
	space->maps_read_ns = 0;
	if (maps_read(&space->maps, space->maps_fd) < 0 || uffd_settled(space->uffd) != UFFD_OK)
		return;
	/* The thread has ended that the file is of: it says nothing of the memory. */
	if (space->maps.n == 0)
		return;
	for (uint32_t i = space->n_objects; i-- > 0;) {
		struct object *object = space->objects[i];

		if (maps_it(&space->maps, object))
			continue;
		if (has_removes(space, object))
			kept = true;
		else
			unlist_object(space, object);
	}
	space->shared_unmapped = kept;
}

void object_leave_all(struct space *space)
{
	/* A madvise that was cut off by the end may have been carried out: its mark on the
	 * object tells. */
	object_removes_ended(space, UINT64_MAX);
	while (space->n_objects)
		unlist_object(space, space->objects[0]);
	free(space->objects);
	space->objects = NULL;
	space->objects_cap = 0;
}

/* ---- forks --------------------------------------------------------------------------- */

int object_fork(struct space *space, struct space *child)
{
	int err = 0;

	child->has_others = space->has_others;
	/* Of what it did not get (MADV_DONTFORK) it is no mapper. */
	child->shared_unmapped = space->n_objects != 0;
	for (uint32_t i = 0; i < space->n_objects && err == 0; i++)
		err = add_mapper(child, space->objects[i]);
	return err;
}

/* What is away reads as SIGBUS in the address space of this userfaultfd, whose mappings lie
 * where the space's do. */
static void poison_away(struct space *space, int uffd)
{
	(void)maps_read(&space->maps, space->maps_fd);
	space->maps_read_ns = 0;
	for (size_t i = 0; i < space->maps.n; i++) {
		const struct mapping *m = &space->maps.v[i];
		struct object *object = m->shared ? object_of_space(space, m->dev, m->ino) : NULL;
		uint64_t first = m->offset >> space->page_shift;
		uint64_t end = first + ((m->end - m->start) >> space->page_shift);
		struct page_rec rec;

		if (!object)
			continue;
		object_lock(object);
		object->broken = true;
		for (uint64_t p = first; (p = pagemap_next(&object->map, p, end, &rec)) < end; p++) {
			uint64_t addr = m->start + ((p - first) << space->page_shift);

			if (!page_state_is_away(page_rec_state(rec)))
				continue;
			(void)uffd_unmark(uffd, addr, space->page_size);
			(void)uffd_poison(uffd, addr, space->page_size);
			stats_add(&space->group->stats.lost, 1);
		}
		object_unlock(object);
	}
}

void object_poison_child(struct space *space, int uffd)
{
	if (space->n_objects)
		poison_away(space, uffd);
}

/* ---- the agent ----------------------------------------------------------------------- */

static void store_done(struct space *space, int error)
{
	struct mail *mail = space->object_mail;

	space->object_mail = NULL;
	mail->error = error;
	control_complete(mail);
}

/* The agent gets two descriptors of its own, in its own table: the object to read from, and
 * the slots to write to. */
static int send_object(struct space *space, const struct object *object)
{
	struct uhmm_msg_object msg = {
		.h = { .type = UHMM_MSG_OBJECT, .len = sizeof(msg) },
		.number = object->number,
	};
	int fds[2], err;

	fds[0] = object_reopen(object);
	if (fds[0] < 0)
		return fds[0];
	fds[1] = object->store->tier->ops->store_fd(object->store->backend_store);
	err = fds[1] < 0 ? fds[1] : wire_send(space->sock, &msg, sizeof(msg), fds, 2, MSG_DONTWAIT);
	close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	return err;
}

/* Its turn comes after the command. */
static void send_forget(struct space *space)
{
	struct uhmm_msg_object forget = { .h = { .type = UHMM_MSG_OBJECT,
						 .len = sizeof(forget) } };

	(void)send(space->sock, &forget, sizeof(forget), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void object_take_store(struct space *space, struct mail *mail)
{
	struct uhmm_msg bell = { .type = UHMM_MSG_DOORBELL, .len = sizeof(bell) };
	struct uhmm_ring_box *box;
	int err = space_has_agent(space) && !space->object_mail ? 0 : -ENOTCONN;

	if (err == 0)
		err = send_object(space, mail->object);
	if (err < 0) {
		mail->error = err == -ENOTCONN ? -EBUSY : err; /* nothing was commanded */
		control_complete(mail);
		return;
	}
	space->object_mail = mail;
	box = &space->ring->object;
	memcpy(box->runs, mail->copy->runs, mail->copy->n_runs * sizeof(box->runs[0]));
	box->ops = UHMM_OP_COPY;
	box->n_runs = mail->copy->n_runs;
	box->slots = mail->object->number;
	__atomic_store_n(&box->seq, ++space->object_seq, __ATOMIC_RELEASE);
	(void)send(space->sock, &bell, sizeof(bell), MSG_DONTWAIT | MSG_NOSIGNAL);
	send_forget(space);
}

void object_agent_step(struct space *space)
{
	struct uhmm_ring_box *box;

	if (!space->object_mail)
		return;
	if (!space_has_agent(space)) {
		store_done(space, -ENOTCONN);
		return;
	}
	box = &space->ring->object;
	if (__atomic_load_n(&box->done, __ATOMIC_ACQUIRE) != space->object_seq)
		return;
	for (uint32_t i = 0; i < space->object_mail->copy->n_runs; i++)
		space->object_mail->copy->runs[i].result =
			__atomic_load_n(&box->runs[i].result, __ATOMIC_RELAXED);
	store_done(space, __atomic_load_n(&box->status, __ATOMIC_RELAXED));
}
