/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent of a space: who it is, how it is told to end, how another one takes its place.
 *
 * What one agent brings - its socket, ring, layout and uid - is swapped as a whole by the
 * space's worker, with agent_lock held; the worker itself reads it without. Other threads
 * (control, the keeper) reach it only through the functions here, which take the lock, so that
 * nobody speaks into a socket that was closed or a ring that was unmapped. Agents are counted:
 * what was decided about one never happens to the next.
 *
 * Never here: waiting for anything with the lock held.
 */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comeback.h"
#include "evict.h"
#include "object.h"
#include "tier.h"
#include "wire.h"

/* No agent has this number. */
#define NO_AGENT_GEN UINT32_MAX

bool agent_view(struct space *space, struct agent_view *ret_view)
{
	bool there;

	pthread_mutex_lock(&space->agent_lock);
	there = space_has_agent(space);
	if (there)
		*ret_view = (struct agent_view){
			.gen = space->agent_gen,
			.pid = space->pid,
			.tid = space->layout.agent_tid,
			.uid = space->uid,
		};
	pthread_mutex_unlock(&space->agent_lock);
	return there;
}

uint64_t agent_ring_addr(struct space *space)
{
	uint64_t addr;

	pthread_mutex_lock(&space->agent_lock);
	addr = space->layout.ring_addr;
	pthread_mutex_unlock(&space->agent_lock);
	return addr;
}

bool agent_dismiss(struct space *space, uint32_t gen, enum uhmm_reason reason, bool tell)
{
	struct uhmm_msg_quit quit = {
		.h = { .type = UHMM_MSG_QUIT, .len = sizeof(quit) },
		.reason = reason,
	};
	bool there;

	pthread_mutex_lock(&space->agent_lock);
	there = space_has_agent(space) && space->agent_gen == gen;
	if (there && reason == UHMM_REASON_SECCOMP)
		__atomic_fetch_or(&space->ring->flags, UHMM_RING_SANDBOXED, __ATOMIC_RELAXED);
	if (there && tell)
		(void)send(space->sock, &quit, sizeof(quit), MSG_DONTWAIT | MSG_NOSIGNAL);
	/* Last: from here on another may take its place. */
	if (there)
		__atomic_store_n(&space->agent_reason, reason, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&space->agent_lock);
	if (there)
		space_kick(space);
	return there;
}

/* What is away when its agent ends has no userfaultfd but ours, and would be lost with us. */
bool agent_retire(struct space *space, uint32_t gen, enum uhmm_reason reason)
{
	/* One that has just come back has much away, and its worker starts in a moment. */
	if (!space->worker_started)
		return !space->recovered && agent_dismiss(space, gen, reason, true);
	if (!agent_dismiss(space, gen, reason, false))
		return false;
	__atomic_store_n(&space->retired_gen, gen, __ATOMIC_RELEASE);
	space_kick(space);
	return true;
}

void agent_end_retired(struct space *space, uint32_t gen)
{
	struct uhmm_msg_quit quit = { .h = { .type = UHMM_MSG_QUIT, .len = sizeof(quit) } };

	pthread_mutex_lock(&space->agent_lock);
	quit.reason = __atomic_load_n(&space->agent_reason, __ATOMIC_RELAXED);
	if (space->agent_gen == gen && space->sock >= 0)
		(void)send(space->sock, &quit, sizeof(quit), MSG_DONTWAIT | MSG_NOSIGNAL);
	__atomic_store_n(&space->retired_gen, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&space->agent_lock);
	if (gen == NO_AGENT_GEN)
		agent_free_warden(space);
}

bool agent_has_wards(const struct space *warden)
{
	bool has = false;
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces)
		has |= __atomic_load_n(&list_entry(pos, struct space, link)->warden,
				       __ATOMIC_RELAXED) == warden;
	registry_unlock();
	return has;
}

/* With the registry's lock held: another agent of the family that may keep the ward's userfaultfd:
 * one that is to stay, of the same user. NULL. */
static struct space *find_keeper(const struct space *ward)
{
	struct list *pos;

	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (space != ward && space != ward->warden && space->family == ward->family &&
		    space->worker_started && space_get_state(space) == SPACE_SERVING &&
		    space_has_agent(space) && space_uid(space) == space_uid(ward))
			return space;
	}
	return NULL;
}

static bool change_keeper(struct space *ward)
{
	struct space *keeper = find_keeper(ward), *before = ward->warden;

	if (!keeper || ward->uffd < 0 || !agent_keep_child(keeper, ward->token, ward->uffd))
		return false;
	keeper->n_refs++;
	__atomic_store_n(&ward->warden, keeper, __ATOMIC_RELAXED);
	/* Never the last: whoever calls has one. */
	if (before)
		before->n_refs--;
	return true;
}

void agent_leave_ward(struct space *child)
{
	registry_lock();
	if (!change_keeper(child))
		__atomic_store_n(&child->retired_gen, NO_AGENT_GEN, __ATOMIC_RELEASE);
	registry_unlock();
}

/* The children of which it kept the userfaultfd, and which have no agent of their own. */
void agent_leave_wards(struct space *warden)
{
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (__atomic_load_n(&space->warden, __ATOMIC_RELAXED) != warden ||
		    !space->worker_started || space_has_agent(space) || change_keeper(space))
			continue;
		__atomic_store_n(&space->retired_gen, NO_AGENT_GEN, __ATOMIC_RELEASE);
		space_kick(space);
	}
	registry_unlock();
}

