/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Thousands of threads come and go while their stacks are asked to leave: the
 * kernel clears the tid word of an exiting thread without raising a fault, so a
 * control block that was away would hang pthread_join.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "prog.h"

#define STACK (256 * 1024)
#define AT_ONCE 16
#define ROUNDS 200

static char *stacks;
static atomic_bool stop;
static __thread uint64_t local[64]; /* in the control block's pages */

/* Out of line: gcc 12 folds the pattern's constant into the offset from the
 * thread pointer, and the linker refuses that. */
__attribute__((noinline)) static uint64_t *local_words(void)
{
	return local;
}

static void *short_run(void *arg)
{
	uint64_t frame[256], seed = (uintptr_t)arg;

	pattern_fill(frame, sizeof(frame), seed);
	pattern_fill(local_words(), sizeof(local), seed + 1);
	sched_yield();
	if (!pattern_holds(frame, sizeof(frame), seed, 0) ||
	    !pattern_holds(local_words(), sizeof(local), seed + 1, 0))
		prog_fail("thread %llu: its stack or thread-local memory changed",
			  (unsigned long long)seed);
	return arg;
}

static void *evict_run(void *arg)
{
	struct uhmm *handle = handle_open();

	while (!atomic_load(&stop)) {
		nudge_away(handle, stacks, STACK * AT_ONCE);
		usleep(200);
	}
	uhmm_close(handle);
	return arg;
}

static void round_once(uintptr_t round)
{
	pthread_t threads[AT_ONCE];

	for (uintptr_t i = 0; i < AT_ONCE; i++) {
		uintptr_t seed = round * AT_ONCE + i;
		pthread_attr_t attr;

		CHECK(pthread_attr_init(&attr) == 0);
		if (i % 2) /* the others: from the C library's cache */
			CHECK(pthread_attr_setstack(&attr, stacks + i * STACK, STACK) == 0);
		CHECK(pthread_create(&threads[i], &attr, short_run, (void *)seed) == 0);
		pthread_attr_destroy(&attr);
	}
	for (uintptr_t i = 0; i < AT_ONCE; i++) {
		void *result = NULL;

		CHECK(pthread_join(threads[i], &result) == 0);
		CHECK((uintptr_t)result == round * AT_ONCE + i);
	}
}

int main(void)
{
	pthread_t evictor;

	stacks = map_private(STACK * AT_ONCE);
	pattern_fill(stacks, STACK * AT_ONCE, 1);
	if (managed())
		CHECK(pthread_create(&evictor, NULL, evict_run, NULL) == 0);
	for (uintptr_t round = 0; round < ROUNDS; round++)
		round_once(round);
	atomic_store(&stop, true);
	if (managed())
		CHECK(pthread_join(evictor, NULL) == 0);
	return 0;
}
