/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "fake_tier.h"
#include "fixture.h"
#include "keeper.h"

static struct space space;
static bool registry_was_free;

static void *take_registry(void *arg)
{
	registry_lock();
	__atomic_store_n((bool *)arg, true, __ATOMIC_RELAXED);
	registry_unlock();
	return NULL;
}

/* A backend that takes its time: can others look at the registry meanwhile? */
static void close_slowly(void)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	static bool taken;
	pthread_t other;

	ck_assert_int_eq(pthread_create(&other, NULL, take_registry, &taken), 0);
	for (int i = 0; i < 1000 && !__atomic_load_n(&taken, __ATOMIC_RELAXED); i++)
		nanosleep(&nap, NULL);
	registry_was_free = __atomic_load_n(&taken, __ATOMIC_RELAXED);
	if (registry_was_free)
		pthread_join(other, NULL);
}

/* A space with a store that died on the fault path. */
static void setup(void)
{
	struct store *store;
	struct slots_run run;
	uint32_t taken;

	ck_assert_int_eq(family_new((uint64_t)getpid(), fixture_dir, 5000 * ARENA_UNIT,
				    &space.family), 0);
	ck_assert_int_eq(family_add_store(space.family, &fake_tier_handle, 1, &store), 0);
	ck_assert_int_eq(slots_grow(&space.family->arena, &store->unit->slots, 8), 0);
	ck_assert_uint_eq(slots_alloc(&space.family->arena, &store->unit->slots, 1, &run, 1,
				      &taken), 1);
	family_retire_store(space.family, store);
	ck_assert(!family_has_dead(space.family));
	family_slot_unref(space.family, 1, run.slot);
	ck_assert(family_has_dead(space.family));
	space.n_refs = 1;
	registry_lock();
	list_add_tail(&registry_spaces, &space.link);
	registry_unlock();
}

static void teardown(void)
{
	space.family = family_unref(space.family);
}

START_TEST(stores_are_closed_without_the_registrys_lock)
{
	fake_tier.on_close = close_slowly;
	keeper_reap();
	ck_assert_int_eq(fake_tier.n_open, 0);
	ck_assert(registry_was_free);
	ck_assert(!family_has_dead(space.family));
	ck_assert_uint_eq(space.n_refs, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("keeper");
	TCase *tcase = tcase_create("keeper");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, stores_are_closed_without_the_registrys_lock);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
