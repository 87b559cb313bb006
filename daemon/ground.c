/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registering private memory, and knowing of what is registered that it is. On the space's worker.
 *
 * What we know of the mappings is older than a REGISTER, and what is not registered is replaced
 * without an event. A REGISTER that ends amid what stands there by then splits it, for ever if both
 * parts are touched before the other is registered too, for the kernel joins no mappings whose
 * pages have different anon_vmas; and an mremap over both fails with EFAULT. So the ground is
 * registered on which a mapping stands: with the holes beside it, with what is alike and could be
 * one with what comes there, and with the holes behind that, up to where something else stands,
 * which has to go first. Few mappings, and no large ones: what is registered along has its first
 * touches by way of us, and until it is proven to be registered its events are not put in order.
 *
 * A MOVE does not look at its source: a page taken from a mapping that is not registered would read
 * zero. REGISTER passes over holes without a word, and a fresh mapping in such a hole raises no
 * event. So belief is not enough, see prove().
 */
#include "ground.h"

#include <errno.h>

#include "home.h"
#include "object.h"
#include "uffd.h"

/* What is registered along to either side: at most so many mappings, each of so many bytes. */
#define GROUND_MAPPINGS 4u
#define GROUND_BYTES ((uint64_t)16 << 20)

/* ---- what is there ---------------------------------------------------------------------- */

static bool is_whole_mapping(const struct mapping *m, uint64_t start, uint64_t end)
{
	return m->start == start && m->end == end && mapping_is_private_anonymous(m);
}

bool ground_is_mapping(const struct space *space, uint64_t start, uint64_t end)
{
	struct mapping m;

	return maps_query(space->maps_fd, start, &m) == 0 && is_whole_mapping(&m, start, end);
}

/* The end of a stack stays where it is. */
static bool is_stack(const struct space *space, const struct mapping *m)
{
	const struct mapping *known = maps_find(&space->maps, m->end - 1);

	return known && known->is_stack;
}

/* Could it be one with memory that is to be registered? */
static bool is_alike(const struct space *space, const struct mapping *m)
{
	struct mapping judged = *m;

	space_judge_mapping(space, &judged);
	return judged.reason == UHMM_REASON_NONE && mapping_is_private_anonymous(m) &&
	       !is_stack(space, m) && !ranges_find(&space->unmanaged, m->start);
}

static bool is_taken_along(const struct space *space, const struct mapping *m)
{
	return m->end - m->start <= GROUND_BYTES && is_alike(space, m);
}

/* The ground of the mapping at `start`, with at most `max` others to either side. Beyond *ground,
 * which holds that mapping, the maps say nothing of holes. */
static void widen(const struct space *space, const struct maps *maps, uint64_t start, uint32_t max,
		  struct range *ground)
{
	const struct mapping *low = maps_find(maps, start), *high = low;
	const struct mapping *first = maps->v, *last = maps->v + maps->n - 1;

	if (!low || !is_alike(space, low))
		return;
	for (uint32_t n = 0; n < max && low > first && is_taken_along(space, low - 1); n++)
		low--;
	for (uint32_t n = 0; n < max && high < last && is_taken_along(space, high + 1); n++)
		high++;
	if (low > first)
		ground->start = low[-1].end;
	else if (low->start < ground->start)
		ground->start = low->start;
	/* A stack grows down, and nothing lies in the kernel's half. */
	if (high < last && !is_stack(space, high + 1) && !(high[1].start >> 63))
		ground->end = high[1].start;
	else if (high->end > ground->end)
		ground->end = high->end;
}

static bool look(const struct space *space, const struct range *ground, struct maps *maps)
{
	/* And what touches it. */
	return maps_read_in(maps, space->maps_fd, ground->start - 1, ground->end + 1) == 0;
}

/* What is locked is filled at once, and stays: nothing is registered along. */
static bool has_locked(const struct space *space)
{
	return stats_get(&space->locked_kb) != 0;
}

