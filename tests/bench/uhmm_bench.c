/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a touch of a page that is away takes: through uhmm, and through the fastest
 * handler that userfaultfd allows, side by side in one run.
 *
 * "bare" is a thread of this program on the CPU of the thread that faults; it blocks in
 * read and answers with a COPY of one page. It does nothing that a pager must do: no
 * events, no record of where a page is, no other address space. "uhmm" is memory of this
 * program that uhmm_migrate sent to a tier. Rounds of the two alternate, so that what else
 * the machine does hits both. Numbers are printed and none is asserted; only wrong bytes
 * are a failure.
 *
 * Runs under a daemon (`uhmm run --private uhmm-bench`); without one only "bare" is run.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "uhmm/uhmm.h"
#include "util/uapi.h"

#define N_WARMUP_ROUNDS 1

enum bench_memory { MEMORY_BARE, MEMORY_UHMM, MEMORY_MAX };
enum bench_order { ORDER_RANDOM, ORDER_SEQUENTIAL, ORDER_MAX };

static const char *const memory_names[MEMORY_MAX] = { "bare", "uhmm" };
static const char *const order_names[ORDER_MAX] = { "random", "sequential" };

/* What was measured for one order and one kind of memory, over all rounds. */
struct bench_samples {
	uint32_t *touch_ns; /* [n_rounds * n_pages] */
	size_t n;
	uint64_t total_ns;
};

struct bench {
	size_t page_bytes;
	size_t n_pages;
	size_t n_rounds;
	unsigned int seed;
	int cpu;
	uint32_t *order[ORDER_MAX]; /* page numbers */
	unsigned char *memory[MEMORY_MAX];
	struct bench_samples samples[ORDER_MAX][MEMORY_MAX];
	int uffd;
	pthread_t handler;
	struct uhmm *uhmm; /* NULL: no daemon */
	uint64_t n_migrated;
};

static void bench_die(const char *what, int error)
{
	(void)fprintf(stderr, "uhmm-bench: %s: %s\n", what, strerror(error));
	exit(1);
}

static uint64_t bench_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned char bench_pattern(size_t page)
{
	return (unsigned char)(page * 7 + 1);
}

static void *bench_alloc(size_t n, size_t bytes)
{
	void *memory = calloc(n, bytes);

	if (!memory)
		bench_die("memory", ENOMEM);
	/* Present before anything is measured. */
	memset(memory, 1, n * bytes);
	return memory;
}

static unsigned char *bench_map(const struct bench *bench)
{
	size_t bytes = bench->n_pages * bench->page_bytes;
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		bench_die("mmap", errno);
	/* A touch is to bring one page. */
	(void)madvise(map, bytes, MADV_NOHUGEPAGE);
	return map;
}

/* Both orders; the random one is a shuffle by the seed. */
static void bench_make_orders(struct bench *bench)
{
	uint32_t *shuffled;

	for (int order = 0; order < ORDER_MAX; order++) {
		bench->order[order] = bench_alloc(bench->n_pages, sizeof(uint32_t));
		for (size_t i = 0; i < bench->n_pages; i++)
			bench->order[order][i] = (uint32_t)i;
	}
	shuffled = bench->order[ORDER_RANDOM];
	for (size_t i = bench->n_pages - 1; i > 0; i--) {
		size_t j = (size_t)rand_r(&bench->seed) % (i + 1);
		uint32_t page = shuffled[i];

		shuffled[i] = shuffled[j];
		shuffled[j] = page;
	}
}

/* ---- bare ------------------------------------------------------------------ */

static int bare_open(void)
{
	int device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	int uffd = -1;

	if (device >= 0) {
		uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
		(void)close(device);
	}
	if (uffd < 0)
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	return uffd;
}