void agent_swap(struct space *space, struct attach *attach)
{
	struct uhmm_ring *old_ring;
	int old_ring_fd, old_sock;

	pthread_mutex_lock(&space->agent_lock);
	old_ring = space->ring;
	old_ring_fd = space->ring_fd;
	old_sock = space->sock;
	__atomic_store_n(&space->pid, attach->pid, __ATOMIC_RELAXED);
	__atomic_store_n(&space->uid, attach->uid, __ATOMIC_RELAXED);
	space->gid = attach->gid;
	space->ring = attach->ring;
	space->ring_fd = attach->ring_fd;
	space->layout = attach->layout;
	for (uint32_t i = 0; i < space->n_batches; i++)
		space->batches[i].seq = 0;
	space->unit->pid = attach->pid;
	space->unit->uid = attach->uid;
	space->unit->layout = attach->layout;
	attach->gen = ++space->agent_gen;
	__atomic_store_n(&space->sock, attach->sock, __ATOMIC_RELEASE);
	__atomic_store_n(&space->identified, true, __ATOMIC_RELEASE);
	__atomic_store_n(&space->agent_reason, UHMM_REASON_NONE, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&space->agent_lock);
	attach->ring = NULL;
	attach->ring_fd = attach->sock = -1;
	if (old_ring)
		munmap(old_ring, sizeof(*old_ring));
	if (old_ring_fd >= 0)
		close(old_ring_fd);
	if (old_sock >= 0)
		close(old_sock); /* of the agent before: at its end */
}

static bool send_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES], const int *uffd)
{
	struct uhmm_msg_child msg = { .h = { .type = UHMM_MSG_CHILD, .len = sizeof(msg) } };
	int err = -ENOTCONN;

	memcpy(msg.token, token, sizeof(msg.token));
	pthread_mutex_lock(&space->agent_lock);
	/* Also one that is to end keeps it for as long as it is there. */
	if (space->sock >= 0)
		err = wire_send(space->sock, &msg, sizeof(msg), uffd, uffd ? 1 : 0, MSG_DONTWAIT);
	pthread_mutex_unlock(&space->agent_lock);
	return err == 0;
}

bool agent_keep_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES], int uffd)
{
	return send_child(space, token, &uffd);
}



/* The space's own agent keeps its userfaultfd now, or its address space has ended. */
void agent_free_warden(struct space *space)
{
	struct space *warden;

	registry_lock();
	warden = space->warden;
	__atomic_store_n(&space->warden, NULL, __ATOMIC_RELAXED);
	registry_unlock();
	if (!warden)
		return;
	agent_forget_child(warden, space->token);
	space_unref(warden);
}

void agent_forget_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES])
{
	(void)send_child(space, token, NULL);
}

int agent_send_memory(const struct space *space, int sock)
{
	struct uhmm_msg msg = { .type = UHMM_MSG_MEMORY, .len = sizeof(msg) };

	return wire_send(sock, &msg, sizeof(msg), &space->peek_fd, 1, MSG_DONTWAIT);
}

int agent_send_slots(struct space *space)
{
	struct uhmm_msg msg = { .type = UHMM_MSG_SLOTS, .len = sizeof(msg) };
	int fd, err;

	if (!(space->store->tier->ops->flags & UHMM_BACKEND_NATIVE_CHARGE))
		return 0;
	fd = space->store->tier->ops->store_fd(space->store->backend_store);
	if (fd < 0)
		return fd;
	err = wire_send(space->sock, &msg, sizeof(msg), &fd, 1, MSG_DONTWAIT);
	close(fd);
	return err;
}

bool agent_is_sandboxed(const struct space *space)
{
	return space->ring &&
	       __atomic_load_n(&space->ring->flags, __ATOMIC_RELAXED) & UHMM_RING_SANDBOXED;
}

/* READY goes out before anything else that the agent may get: the client waits for it. */
static int attach_say_ready(const struct attach *attach)
{
	struct uhmm_msg ready = { .type = UHMM_MSG_READY, .len = sizeof(ready) };

	return wire_send(attach->sock, &ready, sizeof(ready), NULL, 0, MSG_DONTWAIT);
}

int agent_attach(struct space *space, struct attach *attach)
{
	bool is_new = !space->identified;
	int err = 0;

	if (space_has_agent(space))
		return -EBUSY;
	/* What the agent before had in hand lies in its staging, not in this one's. */
	object_agent_step(space);
	evict_abandon(space);
	if (evict_is_busy(space))
		return -EAGAIN;
	if (is_new)
		err = space_open_proc(space, attach->pid);
	if (err == 0)
		err = space_verify(space, attach->layout.staging_addr);
	if (err == 0)
		err = attach_say_ready(attach);
	if (err < 0)
		return err;
	agent_swap(space, attach);
	agent_free_warden(space);
	if (is_new && space->registered.n == 0)
		comeback_find_registered(space);
	if (agent_send_memory(space, space->sock) < 0 ||
	    (space->store && agent_send_slots(space) < 0))
		(void)agent_dismiss(space, attach->gen, UHMM_REASON_NO_AGENT, false);
	return 0;
}