/* As it is now, in space->maps_check. False: [start, end) is no whole mapping. */
static bool find_ground(struct space *space, uint64_t start, uint64_t end, struct range *ret)
{
	const struct mapping *m;

	*ret = (struct range){ start, end, 0 };
	if (start == space->layout.beacon_addr) { /* a part, for good */
		space->maps_check.n = 0;
		return true;
	}
	if (!has_locked(space))
		widen(space, &space->maps, start, GROUND_MAPPINGS, ret);
	if (!look(space, ret, &space->maps_check))
		return false;
	m = maps_find(&space->maps_check, start);
	if (!m || !is_whole_mapping(m, start, end))
		return false;
	if (!has_locked(space))
		widen(space, &space->maps_check, start, GROUND_MAPPINGS, ret);
	return true;
}

/* Do two meet at this edge that would be one if both were registered, or neither? */
static bool are_alike_at(const struct space *space, uint64_t edge, const struct mapping *below,
			 const struct mapping *above)
{
	return below->end == edge && above->start == edge && is_alike(space, below) &&
	       is_alike(space, above);
}

/* ---- registering ------------------------------------------------------------------------ */

static bool is_same(const struct range *a, const struct range *b)
{
	return a->start == b->start && a->end == b->end;
}

/* Of the ground of `wanted`, or of that itself. */
static enum uffd_result register_range(struct space *space, const struct range *range,
				       const struct range *wanted)
{
	enum uffd_result result = uffd_register(space->uffd, range->start,
						range->end - range->start, UFFD_REGISTER_MODE);

	space->gone |= result == UFFD_GONE;
	if (result == UFFD_ERROR && errno == EBUSY && range->start == wanted->start &&
	    range->end <= wanted->end)
		(void)ranges_add(&space->unmanaged, wanted->start, wanted->end,
				 UHMM_REASON_APP_UFFD);
	return result;
}

/* Another's cannot be registered, nor some special mappings: then rather less than all. */
static enum uffd_result register_ground(struct space *space, const struct range *wanted,
					struct range *ground)
{
	enum uffd_result result = register_range(space, ground, wanted);

	if (result != UFFD_OK && !space->gone && !is_same(ground, wanted)) {
		*ground = *wanted;
		widen(space, &space->maps_check, wanted->start, 0, ground);
		result = register_range(space, ground, wanted);
	}
	if (result != UFFD_OK && !space->gone && !is_same(ground, wanted)) {
		*ground = *wanted;
		result = register_range(space, ground, wanted);
	}
	/* Some special ones cannot be, though they look like any other (VM_DROPPABLE). */
	if (result == UFFD_NO_VMA && ground_is_mapping(space, wanted->start, wanted->end) &&
	    uffd_settled(space->uffd) == UFFD_OK)
		(void)ranges_add(&space->unmanaged, wanted->start, wanted->end, UHMM_REASON_DEVICE);
	return result;
}

/* ---- edges ------------------------------------------------------------------------------ */

/* When the ground was chosen? Then they are two by themselves. */
static bool were_alike_at(const struct space *space, uint64_t edge)
{
	const struct mapping *below = maps_find(&space->maps_check, edge - 1);
	const struct mapping *above = maps_find(&space->maps_check, edge);

	return below && above && are_alike_at(space, edge, below, above);
}

static bool is_split_at(const struct space *space, uint64_t edge, struct mapping *ret_below,
			struct mapping *ret_above)
{
	return maps_query(space->maps_fd, edge - 1, ret_below) == 0 &&
	       maps_query(space->maps_fd, edge, ret_above) == 0 &&
	       are_alike_at(space, edge, ret_below, ret_above);
}

/*
 * Was something else at an edge of the ground when that was chosen, and is alike now? Then it was
 * replaced, and what has come may be split there. The rest of it is registered at once, before
 * somebody touches both parts: that takes nothing from anybody, while to let go of the first part
 * would lose what may be away of it. Not with an event unread: the rest would not be known as
 * occupied before the next one.
 */
