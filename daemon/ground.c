/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registering private memory, and knowing of what is registered that it is. On the space's worker.
 */
#include "ground.h"

#include <errno.h>

#include "home.h"
#include "uffd.h"

static bool holds_other(const struct maps *maps, uint64_t start, uint64_t end)
{
	maps_for_each_in(m, maps, start, end)
		if (!mapping_is_private_anonymous(m))
			return true;
	return false;
}

/* A range and what touches it, each as the kernel has it now; all zero: nothing. */
struct place {
	struct mapping at, below, above;
};

static bool look_at(const struct space *space, uint64_t addr, struct mapping *ret)
{
	int err = maps_query(space->maps_fd, addr, ret);

	if (err == -ENOENT)
		*ret = (struct mapping){ 0 };
	return err == 0 || err == -ENOENT;
}

static bool look_around(const struct space *space, uint64_t start, uint64_t end, struct place *ret)
{
	return look_at(space, start - 1, &ret->below) && look_at(space, end, &ret->above) &&
	       look_at(space, start, &ret->at);
}

/* Is it a mapping, the whole of it, at this moment? What we know of the mappings is older than
 * the wish to register one, and threads map and unmap all the time: a REGISTER of what was one
 * would split what stands there now, and an mremap over both halves fail with EFAULT. */
static bool is_whole_mapping(const struct mapping *m, uint64_t start, uint64_t end)
{
	return m->start == start && m->end == end && mapping_is_private_anonymous(m);
}

/* Can it be that these two were one until one of them was registered? */
static bool could_be_one(const struct mapping *low, const struct mapping *high)
{
	return low->end && low->end == high->start && low->writable && high->writable &&
	       mapping_is_private_anonymous(low) && mapping_is_private_anonymous(high);
}

/* Is all of [start, end), which was just registered, really registered? What we knew of the
 * mappings is older than the REGISTER, which passes over holes without a word, and a fresh
 * mapping in such a hole raises no event. But registered and fresh never join: one mapping
 * over all of it, and no event unread, means that it is. Nor does a mapping raise one that was
 * replaced before it was registered: what has come may be shared memory, which is not for us to
 * register, and has to be served as what it is until it is let go. */
static bool registered_is_certain(struct space *space, uint64_t start, uint64_t end)
{
	struct mapping m;
	bool is_one, other = false;

	if (!look_at(space, start, &m))
		return false;
	is_one = m.end >= end && mapping_is_private_anonymous(&m);
	if (!is_one) {
		if (maps_read(&space->maps_check, space->maps_fd) < 0)
			return false;
		other = holds_other(&space->maps_check, start, end);
	}
	space->has_others |= other;
	if (uffd_settled(space->uffd) != UFFD_OK)
		return false;
	if (other) {
		(void)home_unregister(space, start, end);
		space->maps_read_ns = 0;
		return false;
	}
	return is_one;
}

static bool make_certain(struct space *space, uint64_t start, uint64_t end)
{
	return registered_is_certain(space, start, end) &&
	       ranges_add(&space->certain, start, end, 0) == 0 &&
	       ranges_add(&space->occupied, start, end, 0) == 0;
}

static void register_too(struct space *space, struct mapping *m)
{
	space_judge_mapping(space, m);
	/* Not with an event unread: it would not be known as occupied before the next one. */
	if (m->reason == UHMM_REASON_NONE && uffd_settled(space->uffd) == UFFD_OK &&
	    uffd_register(space->uffd, m->start, m->end - m->start, UFFD_REGISTER_MODE) ==
		    UFFD_OK &&
	    ranges_add(&space->registered, m->start, m->end, 0) == 0)
		(void)make_certain(space, m->start, m->end);
}

/*
 * A mapping that is not registered can be replaced by a larger one without an event, also between
 * the look at it and the REGISTER, which then has split what is there. Its other parts are
 * registered as well, and so are one with it again: that takes nothing from anybody, while to let
 * go of the first one would lose what may be away of it.
 */
static void mend_split(struct space *space, const struct place *before, struct place *now)
{
	/* What is locked is filled at once, and stays. */
	if (stats_get(&space->locked_kb))
		return;
	if (could_be_one(&now->below, &now->at) && !could_be_one(&before->below, &before->at))
		register_too(space, &now->below);
	if (could_be_one(&now->at, &now->above) && !could_be_one(&before->at, &before->above))
		register_too(space, &now->above);
}

bool ground_register(struct space *space, uint64_t start, uint64_t end)
{
	bool is_beacon = start == space->layout.beacon_addr; /* a part, for good */
	bool certain;
	struct place before, now;
	enum uffd_result result;

	/* A MOVE does not look at its source: a page taken from a mapping that is not registered
	 * would read zero. So belief is not enough here. */
	if (ranges_cover(&space->certain, start, end))
		return true;
	if (!is_beacon && (!look_around(space, start, end, &before) ||
			   !is_whole_mapping(&before.at, start, end))) {
		space->maps_read_ns = 0; /* look again */
		return false;
	}
	/* What is registered while an event is unread is not certain, but raises events. */
	if (uffd_settled(space->uffd) != UFFD_OK)
		return false;
	result = uffd_register(space->uffd, start, end - start, UFFD_REGISTER_MODE);
	if (result == UFFD_OK && ranges_add(&space->registered, start, end, 0) == 0) {
		/* Uncertain also means that it may have come after a change whose event is unread. */
		certain = make_certain(space, start, end);
		if (!is_beacon && look_around(space, start, end, &now))
			mend_split(space, &before, &now);
		__atomic_store_n(&space->registered_bytes, ranges_bytes(&space->registered),
				 __ATOMIC_RELAXED);
		return certain;
	}
	if (result == UFFD_GONE)
		space->gone = true;
	else if (result == UFFD_ERROR && errno == EBUSY)
		(void)ranges_add(&space->unmanaged, start, end, UHMM_REASON_APP_UFFD);
	else
		space->maps_read_ns = 0; /* it was mapped when we looked; look again */
	return false;
}

bool ground_is_mapping(const struct space *space, uint64_t start, uint64_t end)
{
	struct mapping m;

	return look_at(space, start, &m) && is_whole_mapping(&m, start, end);
}
