/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Four processes on one shared segment larger than the target, all the time: each page has an
 * owner that counts in it, everybody else sees it never go back. In between children come and
 * go, mappings are doubled, moved and emptied.
 */
#include "prog.h"

#define LEN (48 * MIB)
#define PROCESSES 4u
#define SECONDS 8.0

/* The first words of each page; `check` is a function of `count` and the page. */
struct cell {
	uint64_t count, check;
};

static char *mem;
static size_t n_pages;

static struct cell *cell_of(char *base, size_t page)
{
	return (struct cell *)(void *)(base + page * page_bytes());
}

static uint64_t check_of(size_t page, uint64_t count)
{
	return count ? pattern_word(count, page) : 0;
}

/* As its owner: what is there is what we left there. */
static void count_in(char *base, uint64_t *counts, size_t page)
{
	struct cell *cell = cell_of(base, page);
	uint64_t count = __atomic_load_n(&cell->count, __ATOMIC_RELAXED);

	if (count != counts[page] || cell->check != check_of(page, count))
		prog_fail("page %zu: %llu, was %llu", page, (unsigned long long)count,
			  (unsigned long long)counts[page]);
	cell->check = check_of(page, count + 1);
	__atomic_store_n(&cell->count, count + 1, __ATOMIC_RELEASE);
	counts[page]++;
}

static void look_at(char *base, uint64_t *counts, size_t page)
{
	uint64_t count = __atomic_load_n(&cell_of(base, page)->count, __ATOMIC_ACQUIRE);

	if (count < counts[page])
		prog_fail("page %zu: %llu after %llu", page, (unsigned long long)count,
			  (unsigned long long)counts[page]);
	counts[page] = count;
}

/* The mapping goes elsewhere, by mremap. */
static char *move_mapping(char *base)
{
	char *to = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *moved;

	CHECK(to != MAP_FAILED);
	moved = mremap(base, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	CHECK(moved == to);
	return moved;
}

/* A child that looks at some pages, and ends. */
static void look_in_child(char *base, uint64_t *counts, uint64_t *random)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (int i = 0; i < 200; i++)
			look_at(base, counts, random_next(random) % n_pages);
		_exit(0);
	}
	child_join(pid);
}

static void double_mapping(char *base, uint64_t *counts, uint64_t *random)
{
	char *twin = mremap(base, 0, LEN, MREMAP_MAYMOVE);

	CHECK(twin != MAP_FAILED);
	for (int i = 0; i < 200; i++)
		look_at(twin, counts, random_next(random) % n_pages);
	CHECK(munmap(twin, LEN) == 0);
}

static void process_run(unsigned int self)
{
	uint64_t *counts = calloc(n_pages, sizeof(*counts)), random = self + 1;
	double until = now_sec() + SECONDS;
	char *base = mem;

	CHECK(counts);
	for (unsigned int round = 0; now_sec() < until; round++) {
		for (int i = 0; i < 500; i++) {
			size_t page = random_next(&random) % n_pages;

			if (page % PROCESSES == self)
				count_in(base, counts, page);
			else
				look_at(base, counts, page);
		}
		switch (round % 13) {
		case 3:
			base = move_mapping(base);
			break;
		case 6:
			double_mapping(base, counts, &random);
			break;
		case 9:
			look_in_child(base, counts, &random);
			break;
		case 12:
			CHECK(madvise(base, LEN, MADV_DONTNEED) == 0);
			break;
		default:
			break;
		}
	}
	for (size_t page = self; page < n_pages; page += PROCESSES)
		count_in(base, counts, page);
	free(counts);
}

int main(void)
{
	pid_t pids[PROCESSES];

	n_pages = LEN / page_bytes();
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	for (unsigned int i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			process_run(i);
			_exit(0);
		}
	}
	for (unsigned int i = 0; i < PROCESSES; i++)
		child_join(pids[i]);
	for (size_t page = 0; page < n_pages; page++)
		CHECK(cell_of(mem, page)->check == check_of(page, cell_of(mem, page)->count));
	return 0;
}
