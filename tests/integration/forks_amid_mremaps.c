/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves evicted memory on and on over three places, others fork. Each child was born
 * at some moment of that, and has the memory where it lay at that moment: whole, whatever order
 * the daemon heard of the moves and of the fork in. First with one piece of memory, then with two
 * that move onto the ground which the other has just left.
 */
#include <pthread.h>

#include "prog.h"

#define PLACES 3u
#define PIECES 2u
#define PAGES 10u
#define FORKERS 2u
#define SECONDS 5.0
/* Of the first piece; the next one's is one more. */
#define SEED 7u

static char *places[PLACES];
static unsigned int place_of[PIECES], n_pieces;
static size_t bytes;
static bool stop;
static unsigned int n_children;
static pthread_barrier_t ready;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

/* Which of the pieces lies there? A bit. */
static unsigned int piece_at(const char *addr)
{
	uint64_t first = *(const uint64_t *)(const void *)addr;
	unsigned int i = 0;

	while (i + 1 < n_pieces && first != pattern_word(SEED + i, 0))
		i++;
	pattern_check(addr, bytes, SEED + i);
	return 1u << i;
}

/* In the child: so many of the places are mapped, and nothing changes any more. */
static void look(void)
{
	unsigned int found = 0;

	for (unsigned int i = 0; i < PLACES; i++)
		if (msync(places[i], page_bytes(), MS_ASYNC) == 0)
			found |= piece_at(places[i]);
	_exit(found == (1u << n_pieces) - 1 ? 0 : 90 + (int)found);
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

static bool is_free(unsigned int place)
{
	for (unsigned int i = 0; i < n_pieces; i++)
		if (place_of[i] == place)
			return false;
	return true;
}

static void move_on(unsigned int piece)
{
	unsigned int from = place_of[piece], to = (from + 1) % PLACES;

	while (!is_free(to))
		to = (to + 1) % PLACES;
	CHECK(mremap(places[from], bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, places[to]) ==
	      places[to]);
	place_of[piece] = to;
}

static void map_piece(unsigned int piece)
{
	char *at = mmap(places[piece], bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK(at == places[piece]);
	place_of[piece] = piece;
	pattern_fill(at, bytes, SEED + piece);
}

/* With ground between, so that no two of them are one mapping. */
static void find_places(void)
{
	for (unsigned int i = 0; i < PLACES; i++)
		places[i] = map_private(2 * bytes);
	for (unsigned int i = 0; i < PLACES; i++)
		CHECK(munmap(places[i], 2 * bytes) == 0);
}

static void with_pieces(unsigned int n)
{
	double until = now_sec() + SECONDS;
	pthread_t threads[FORKERS];

	n_pieces = n;
	n_children = 0;
	stop = false;
	CHECK(pthread_barrier_init(&ready, NULL, FORKERS + 1) == 0);
	for (uintptr_t i = 0; i < FORKERS; i++)
		CHECK(pthread_create(&threads[i], NULL, fork_on, NULL) == 0);
	find_places();
	for (unsigned int i = 0; i < n; i++)
		map_piece(i);
	(void)pthread_barrier_wait(&ready);
	for (unsigned int step = 0; now_sec() < until; step++) {
		for (unsigned int i = 0; step % 16 == 0 && i < n; i++)
			ask_away(places[place_of[i]], bytes);
		move_on(step % n);
		/* Touched now and then, so that what leaves again is in other slots. */
		if (step % 64 == 63)
			pattern_check(places[place_of[0]], bytes, SEED);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < FORKERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	for (unsigned int i = 0; i < n; i++) {
		pattern_check(places[place_of[i]], bytes, SEED + i);
		CHECK(munmap(places[place_of[i]], bytes) == 0);
	}
	CHECK(n_children > 20);
}

int main(void)
{
	bytes = PAGES * page_bytes();
	with_pieces(1);
	with_pieces(PIECES);
	return 0;
}
