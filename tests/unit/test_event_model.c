/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random programs of several threads that move, unmap and map memory. Each call changes the address
 * space at once, and its events are queued and read some time later, while the other threads go on.
 * Where it is known whose each event is, no page may end with the record of another; a record may
 * be missing, but hardly ever is.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "event.h"
#include "fault.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "uffd.h"

#define PROGRAMS 20000
#define THREADS 3
#define CALLS 4
/* Places far apart, of a few pages each. */
#define PLACES 6
#define PLACE_PAGES 2
#define PAGES (PLACES * PLACE_PAGES)
#define CALL_EVENTS 4
#define EVENTS (THREADS * CALLS * CALL_EVENTS)
/* Programs in a thousand that may lose a page. */
#define LOSING 10

enum ground { GROUND_FREE, GROUND_FRESH, GROUND_REGISTERED };

struct page {
	enum ground ground;
	int origin; /* whose bytes are here, if they are away: a page in the beginning; -1: none */
};

struct event {
	uint8_t type;
	int from, to, n; /* pages */
	int thread;
};

struct thread {
	struct event events[CALL_EVENTS]; /* of its last call */
	int n_events, at;
	bool waits; /* until the event that is queued has been read */
	int calls_left;
};

static struct space space;
static struct space_unit unit;
static struct page_rec recs[PAGES];
static uint64_t random_state;

static struct page pages[PAGES];
static int owners[PLACES];
static struct thread threads[THREADS];
static struct event queue[EVENTS];
static int n_queued, n_read;

bool __wrap_fault_read_batch(struct space *of);
bool __wrap_fault_read_batch(struct space *of)
{
	(void)of;
	return false;
}

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return UFFD_OK;
}

static int chance(int n)
{
	return (int)(fixture_random(&random_state) % (unsigned int)n);
}

static uint64_t index_of(int page)
{
	return 0x10000ull * (unsigned int)(page / PLACE_PAGES + 1) +
	       (unsigned int)(page % PLACE_PAGES);
}

/* ---- the program ------------------------------------------------------------------------- */

static bool is_free(int place)
{
	bool free = true;

	for (int i = 0; i < PLACE_PAGES; i++)
		free &= pages[place * PLACE_PAGES + i].ground == GROUND_FREE;
	return free;
}

/* One of the free places, or one of those that the thread has; -1: there is none. */
static int choose_place(bool free, int thread)
{
	int found = -1, n = 0;

	for (int i = 0; i < PLACES; i++)
		if (is_free(i) == free && (free || owners[i] == thread) && chance(++n) == 0)
			found = i;
	return found;
}

static int count_registered(int page, int n)
{
	int found = 0;

	for (int i = 0; i < n; i++)
		found += pages[page + i].ground == GROUND_REGISTERED;
	return found;
}

static void clear(int page, int n, enum ground ground)
{
	for (int i = 0; i < n; i++)
		pages[page + i] = (struct page){ ground, -1 };
}

static void raise_event(int thread, uint8_t type, int from, int to, int n)
{
	struct thread *t = &threads[thread];

	t->events[t->n_events++] = (struct event){ type, from, to, n, thread };
}

/* munmap, or what a MAP_FIXED does first. */
static void unmap(int thread, int page, int n, enum ground after)
{
	if (count_registered(page, n))
		raise_event(thread, UFFD_EVENT_UNMAP, page, 0, n);
	clear(page, n, after);
}

static void move(int thread, int page, int n)
{
	bool stays = chance(5) == 0, shrinks = !stays && n > 1 && chance(6) == 0;
	int place = choose_place(chance(3) != 0, thread), to = place * PLACE_PAGES,
	    kept = n - shrinks;

	if (place < 0 || to == page || count_registered(page, n) < n)
		return;
	unmap(thread, to, kept, GROUND_FREE);
	raise_event(thread, UFFD_EVENT_REMAP, page, to, kept);
	memcpy(&pages[to], &pages[page], (size_t)kept * sizeof(pages[0]));
	clear(page, kept, GROUND_REGISTERED);
	if (shrinks)
		unmap(thread, page + kept, n - kept, GROUND_FREE);
	if (!stays)
		unmap(thread, page, kept, GROUND_FREE);
	owners[place] = thread;
}

static void call(int thread)
{
	int place = choose_place(false, thread), n = 1 + (chance(5) != 0), what = chance(10);

	threads[thread].n_events = threads[thread].at = 0;
	if (what == 0) {
		place = choose_place(true, thread);
		if (place >= 0) {
			clear(place * PLACE_PAGES, PLACE_PAGES, GROUND_FRESH);
			owners[place] = thread;
		}
	} else if (place >= 0 && what < 7) {
		move(thread, place * PLACE_PAGES, n);
	} else if (place >= 0) {
		unmap(thread, place * PLACE_PAGES, n, what == 7 ? GROUND_FRESH : GROUND_FREE);
	}
}

