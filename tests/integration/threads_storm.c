/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Eight threads load and store at random in memory that keeps leaving: no store
 * is lost, no load sees the past, and atomic additions all arrive.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "prog.h"

#define THREADS 8
#define LEN (64 * MIB)
#define WORDS_A_PAGE 64 /* used ones: one a cache line */
#define SECONDS 4.0

struct lane {
	pthread_t thread;
	unsigned int id;
	uint64_t adds;
};

static _Atomic uint64_t *words; /* page i: word 0 is everybody's, word 1 + id is one thread's */
static atomic_bool stop;

static _Atomic uint64_t *word_at(size_t page, unsigned int index)
{
	return words + page * (page_bytes() / sizeof(*words)) + index * 8;
}

static void *lane_run(void *arg)
{
	struct lane *lane = arg;
	size_t n_pages = LEN / page_bytes();
	uint32_t *version = calloc(n_pages, sizeof(*version));
	uint64_t state = 12345 + lane->id;

	CHECK(version);
	while (!atomic_load(&stop)) {
		size_t page = random_next(&state) % n_pages;
		uint64_t key = page * WORDS_A_PAGE + lane->id;
		uint64_t want = version[page] ? pattern_word(version[page], key) : 0;
		uint64_t got = atomic_load_explicit(word_at(page, 1 + lane->id),
						    memory_order_relaxed);

		if (got != want)
			prog_fail("thread %u page %zu: %llx, stored %llx (version %u)", lane->id,
				  page, (unsigned long long)got, (unsigned long long)want,
				  version[page]);
		version[page]++;
		atomic_store_explicit(word_at(page, 1 + lane->id),
				      pattern_word(version[page], key), memory_order_relaxed);
		atomic_fetch_add(word_at(page, 0), 1);
		lane->adds++;
	}
	free(version);
	return NULL;
}

int main(void)
{
	struct lane lanes[THREADS] = { 0 };
	struct uhmm *handle = managed() ? handle_open() : NULL;
	uint64_t sum = 0, adds = 0;
	double end = now_sec() + SECONDS;

	words = (void *)map_private(LEN);
	for (unsigned int i = 0; i < THREADS; i++) {
		lanes[i].id = i;
		CHECK(pthread_create(&lanes[i].thread, NULL, lane_run, &lanes[i]) == 0);
	}
	while (now_sec() < end) {
		nudge_away(handle, words, LEN);
		usleep(50000);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < THREADS; i++) {
		CHECK(pthread_join(lanes[i].thread, NULL) == 0);
		adds += lanes[i].adds;
	}
	for (size_t page = 0; page < LEN / page_bytes(); page++)
		sum += atomic_load(word_at(page, 0));
	if (sum != adds)
		prog_fail("%llu additions, %llu arrived", (unsigned long long)adds,
			  (unsigned long long)sum);
	uhmm_close(handle);
	return 0;
}
