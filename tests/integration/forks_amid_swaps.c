/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves two pieces of evicted memory on and on over three places, each onto the ground
 * that the other has just left; others fork. Each child was born at some moment of that, and has
 * both pieces, whole, where they lay at that moment.
 */
#include <pthread.h>

#include "prog.h"

#define PLACES 3u
#define PAGES 8u
#define FORKERS 2u
#define SECONDS 6.0

static char *places[PLACES];
static size_t bytes;
static bool stop;
static unsigned int n_children;
static pthread_barrier_t ready;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

/* Which of the two pieces lies there? */
static uint64_t piece_at(const char *addr)
{
	uint64_t seed = *(const uint64_t *)(const void *)addr == pattern_word(7, 0) ? 7 : 8;

	pattern_check(addr, bytes, seed);
	return seed;
}

/* In the child: two of the places are mapped, and nothing changes any more. */
static void look(void)
{
	uint64_t found = 0;

	for (unsigned int i = 0; i < PLACES; i++)
		if (msync(places[i], page_bytes(), MS_ASYNC) == 0)
			found += piece_at(places[i]);
	/* In the middle of a move onto the other's ground there may be one. */
	_exit(found == 7 + 8 ? 0 : 90 + (int)found);
}

static void *fork_on(void *arg)
{
	(void)pthread_barrier_wait(&ready);
	while (!stopped()) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			look();
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
		if (status)
			prog_fail("a child ended with status %#x", (unsigned int)status);
		__atomic_add_fetch(&n_children, 1, __ATOMIC_RELAXED);
	}
	return arg;
}

static void move(unsigned int *place, unsigned int to)
{
	CHECK(mremap(places[*place], bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, places[to]) ==
	      places[to]);
	*place = to;
}

static void map_piece(unsigned int place, uint64_t seed)
{
	char *at = mmap(places[place], bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK(at == places[place]);
	pattern_fill(at, bytes, seed);
}

int main(void)
{
	unsigned int x = 0, y = 1, free_place = 2;
	double until = now_sec() + SECONDS;
	pthread_t threads[FORKERS];

	bytes = PAGES * page_bytes();
	CHECK(pthread_barrier_init(&ready, NULL, FORKERS + 1) == 0);
	for (uintptr_t i = 0; i < FORKERS; i++)
		CHECK(pthread_create(&threads[i], NULL, fork_on, NULL) == 0);
	/* With ground between, so that no two of them are one mapping. */
	for (unsigned int i = 0; i < PLACES; i++)
		places[i] = map_private(2 * bytes);
	for (unsigned int i = 0; i < PLACES; i++)
		CHECK(munmap(places[i], 2 * bytes) == 0);
	map_piece(x, 7);
	map_piece(y, 8);
	(void)pthread_barrier_wait(&ready);
	for (unsigned int i = 0; now_sec() < until; i++) {
		unsigned int *who = i % 2 ? &x : &y, left = *who;

		if (i % 16 == 0) {
			ask_away(places[x], bytes);
			ask_away(places[y], bytes);
		}
		move(who, free_place);
		free_place = left;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < FORKERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	pattern_check(places[x], bytes, 7);
	pattern_check(places[y], bytes, 8);
	CHECK(n_children > 50);
	return 0;
}
