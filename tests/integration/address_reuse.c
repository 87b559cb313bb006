/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Four threads unmap, map, move, drop and rewrite one another's addresses while
 * everything is asked to leave. Events and faults of different threads cross; a
 * shadow says what each page must hold. Prints the seed of a failing run.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "prog.h"

#define THREADS 4
#define PLOTS 96
#define PLOT_PAGES 24u
#define SECONDS 5.0

/* One piece of ground: whoever holds the lock may do anything to it. */
struct plot {
	pthread_mutex_t lock;
	char *addr;
	bool mapped;
	uint32_t seed[PLOT_PAGES]; /* of each page; 0: reads zero */
};

static struct plot plots[PLOTS];
static atomic_bool stop;
static _Atomic uint32_t next_seed = 1;
static _Atomic uint64_t n_steps;
static uint64_t run_seed;

static size_t plot_bytes(void)
{
	return PLOT_PAGES * page_bytes();
}

static void plot_check(const struct plot *plot, const char *when)
{
	size_t page = page_bytes();

	for (size_t i = 0; plot->mapped && i < PLOT_PAGES; i++) {
		const char *at = plot->addr + i * page;
		bool good = plot->seed[i] ? pattern_holds(at, page, plot->seed[i], 0) :
					    is_zero(at, page);

		if (!good)
			prog_fail("%s: plot %zd page %zu should hold %u; word 0 is %llx, zero: %d "
				  "(run seed %llu)", when, plot - plots, i, plot->seed[i],
				  (unsigned long long)*(const uint64_t *)at, is_zero(at, page),
				  (unsigned long long)run_seed);
	}
}

static void plot_map(struct plot *plot)
{
	if (mmap(plot->addr, plot_bytes(), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != plot->addr)
		prog_fail("mmap: %s", strerror(errno));
	plot->mapped = true;
	memset(plot->seed, 0, sizeof(plot->seed));
}

static void plot_unmap(struct plot *plot)
{
	CHECK(munmap(plot->addr, plot_bytes()) == 0);
	plot->mapped = false;
}

static void plot_write(struct plot *plot, uint64_t random)
{
	size_t first = random % PLOT_PAGES, n = 1 + random / 64 % (PLOT_PAGES - first);

	if (!plot->mapped)
		plot_map(plot);
	for (size_t i = first; i < first + n; i++) {
		plot->seed[i] = atomic_fetch_add(&next_seed, 1);
		pattern_fill(plot->addr + i * page_bytes(), page_bytes(), plot->seed[i]);
	}
}

static void plot_drop(struct plot *plot, uint64_t random)
{
	size_t first = random % PLOT_PAGES, n = 1 + random / 64 % (PLOT_PAGES - first);

	if (!plot->mapped)
		return;
	CHECK(madvise(plot->addr + first * page_bytes(), n * page_bytes(), MADV_DONTNEED) == 0);
	memset(plot->seed + first, 0, n * sizeof(*plot->seed));
}

/* Move `from` onto the ground of `to`; both are locked. */
static void plot_move(struct plot *from, struct plot *to)
{
	if (!from->mapped)
		return;
	CHECK(mremap(from->addr, plot_bytes(), plot_bytes(), MREMAP_MAYMOVE | MREMAP_FIXED,
		     to->addr) == to->addr);
	memcpy(to->seed, from->seed, sizeof(to->seed));
	to->mapped = true;
	from->mapped = false;
}

static void step(uint64_t *state)
{
	struct plot *plot = &plots[random_next(state) % PLOTS];
	struct plot *other = &plots[random_next(state) % PLOTS];
	uint64_t random = random_next(state);

	pthread_mutex_lock(&plot->lock);
	if (random % 8 == 0)
		plot_check(plot, "before");
	switch (random / 8 % 6) {
	case 0:
		plot_map(plot);
		break;
	case 1:
		plot_unmap(plot);
		break;
	case 2:
		plot_drop(plot, random >> 16);
		break;
	case 3:
		if (plot != other && pthread_mutex_trylock(&other->lock) == 0) {
			plot_move(plot, other);
			plot_check(other, "moved here");
			pthread_mutex_unlock(&other->lock);
		}
		break;
	default:
		plot_write(plot, random >> 16);
	}
	if (random / 64 % 4 == 0)
		plot_check(plot, "after");
	pthread_mutex_unlock(&plot->lock);
	atomic_fetch_add(&n_steps, 1);
}

static void *walk(void *arg)
{
	uint64_t state = run_seed * 7919 + (uintptr_t)arg + 1;

	while (!atomic_load(&stop))
		step(&state);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	struct uhmm *handle = managed() ? handle_open() : NULL;
	double end = now_sec() + SECONDS;
	char *ground = mmap(NULL, PLOTS * plot_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	CHECK(ground != MAP_FAILED);
	run_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
	for (size_t i = 0; i < PLOTS; i++) {
		CHECK(pthread_mutex_init(&plots[i].lock, NULL) == 0);
		plots[i].addr = ground + i * plot_bytes();
	}
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, walk, (void *)i) == 0);
	while (now_sec() < end)
		nudge_away(handle, ground, PLOTS * plot_bytes());
	atomic_store(&stop, true);
	for (size_t i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	for (size_t i = 0; i < PLOTS; i++)
		plot_check(&plots[i], "at the end");
	fprintf(stderr, "%llu steps\n", (unsigned long long)n_steps);
	CHECK(n_steps > 1000);
	uhmm_close(handle);
	return 0;
}
