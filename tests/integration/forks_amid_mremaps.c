/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves evicted memory on and on over three places, others fork. Each child was born
 * at some moment of that, and has the memory where it lay at that moment: whole, whatever order
 * the daemon heard of the moves and of the fork in.
 */
#include <pthread.h>

#include "prog.h"

#define PLACES 3u
#define PAGES 12u
#define FORKERS 2u
#define SECONDS 6.0

static char *places[PLACES];
static size_t bytes;
static bool stop;
static pthread_barrier_t ready;
static unsigned int n_found;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

/* In the child: exactly one of the places is mapped, and nothing changes any more. */
static void look(void)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < PLACES; i++) {
		if (msync(places[i], page_bytes(), MS_ASYNC))
			continue;
		found++;
		pattern_check(places[i], bytes, 7);
	}
	_exit(found == 1 ? 0 : 90 + (int)found);
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
		__atomic_add_fetch(&n_found, 1, __ATOMIC_RELAXED);
	}
	return arg;
}

static char *to_next_place(char *at, unsigned int place)
{
	char *got = mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, places[place]);

	CHECK(got == places[place]);
	return got;
}

int main(void)
{
	pthread_t threads[FORKERS];
	double until = now_sec() + SECONDS;
	char *at;

	bytes = PAGES * page_bytes();
	CHECK(pthread_barrier_init(&ready, NULL, FORKERS + 1) == 0);
	for (uintptr_t i = 0; i < FORKERS; i++)
		CHECK(pthread_create(&threads[i], NULL, fork_on, NULL) == 0);
	/* With ground between, so that no two of them are one mapping. */
	for (unsigned int i = 0; i < PLACES; i++)
		places[i] = map_private(2 * bytes);
	for (unsigned int i = 0; i < PLACES; i++)
		CHECK(munmap(places[i], 2 * bytes) == 0);
	at = mmap(places[0], bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(at == places[0]);
	pattern_fill(at, bytes, 7);
	(void)pthread_barrier_wait(&ready);
	for (unsigned int i = 0; now_sec() < until; i++) {
		unsigned int place = i % PLACES;

		ask_away(at, bytes);
		at = to_next_place(at, (place + 1) % PLACES);
		at = to_next_place(at, (place + 2) % PLACES);
		at = to_next_place(at, place);
		at = to_next_place(at, (place + 1) % PLACES);
		if (i % 8 == 0)
			pattern_check(at, bytes, 7);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < FORKERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	pattern_check(at, bytes, 7);
	CHECK(n_found > 50);
	return 0;
}
