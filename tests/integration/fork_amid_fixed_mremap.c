/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves A onto B, and both are away; another forks. The child has either both, or A's
 * bytes at B and nothing at A. So it is with a neighbour that touches A from below (argument
 * "below"), and with one that lies behind a hole and grows to where A was before the fork
 * ("grows"): A's place is mapped then, and the child is born after.
 */
#include <pthread.h>

#include "prog.h"

#define SECONDS 6.0
#define SPIN 20000u
#define NUDGES 50
#define MOVED 10

static char *a, *b, *neighbour;
static size_t len;
static bool grows;
static int wanted, done, grown; /* rounds; atomic */

/* Waits for the next round; false: there is none. */
static bool next_round(int round)
{
	int now;

	do
		now = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE);
	while (now >= 0 && now < round);
	return now >= 0;
}

static void *mover(void *arg)
{
	for (int round = 1; next_round(round); round++) {
		CHECK(mremap(a, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, b) == b);
		__atomic_store_n(&done, round, __ATOMIC_RELEASE);
	}
	return arg;
}

/* Over the hole and A's place, as soon as that is free. */
static void *grower(void *arg)
{
	for (int round = 1; next_round(round); round++) {
		while (mremap(neighbour, len, 3 * len, 0) != neighbour)
			CHECK(errno == ENOMEM);
		__atomic_store_n(&grown, round, __ATOMIC_RELEASE);
	}
	return arg;
}

static void fill(char *at, uint64_t seed)
{
	CHECK(mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == at);
	pattern_fill(at, len, seed);
}

static bool is_mapped(const char *at)
{
	return msync((void *)(uintptr_t)at, page_bytes(), MS_ASYNC) == 0;
}

static void look(uint64_t seed)
{
	if (grows || !is_mapped(a)) {
		pattern_check(b, len, seed);
		_exit(MOVED);
	}
	pattern_check(a, len, seed);
	/* Between the two nothing is there. */
	if (is_mapped(b))
		pattern_check(b, len, seed + 1);
	_exit(0);
}

/* Returns whether the child was born after the move. */
static bool one_round(struct uhmm *handle, int round, uint64_t *random)
{
	uint64_t seed = 2 * (uint64_t)round;
	int status = 0;
	pid_t pid;

	fill(a, seed);
	fill(b, seed + 1);
	for (int i = 0; handle && i < NUDGES && present_pages(a, len) + present_pages(b, len); i++) {
		nudge_away(handle, a, len);
		nudge_away(handle, b, len);
	}
	__atomic_store_n(&wanted, round, __ATOMIC_RELEASE);
	while (grows && __atomic_load_n(&grown, __ATOMIC_ACQUIRE) != round)
		;
	for (volatile uint64_t spin = random_next(random) % SPIN; spin; spin--)
		;
	pid = fork();
	if (pid == 0)
		look(seed);
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == MOVED);
	while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) != round)
		;
	pattern_check(b, len, seed);
	if (grows)
		CHECK(munmap(neighbour + len, 2 * len) == 0);
	return WEXITSTATUS(status) == MOVED;
}

static void place_neighbour(const char *kind)
{
	grows = strcmp(kind, "grows") == 0;
	CHECK(grows || strcmp(kind, "below") == 0);
	neighbour = a - (grows ? 2 : 1) * len;
	if (grows)
		CHECK(munmap(neighbour + len, len) == 0);
	CHECK(mmap(neighbour, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == neighbour);
	pattern_fill(neighbour, len, 1);
}

int main(int argc, char **argv)
{
	struct uhmm *handle = managed() ? handle_open() : NULL;
	double until = now_sec() + SECONDS;
	unsigned int n[2] = { 0, 0 };
	uint64_t random = 88172645463325252u;
	pthread_t thread, growing;

	len = 16 * page_bytes();
	a = mmap(NULL, 10 * len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(a != MAP_FAILED);
	/* Apart from one another and from all else. */
	a += 2 * len;
	b = a + 4 * len;
	if (argc > 1)
		place_neighbour(argv[1]);
	CHECK(!grows || pthread_create(&growing, NULL, grower, NULL) == 0);
	CHECK(pthread_create(&thread, NULL, mover, NULL) == 0);
	for (int round = 1; now_sec() < until; round++)
		n[one_round(handle, round, &random)]++;
	__atomic_store_n(&wanted, -1, __ATOMIC_RELEASE);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(!grows || pthread_join(growing, NULL) == 0);
	uhmm_close(handle);
	fprintf(stderr, "forks before the move: %u, after: %u\n", n[0], n[1]);
	return 0;
}