static void mend_splits(struct space *space, const struct range *wanted, struct range *ground)
{
	struct range whole = *ground;
	struct mapping below, above;

	if (!were_alike_at(space, ground->start) &&
	    is_split_at(space, ground->start, &below, &above))
		whole.start = below.start;
	if (!were_alike_at(space, ground->end) && is_split_at(space, ground->end, &below, &above))
		whole.end = above.end;
	if (!is_same(&whole, ground) && uffd_settled(space->uffd) == UFFD_OK &&
	    register_range(space, &whole, wanted) == UFFD_OK)
		*ground = whole;
}

/* ---- believing -------------------------------------------------------------------------- */

static struct range part_in(const struct mapping *m, const struct range *ground)
{
	return (struct range){ m->start > ground->start ? m->start : ground->start,
			       m->end < ground->end ? m->end : ground->end, 0 };
}

/* An object's that we serve may have grown there, without an event. */
static bool is_other(const struct space *space, const struct mapping *m)
{
	return !mapping_is_private_anonymous(m) &&
	       !(m->shared && object_of_space(space, m->dev, m->ino));
}

/* With us? Then to register it again changes nothing; another's is refused, and so is a hole. */
static bool is_ours(struct space *space, const struct range *part, const struct range *wanted)
{
	return register_range(space, part, wanted) == UFFD_OK;
}

/* What each mapping of the ground is like at its first page. What is not private memory cannot be
 * asked without an effect. */
static void ask_whether_registered(struct space *space, const struct range *wanted,
				   const struct range *ground)
{
	for (size_t i = 0; i < space->maps_check.n; i++) {
		struct mapping *m = &space->maps_check.v[i];
		struct range part = part_in(m, ground);

		m->registered = part.start < part.end &&
				(is_other(space, m) ||
				 (mapping_is_private_anonymous(m) &&
				  uffd_is_registered(space->uffd, part.start, space->page_size) ==
					  UFFD_OK)) &&
				is_ours(space, &part, wanted);
	}
}

/* At least all that is: whatever was seen there. */
static void note_registered(struct space *space, const struct maps *maps,
			    const struct range *ground)
{
	maps_for_each_in(m, maps, ground->start, ground->end) {
		struct range part = part_in(m, ground);

		if (mapping_is_private_anonymous(m))
			(void)ranges_add(&space->registered, part.start, part.end, 0);
	}
}

/* Until pick.c, in a settled moment, sees what there is. Too little would have something moved
 * there before what was there is seen to go, and its records dropped with that. */
static void note_occupied(struct space *space, const struct range *ground)
{
	struct range *assumed = &space->assumed;

	if (assumed->end == 0 || ground->start < assumed->start)
		assumed->start = ground->start;
	if (ground->end > assumed->end)
		assumed->end = ground->end;
	maps_for_each_in(m, &space->maps_check, ground->start, ground->end) {
		struct range part = part_in(m, ground);

		if (mapping_is_private_anonymous(m))
			(void)ranges_add(&space->occupied, part.start, part.end, 0);
	}
}

/* Has something been registered that is not private memory, or may have been? */
static void note_others(struct space *space, const struct range *ground, bool asked)
{
	maps_for_each_in(m, &space->maps_check, ground->start, ground->end)
		if (is_other(space, m) && (m->registered || !asked))
			space->has_others = true;
}

/* What was registered when asked is one mapping still: then it is certain. */
static void note_certain(struct space *space, const struct range *ground)
{
	maps_for_each_in(m, &space->maps_check, ground->start, ground->end) {
		struct range part = part_in(m, ground);
		const struct mapping *now = maps_find(&space->maps_now, part.start);

		if (m->registered && mapping_is_private_anonymous(m) && now &&
		    now->end >= part.end && mapping_is_private_anonymous(now) &&
		    ranges_cover(&space->registered, part.start, part.end) &&
		    ranges_add(&space->certain, part.start, part.end, 0) == 0)
			(void)ranges_add(&space->occupied, part.start, part.end, 0);
	}
}

