/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves A onto B, and both are away; another forks. The child has either both, or A's
 * bytes at B and nothing at A.
 */
#include <pthread.h>

#include "prog.h"

#define SECONDS 6.0
#define SPIN 20000u
#define NUDGES 50
#define MOVED 10

static char *a, *b;
static size_t len;
static int wanted, done; /* rounds; atomic */

static void *mover(void *arg)
{
	for (int round = 1;; round++) {
		int now;

		do
			now = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE);
		while (now >= 0 && now < round);
		if (now < 0)
			return arg;
		CHECK(mremap(a, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, b) == b);
		__atomic_store_n(&done, round, __ATOMIC_RELEASE);
	}
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
	if (!is_mapped(a)) {
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
	return WEXITSTATUS(status) == MOVED;
}

int main(void)
{
	struct uhmm *handle = managed() ? handle_open() : NULL;
	double until = now_sec() + SECONDS;
	unsigned int n[2] = { 0, 0 };
	uint64_t random = 88172645463325252u;
	pthread_t thread;

	len = 16 * page_bytes();
	a = mmap(NULL, 8 * len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(a != MAP_FAILED);
	/* Apart from one another and from all else. */
	b = a + 4 * len;
	CHECK(pthread_create(&thread, NULL, mover, NULL) == 0);
	for (int round = 1; now_sec() < until; round++)
		n[one_round(handle, round, &random)]++;
	__atomic_store_n(&wanted, -1, __ATOMIC_RELEASE);
	CHECK(pthread_join(thread, NULL) == 0);
	uhmm_close(handle);
	fprintf(stderr, "forks before the move: %u, after: %u\n", n[0], n[1]);
	return 0;
}
