/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves the first half of its memory away and gives the second half up, in one
 * mremap: the kernel tells of the move, waits until that was read, and only then tells of the
 * half. Another thread moves evicted memory onto it as soon as it is free, and so it is heard
 * of before the half was.
 */
#include <pthread.h>

#include "prog.h"

#define ROUNDS 400u
#define BYTES (16 * page_bytes())

struct round {
	char *half;
	char *memory;
	pthread_barrier_t barrier;
};

static void *mover(void *arg)
{
	struct round *round = arg;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		(void)pthread_barrier_wait(&round->barrier);
		while (msync(round->half, page_bytes(), MS_ASYNC) == 0)
			;
		CHECK(mremap(round->memory, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
			     round->half) == round->half);
		(void)pthread_barrier_wait(&round->barrier);
	}
	return NULL;
}

int main(void)
{
	struct round round;
	pthread_t thread;

	CHECK(pthread_barrier_init(&round.barrier, NULL, 2) == 0);
	CHECK(pthread_create(&thread, NULL, mover, &round) == 0);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		char *ground = map_private(2 * BYTES), *other = map_private(BYTES);

		/* Registered, for it was away, and all home. */
		pattern_fill(ground, 2 * BYTES, 1);
		send_away(ground, 2 * BYTES);
		pattern_check(ground, 2 * BYTES, 1);
		round.half = ground + BYTES;
		round.memory = map_private(BYTES);
		pattern_fill(round.memory, BYTES, 2 + i);
		send_away(round.memory, BYTES);
		(void)pthread_barrier_wait(&round.barrier);
		CHECK(mremap(ground, 2 * BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, other) ==
		      other);
		(void)pthread_barrier_wait(&round.barrier);
		pattern_check(round.half, BYTES, 2 + i);
		pattern_check(other, BYTES, 1);
		CHECK(munmap(round.half, BYTES) == 0);
		CHECK(munmap(other, BYTES) == 0);
	}
	CHECK(pthread_join(thread, NULL) == 0);
	return 0;
}