/*
 * What of the ground, which was just registered, is registered with us? The kernel tells whether a
 * page is, but not with whom: for that its mapping is registered once more. So of each mapping that
 * was found to be registered something was so with us at that moment. It can have been replaced
 * since only with an event; and registered and fresh never join. So what is one mapping afterwards,
 * with no event unread after all that, is registered as a whole.
 */
static void prove(struct space *space, const struct range *wanted, const struct range *ground)
{
	bool looked = look(space, ground, &space->maps_check), settled;

	if (!looked)
		space->maps_check.n = 0;
	settled = uffd_settled(space->uffd) == UFFD_OK;
	if (settled)
		ask_whether_registered(space, wanted, ground);
	if (!look(space, ground, &space->maps_now)) {
		looked = false;
		space->maps_now.n = 0;
	}
	note_registered(space, &space->maps_check, ground);
	note_registered(space, &space->maps_now, ground);
	note_others(space, ground, settled);
	if (!looked) {
		space->has_others = true;
		(void)ranges_add(&space->registered, ground->start, ground->end, 0);
	}
	if (settled && uffd_settled(space->uffd) == UFFD_OK)
		note_certain(space, ground);
	if (!ranges_cover(&space->certain, wanted->start, wanted->end))
		space->maps_read_ns = 0; /* look again */
}

/* What has come there and is not for us to register: shared memory, or a private file. One that
 * is registered with us cannot have been replaced since without an event. */
static void let_go_of_others(struct space *space, const struct range *ground)
{
	const struct mapping *m;
	uint64_t at = ground->start;

	while ((m = maps_at_or_after(&space->maps_now, at)) && m->start < ground->end) {
		const struct mapping *before = maps_find(&space->maps_check, m->start);

		at = m->end;
		if (!is_other(space, m) || !before || !before->registered ||
		    before->dev != m->dev || before->ino != m->ino)
			continue;
		/* What stays is let go as soon as it is touched. */
		(void)home_unregister(space, m->start, m->end);
		space->maps_read_ns = 0;
	}
}

/* From the look in space->maps_check on nothing is certain until it is proven. */
static bool take_ground(struct space *space, const struct range *wanted, struct range *ground)
{
	enum uffd_result result = register_ground(space, wanted, ground);

	if (result == UFFD_OK && !has_locked(space))
		mend_splits(space, wanted, ground);
	/* Without memory it may have got half way. */
	if (result == UFFD_OK || result == UFFD_NO_MEM) {
		note_registered(space, &space->maps_check, ground);
		note_occupied(space, ground);
	}
	return result == UFFD_OK;
}

bool ground_register(struct space *space, uint64_t start, uint64_t end)
{
	const struct range wanted = { start, end, 0 };
	struct range ground = wanted;
	bool is_registered;

	if (ranges_cover(&space->certain, start, end))
		return true;
	/* What is registered while an event is unread is not certain, but raises events. */
	if (uffd_settled(space->uffd) != UFFD_OK)
		return false;
	if (!find_ground(space, start, end, &ground)) {
		space->maps_read_ns = 0; /* look again */
		return false;
	}
	is_registered = uffd_is_registered(space->uffd, start, space->page_size) == UFFD_OK;
	if (uffd_settled(space->uffd) != UFFD_OK)
		return false;
	if (is_registered) {
		ground = wanted; /* it is not replaced without an event */
	} else if (!take_ground(space, &wanted, &ground)) {
		space->maps_read_ns = 0; /* it was mapped when we looked; look again */
		return false;
	}
	prove(space, &wanted, &ground);
	let_go_of_others(space, &ground);
	__atomic_store_n(&space->registered_bytes, ranges_bytes(&space->registered),
			 __ATOMIC_RELAXED);
	return ranges_cover(&space->certain, start, end);
}
