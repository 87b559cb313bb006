/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mapping, or two that touch, are replaced by a larger one just when they are about to be
 * registered, and that moves: were only the part registered that the first one was, mremap would
 * fail with EFAULT, and for ever where two threads have touched both parts meanwhile.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "prog.h"

#define PLACES 32u
#define PLACE_PAGES 24u
#define SECONDS 5.0

static char *ground;
static atomic_bool stop;
/* What the other thread is to fill, and with what; NULL: it has. */
static _Atomic(char *) upper;
static uint32_t upper_seed;

static char *place(uint32_t i)
{
	return ground + i % (2 * PLACES) * PLACE_PAGES * page_bytes();
}

static char *map_at(char *addr, uint32_t n_pages, int prot)
{
	CHECK(mmap(addr, n_pages * page_bytes(), prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == addr);
	return addr;
}

static void fill(char *addr, uint32_t n_pages, uint32_t seed)
{
	for (uint32_t i = 0; i < n_pages; i++)
		pattern_fill(addr + i * page_bytes(), page_bytes(), seed + i);
}

static void *fill_upper(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		char *addr = atomic_load(&upper);

		if (!addr)
			continue;
		fill(addr, PLACE_PAGES / 2, upper_seed);
		atomic_store(&upper, NULL);
	}
	return NULL;
}

/* Both halves at once. */
static void fill_all(char *addr, uint32_t seed)
{
	upper_seed = seed + PLACE_PAGES / 2;
	atomic_store(&upper, addr + PLACE_PAGES / 2 * page_bytes());
	fill(addr, PLACE_PAGES / 2, seed);
	while (atomic_load(&upper))
		;
}

/* One mapping, or two that differ in what a core dump gets of them. */
static void map_first(char *addr, uint64_t draw)
{
	uint32_t n_pages = 2 + (uint32_t)(draw % 8);

	fill(map_at(addr, n_pages, PROT_READ | PROT_WRITE), 2, (uint32_t)draw);
	if (draw & 8) {
		addr += n_pages * page_bytes();
		fill(map_at(addr, 2, PROT_READ | PROT_WRITE), 1, (uint32_t)draw);
		CHECK(madvise(addr, 2 * page_bytes(), MADV_DONTDUMP) == 0);
	}
}

static void check(const char *addr, uint32_t seed)
{
	for (uint32_t i = 0; i < PLACE_PAGES; i++)
		CHECK(pattern_holds(addr + i * page_bytes(), page_bytes(), seed + i, 0));
}

/* Less than a millisecond. */
static double draw_pause(uint64_t *state)
{
	return (double)(random_next(state) % 1000) * 1e-6;
}

static void spin_until(double moment)
{
	while (now_sec() < moment)
		;
}

static void *nudge(void *arg)
{
	struct uhmm *handle = managed() ? handle_open() : NULL;

	(void)arg;
	while (!atomic_load(&stop))
		nudge_away(handle, ground, 2 * (size_t)PLACES * PLACE_PAGES * page_bytes());
	uhmm_close(handle);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t state = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
	size_t bytes = PLACE_PAGES * page_bytes();
	double end = now_sec() + SECONDS;
	uint32_t n = 0, n_failed = 0;
	pthread_t thread, filler;

	ground = mmap(NULL, 2 * PLACES * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(ground != MAP_FAILED);
	CHECK(pthread_create(&thread, NULL, nudge, NULL) == 0);
	CHECK(pthread_create(&filler, NULL, fill_upper, NULL) == 0);
	for (; now_sec() < end; n++) {
		/* Every second place, so that none is joined with another. */
		char *from = place(2 * n), *to = place(2 * n + 1);
		double moment = now_sec() + draw_pause(&state);

		map_first(from, random_next(&state));
		spin_until(moment);
		fill_all(map_at(from, PLACE_PAGES, PROT_READ | PROT_WRITE), n);
		spin_until(now_sec() + draw_pause(&state));
		if (mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
			CHECK(errno == EFAULT);
			n_failed++;
			to = from;
		}
		check(to, n);
		if (to != from)
			(void)map_at(from, PLACE_PAGES, PROT_NONE);
		check(to, n);
		(void)map_at(to, PLACE_PAGES, PROT_NONE);
	}
	atomic_store(&stop, true);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(pthread_join(filler, NULL) == 0);
	fprintf(stderr, "%u moves, %u of them failed\n", n, n_failed);
	/* Between two system calls of the daemon one may still come. */
	CHECK(n > 100 && n_failed <= 1 + n / 1000);
	return 0;
}
