/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread moves A onto B, and both are away; another forks. The child has either both, or A's
 * bytes at B and nothing at A. Whose memory lies at B the kernel tells: B's is not dumped. So it is
 * - with a neighbour that touches A from below (argument "below"),
 * - with one that lies behind a hole and grows to where A was before the fork ("grows"),
 * - where A's place stays mapped ("dontunmap"),
 * - where shared memory is away, too ("shared").
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
static int more_flags;
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
		CHECK(mremap(a, len, len, MREMAP_MAYMOVE | MREMAP_FIXED | more_flags, b) == b);
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

enum held { NOTHING, ITS_OWN, MOVED_THERE };

static enum held held_at_b(void)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	enum held held = NOTHING;
	unsigned long from, to;
	bool at = false;
	char line[512];

	CHECK(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			at = from <= (uintptr_t)b && (uintptr_t)b < to;
		else if (at && strncmp(line, "VmFlags:", 8) == 0)
			held = strstr(line, " dd") ? ITS_OWN : MOVED_THERE;
	}
	(void)fclose(file);
	return held;
}

static void look(uint64_t seed)
{
	enum held held = held_at_b();

	if (held == MOVED_THERE) {
		pattern_check(b, len, seed);
		_exit(MOVED);
	}
	/* Between the two nothing is there. */
	if (held == ITS_OWN) {
		pattern_check(a, len, seed);
		pattern_check(b, len, seed + 1);
	}
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
	CHECK(madvise(b, len, MADV_DONTDUMP) == 0);
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

static void place_neighbour(void)
{
	neighbour = a - (grows ? 2 : 1) * len;
	if (grows)
		CHECK(munmap(neighbour + len, len) == 0);
	CHECK(mmap(neighbour, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == neighbour);
	pattern_fill(neighbour, len, 1);
}

static void send_shared_away(struct uhmm *handle)
{
	char *shared = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(shared != MAP_FAILED);
	pattern_fill(shared, len, 1);
	for (double until = now_sec() + 10; handle && present_pages(shared, len);) {
		CHECK(now_sec() < until);
		nudge_away(handle, shared, len);
	}
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
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
	grows = strcmp(kind, "grows") == 0;
	if (grows || strcmp(kind, "below") == 0)
		place_neighbour();
	else if (strcmp(kind, "shared") == 0)
		send_shared_away(handle);
	else if (strcmp(kind, "dontunmap") == 0)
		more_flags = MREMAP_DONTUNMAP;
	else
		CHECK(argc == 1);
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