/* One step of the thread: the next event is queued, or the next call made. */
static void step(int thread)
{
	struct thread *t = &threads[thread];

	if (t->waits)
		return;
	if (t->at < t->n_events) {
		queue[n_queued++] = t->events[t->at++];
		t->waits = true;
	} else if (t->calls_left) {
		t->calls_left--;
		call(thread);
	}
}

static bool goes_on(void)
{
	bool more = n_read < n_queued;

	for (int i = 0; i < THREADS; i++)
		more |= threads[i].calls_left || threads[i].at < threads[i].n_events;
	return more;
}

/* ---- what is heard of it ----------------------------------------------------------------- */

static void hear(const struct event *event)
{
	uint32_t room;
	struct uffd_msg *msg = event_log_room(&space.log, &room);
	uint64_t from = space_addr(&space, index_of(event->from));
	uint64_t bytes = (uint64_t)event->n * space.page_size;

	fixture_must(msg, "no room");
	msg->event = event->type;
	msg->LOG_WHO = (uint8_t)(event->thread + 1);
	if (event->type == UFFD_EVENT_REMAP) {
		msg->arg.remap.from = from;
		msg->arg.remap.to = space_addr(&space, index_of(event->to));
		msg->arg.remap.len = bytes;
	} else {
		msg->arg.remove.start = from;
		msg->arg.remove.end = from + bytes;
	}
	event_log_add(&space.log, 1);
	space.n_events++;
}

static void begin(void)
{
	(void)pagemap_drop(&space.map, 0, UINT64_MAX);
	ranges_clear(&space.occupied);
	memset(threads, 0, sizeof(threads));
	n_queued = n_read = 0;
	for (int i = 0; i < THREADS; i++)
		threads[i].calls_left = CALLS;
	for (int i = 0; i < PLACES; i++)
		owners[i] = chance(THREADS);
	for (int i = 0; i < PAGES; i++) {
		uint64_t addr = space_addr(&space, index_of(i));

		pages[i] = (struct page){ GROUND_FREE, -1 };
		/* The second page of a place only where the first is. */
		if (chance(3) == 0 || (i % PLACE_PAGES && pages[i - 1].ground == GROUND_FREE))
			continue;
		pages[i] = (struct page){ GROUND_REGISTERED, i };
		recs[i] = check_stored(space.family);
		fixture_must(pagemap_set(&space.map, index_of(i), recs[i]) == 0, "page %d", i);
		fixture_must(ranges_add(&space.occupied, addr, addr + space.page_size, 0) == 0,
			     "page %d", i);
	}
}

/* Returns whether a page has lost its record. */
static bool judge(uint64_t seed)
{
	bool lost = false;

	for (int i = 0; i < PAGES; i++) {
		struct page_rec has = pagemap_get(&space.map, index_of(i));

		/* What is not away has no marker, and a record that is left there is stale. */
		if (pages[i].origin < 0)
			continue;
		fixture_must(has.v == 0 || has.v == recs[pages[i].origin].v,
			     "seed %llu: page %d has another's record", (unsigned long long)seed,
			     i);
		lost |= has.v == 0;
	}
	return lost;
}

static bool one_program(uint64_t seed)
{
	random_state = seed * 0x9e3779b97f4a7c15ull + 1;
	begin();
	while (goes_on()) {
		int who = chance(THREADS + 1);

		if (who < THREADS) {
			step(who);
		} else if (n_read < n_queued) {
			threads[queue[n_read].thread].waits = false;
			hear(&queue[n_read++]);
		}
	}
	event_settle(&space);
	return judge(seed);
}

START_TEST(no_page_ends_with_the_record_of_another)
{
	uint64_t seed = fixture_seed();
	int n_lost = 0;

	space = (struct space){ .uffd = -1, .unit = &unit };
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.family = check_family(64, 2 * PAGES);
	ck_assert_int_eq(pagemap_init(&space.map, space.family), 0);
	ck_assert_int_eq(event_log_init(&space.log, &space.family->arena, &unit.log), 0);
	for (int i = 0; i < PROGRAMS; i++)
		n_lost += one_program(seed + (unsigned int)i);
	printf("%d programs of %d lost a page\n", n_lost, PROGRAMS);
	ck_assert_int_lt(n_lost, PROGRAMS / 1000 * LOSING);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("event_model");
	TCase *tcase = tcase_create("model");

	tcase_set_timeout(tcase, 100);
	tcase_add_test(tcase, no_page_ends_with_the_record_of_another);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