/* The loop that all is compared with. One page with the bytes of the page asked for. */
static void *bare_run(void *arg)
{
	struct bench *bench = arg;
	uintptr_t base = (uintptr_t)bench->memory[MEMORY_BARE];
	unsigned char *page = bench_alloc(1, bench->page_bytes);
	struct uffd_msg msg;

	while (read(bench->uffd, &msg, sizeof(msg)) == (ssize_t)sizeof(msg)) {
		uintptr_t addr = msg.arg.pagefault.address & ~(bench->page_bytes - 1);
		struct uffdio_copy copy = { .dst = addr,
					    .src = (uintptr_t)page,
					    .len = bench->page_bytes };

		page[0] = bench_pattern((addr - base) / bench->page_bytes);
		(void)ioctl(bench->uffd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

static void bare_start(struct bench *bench)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int error;

	bench->memory[MEMORY_BARE] = bench_map(bench);
	reg.range.start = (uintptr_t)bench->memory[MEMORY_BARE];
	reg.range.len = bench->n_pages * bench->page_bytes;
	bench->uffd = bare_open();
	if (bench->uffd < 0 || ioctl(bench->uffd, UFFDIO_API, &api) < 0 ||
	    ioctl(bench->uffd, UFFDIO_REGISTER, &reg) < 0)
		bench_die("userfaultfd", errno);
	/* The thread inherits the CPU that this one is pinned to. */
	error = pthread_create(&bench->handler, NULL, bare_run, bench);
	if (error)
		bench_die("pthread_create", error);
}

static void bare_send_away(struct bench *bench)
{
	if (madvise(bench->memory[MEMORY_BARE], bench->n_pages * bench->page_bytes, MADV_DONTNEED) <
	    0)
		bench_die("madvise", errno);
}

/* ---- uhmm ------------------------------------------------------------------ */

/* Without a daemon bench->uhmm stays NULL, and the reason is printed. */
static void managed_start(struct bench *bench)
{
	int error = uhmm_open(NULL, &bench->uhmm);

	if (error) {
		bench->uhmm = NULL;
		printf("uhmm: not measured, no daemon: %s (uhmm run --private uhmm-bench)\n",
		       strerror(-error));
		return;
	}
	bench->memory[MEMORY_UHMM] = bench_map(bench);
	for (size_t i = 0; i < bench->n_pages; i++)
		memset(bench->memory[MEMORY_UHMM] + i * bench->page_bytes, bench_pattern(i),
		       bench->page_bytes);
}

static void managed_send_away(struct bench *bench)
{
	long n = uhmm_migrate(bench->uhmm, bench->memory[MEMORY_UHMM],
			      bench->n_pages * bench->page_bytes, UHMM_TO_TIER);

	if (n < 0)
		bench_die("uhmm_migrate", (int)-n);
	bench->n_migrated += (uint64_t)n;
}

/* ---- rounds ---------------------------------------------------------------- */

/* Touch every page once; false when a byte is wrong. */
static bool bench_touch(struct bench *bench, enum bench_order order, enum bench_memory memory,
			uint32_t *ret_touch_ns)
{
	const volatile unsigned char *base = bench->memory[memory];
	uint64_t before = bench_now_ns();
	unsigned int n_wrong = 0;

	for (size_t i = 0; i < bench->n_pages; i++) {
		size_t page = bench->order[order][i];
		uint64_t after;

		n_wrong += base[page * bench->page_bytes] != bench_pattern(page);
		after = bench_now_ns();
		ret_touch_ns[i] = (uint32_t)(after - before);
		before = after;
	}
	if (n_wrong)
		(void)fprintf(stderr, "uhmm-bench: %s %s: %u pages have wrong bytes\n",
			      memory_names[memory], order_names[order], n_wrong);
	return n_wrong == 0;
}

static bool bench_round(struct bench *bench, enum bench_order order, enum bench_memory memory,
			bool keep)
{
	struct bench_samples *samples = &bench->samples[order][memory];
	uint64_t start;
	bool right;

	if (memory == MEMORY_BARE)
		bare_send_away(bench);
	else
		managed_send_away(bench);
	start = bench_now_ns();
	right = bench_touch(bench, order, memory, samples->touch_ns + samples->n);
	if (keep) {
		samples->total_ns += bench_now_ns() - start;
		samples->n += bench->n_pages;
	}
	return right;
}

static bool bench_run(struct bench *bench)
{
	int n_memories = bench->uhmm ? MEMORY_MAX : MEMORY_UHMM;
	bool right = true;

	for (int order = 0; order < ORDER_MAX; order++)
		for (int memory = 0; memory < n_memories; memory++)
			bench->samples[order][memory].touch_ns =
				bench_alloc(bench->n_rounds * bench->n_pages, sizeof(uint32_t));
	for (size_t round = 0; round < N_WARMUP_ROUNDS + bench->n_rounds; round++)
		for (int order = 0; order < ORDER_MAX; order++)
			for (int memory = 0; memory < n_memories; memory++)
				right &= bench_round(bench, (enum bench_order)order,
						     (enum bench_memory)memory,
						     round >= N_WARMUP_ROUNDS);
	return right;
}

/* ---- report ---------------------------------------------------------------- */

struct bench_result {
	double p50_us;
	double p99_us;
	double kpages_per_s;
};

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Sorts the samples. */
static struct bench_result bench_result_make(struct bench_samples *samples)
{
	qsort(samples->touch_ns, samples->n, sizeof(uint32_t), compare_u32);
	return (struct bench_result){
		.p50_us = samples->touch_ns[samples->n / 2] / 1e3,
		.p99_us = samples->touch_ns[samples->n * 99 / 100] / 1e3,
		.kpages_per_s = (double)samples->n * 1e6 / (double)samples->total_ns,
	};
}

static void bench_report(struct bench *bench)
{
	printf("%-11s %-10s %9s %9s %10s\n", "order", "memory", "p50 us", "p99 us", "kpages/s");
	for (int order = 0; order < ORDER_MAX; order++) {
		struct bench_result bare = bench_result_make(&bench->samples[order][MEMORY_BARE]);
		struct bench_result uhmm;

		printf("%-11s %-10s %9.2f %9.2f %10.1f\n", order_names[order], "bare", bare.p50_us,
		       bare.p99_us, bare.kpages_per_s);
		if (!bench->uhmm)
			continue;
		uhmm = bench_result_make(&bench->samples[order][MEMORY_UHMM]);
		printf("%-11s %-10s %9.2f %9.2f %10.1f\n", order_names[order], "uhmm", uhmm.p50_us,
		       uhmm.p99_us, uhmm.kpages_per_s);
		printf("%-11s %-10s %9.3f %9.3f %10.3f\n", order_names[order], "uhmm/bare",
		       uhmm.p50_us / bare.p50_us, uhmm.p99_us / bare.p99_us,
		       uhmm.kpages_per_s / bare.kpages_per_s);
	}
	if (bench->uhmm)
		printf("uhmm: %llu of %zu pages had left before they were touched\n",
		       (unsigned long long)bench->n_migrated,
		       bench->n_pages * ORDER_MAX * (N_WARMUP_ROUNDS + bench->n_rounds));
}

/* On the CPU where it runs now; returns that. */
static int bench_pin(void)
{
	int cpu = sched_getcpu();
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (cpu < 0 || sched_setaffinity(0, sizeof(set), &set) < 0)
		bench_die("sched_setaffinity", errno);
	return cpu;
}

static size_t bench_number(const char *text, size_t least, size_t most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < least || value > most) {
		(void)fprintf(stderr, "uhmm-bench: '%s' is no number from %zu to %zu\n", text,
			      least, most);
		exit(2);
	}
	return value;
}

static void bench_parse(struct bench *bench, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "n:r:s:")) != -1) {
		switch (option) {
		case 'n':
			bench->n_pages = bench_number(optarg, 2, 1u << 24);
			break;
		case 'r':
			bench->n_rounds = bench_number(optarg, 1, 1000);
			break;
		case 's':
			bench->seed = (unsigned int)bench_number(optarg, 0, 1u << 31);
			break;
		default:
			(void)fprintf(stderr, "usage: uhmm-bench [-n PAGES] [-r ROUNDS] "
					      "[-s SEED]\n");
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct bench bench = { .page_bytes = (size_t)sysconf(_SC_PAGESIZE),
			       .n_pages = 16384,
			       .n_rounds = 5,
			       .seed = 1 };

	bench_parse(&bench, argc, argv);
	bench.cpu = bench_pin();
	printf("%zu pages of %zu bytes, each touched once a round; %zu rounds of each kind, "
	       "alternating, after %d unmeasured; seed %u\n",
	       bench.n_pages, bench.page_bytes, bench.n_rounds, N_WARMUP_ROUNDS, bench.seed);
	printf("pinned: the thread that touches and the bare handler to CPU %d; uhmmd's threads "
	       "not by us\n",
	       bench.cpu);
	bench_make_orders(&bench);
	bare_start(&bench);
	managed_start(&bench);
	if (!bench_run(&bench))
		return 1;
	bench_report(&bench);
	uhmm_close(bench.uhmm);
	return 0;
}
