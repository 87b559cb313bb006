/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MADV_DONTNEED and MADV_REMOVE on one shared segment, by several threads of several processes
 * at once, while it leaves and comes home. The first loses nothing, whoever calls it and however
 * often; after the second the page is zero for all. Each page has an owner thread, which counts
 * in it or removes it and knows what must be there.
 */
#include <pthread.h>

#include "prog.h"

#define LEN (32 * MIB)
#define PROCESSES 4u
#define SECONDS 4.0
/* One time in so many the owner removes its page. */
#define REMOVE_EVERY 16u

struct cell {
	uint64_t count, check;
};

struct shape {
	unsigned int n_owners, n_droppers; /* threads of a process */
	unsigned int pause_usec;	   /* of a dropper, at most */
	bool removes;
};

static const struct shape *shape;
static char *mem;
static size_t n_pages;
static unsigned int self; /* the process */
static bool stop;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static uint64_t check_of(size_t page, uint64_t count)
{
	return count ? pattern_word(count, page) : 0;
}

static void count_in(struct cell *cell, uint64_t *counts, size_t page)
{
	if (cell->count != counts[page] || cell->check != check_of(page, cell->count))
		prog_fail("page %zu: %llu, was %llu", page, (unsigned long long)cell->count,
			  (unsigned long long)counts[page]);
	cell->check = check_of(page, ++counts[page]);
	cell->count = counts[page];
}

static void remove_page(struct cell *cell, uint64_t *counts, size_t page)
{
	CHECK(madvise(cell, page_bytes(), MADV_REMOVE) == 0);
	if (cell->count || cell->check)
		prog_fail("page %zu: removed, and still %llu, was %llu", page,
			  (unsigned long long)cell->count, (unsigned long long)counts[page]);
	counts[page] = 0;
}

static void *own(void *arg)
{
	size_t owner = self * shape->n_owners + (uintptr_t)arg, stride = PROCESSES * shape->n_owners;
	uint64_t *counts = calloc(n_pages, sizeof(*counts)), random = owner * 31 + 7;

	CHECK(counts);
	for (unsigned int i = 0; !stopped(); i++) {
		size_t page = random_next(&random) % (n_pages / stride) * stride + owner;
		struct cell *cell = (void *)(mem + page * page_bytes());

		if (shape->removes && i % REMOVE_EVERY == 0)
			remove_page(cell, counts, page);
		else
			count_in(cell, counts, page);
	}
	free(counts);
	return NULL;
}

static void *drop(void *arg)
{
	uint64_t random = (self * 16 + (uintptr_t)arg + 1) * 7919;

	while (!stopped()) {
		size_t first = random_next(&random) % n_pages;
		size_t n = random_next(&random) % 256 + 1;

		if (first + n > n_pages || random_next(&random) % 4 == 0) {
			first = 0;
			n = n_pages;
		}
		CHECK(madvise(mem + first * page_bytes(), n * page_bytes(), MADV_DONTNEED) == 0);
		usleep((useconds_t)(random_next(&random) % (shape->pause_usec + 1)));
	}
	return NULL;
}

static void process_run(void)
{
	pthread_t threads[16];
	size_t n = 0;

	for (uintptr_t i = 0; i < shape->n_owners; i++)
		CHECK(pthread_create(&threads[n++], NULL, own, (void *)i) == 0);
	for (uintptr_t i = 0; i < shape->n_droppers; i++)
		CHECK(pthread_create(&threads[n++], NULL, drop, (void *)i) == 0);
	usleep((useconds_t)(SECONDS * 1e6));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	while (n)
		CHECK(pthread_join(threads[--n], NULL) == 0);
	_exit(0);
}

static void in_shape(const struct shape *of)
{
	pid_t pids[PROCESSES];

	shape = of;
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	for (self = 0; self < PROCESSES; self++) {
		pids[self] = fork();
		if (pids[self] == 0)
			process_run();
	}
	for (unsigned int i = 0; i < PROCESSES; i++)
		child_join(pids[i]);
	CHECK(munmap(mem, LEN) == 0);
}

int main(void)
{
	static const struct shape shapes[] = {
		{ .n_owners = 1, .n_droppers = 1, .pause_usec = 20000 },
		{ .n_owners = 1, .n_droppers = 1, .pause_usec = 5000, .removes = true },
		{ .n_owners = 2, .n_droppers = 2, .pause_usec = 500, .removes = true },
	};

	n_pages = LEN / page_bytes();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		in_shape(&shapes[i]);
	return 0;
}
