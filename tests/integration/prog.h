/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the small self-checking programs share: a pattern that differs in every
 * word, a way to send memory away, and the kernel's own word on what is present.
 *
 * Each program runs twice (see run_prog): plain, where send_away does nothing, and
 * managed. It says on stderr what went wrong and exits 1; 77 is a skip.
 */
#ifndef UHMM_TEST_PROG_H
#define UHMM_TEST_PROG_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "uhmm/uhmm.h"

#define MIB ((size_t)1 << 20)

__attribute__((format(printf, 1, 2), noreturn)) static inline void prog_fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	fflush(stderr);
	_exit(1);
}

__attribute__((noreturn)) static inline void prog_skip(const char *why)
{
	printf("SKIP: %s\n", why);
	fflush(stdout);
	_exit(77);
}

#define CHECK(cond)                                                                       \
	do {                                                                              \
		if (!(cond))                                                              \
			prog_fail("%s:%d: %s (errno %s)", __FILE__, __LINE__, #cond,      \
				  strerror(errno));                                       \
	} while (0)

static inline size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static inline bool managed(void)
{
	return getenv("UHMM_SOCKET") != NULL;
}

static inline double now_sec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A different value for each word of each seed, so that a page that comes home to
 * the wrong place, or from the past, does not pass for the right one. */
static inline uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	uint64_t x = (seed << 40) + index + 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Next of a cheap random sequence; `state` is any number but 0. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void pattern_fill(void *addr, size_t len, uint64_t seed)
{
	uint64_t *words = addr;

	for (size_t i = 0; i < len / sizeof(*words); i++)
		words[i] = pattern_word(seed, i);
}

/* Is [addr, addr + len) what pattern_fill of a range that began `skip` bytes
 * before it left there? */
static inline bool pattern_holds(const void *addr, size_t len, uint64_t seed, size_t skip)
{
	const uint64_t *words = addr;
	size_t first = skip / sizeof(*words);

	for (size_t i = 0; i < len / sizeof(*words); i++)
		if (words[i] != pattern_word(seed, first + i))
			return false;
	return true;
}

static inline bool is_zero(const void *addr, size_t len)
{
	const uint64_t *words = addr;

	for (size_t i = 0; i < len / sizeof(*words); i++)
		if (words[i])
			return false;
	return true;
}

/* Page by page, so that the message can say which page and what was there. */
static inline void pattern_check_at(const char *file, int line, const void *addr, size_t len,
				    uint64_t seed, size_t skip)
{
	size_t step = page_bytes();

	for (size_t at = 0; at < len; at += step) {
		const uint64_t *words = (const void *)((const char *)addr + at);
		size_t n = len - at < step ? len - at : step;

		if (!pattern_holds(words, n, seed, skip + at))
			prog_fail("%s:%d: page %zu of %p (seed %llu) is wrong: %s, word 0 is %llx",
				  file, line, at / step, addr, (unsigned long long)seed,
				  is_zero(words, n) ? "all zero" : "other bytes",
				  (unsigned long long)words[0]);
	}
}

#define pattern_check(addr, len, seed) pattern_check_at(__FILE__, __LINE__, addr, len, seed, 0)
#define pattern_check_from(addr, len, seed, skip) \
	pattern_check_at(__FILE__, __LINE__, addr, len, seed, skip)

static inline char *map_private(size_t len)
{
	char *addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(addr != MAP_FAILED);
	return addr;
}

#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_PFN (((uint64_t)1 << 55) - 1)

/* The frame that all pages share that were read and never written; 0 if we may not know. */
static inline uint64_t zero_frame(int pagemap_fd)
{
	volatile const char *page = map_private(page_bytes());
	uint64_t entry;

	(void)*page;
	CHECK(pread(pagemap_fd, &entry, sizeof(entry),
		    (off_t)((uintptr_t)page / page_bytes() * sizeof(entry))) == sizeof(entry));
	munmap((void *)(uintptr_t)page, page_bytes());
	return entry & PAGEMAP_PFN;
}

/* How many pages of the range have a page table entry that is present, by the kernel's
 * pagemap? The zero page is nobody's memory. */
static inline size_t present_pages(const void *addr, size_t len)
{
	size_t n_pages = len / page_bytes(), present = 0;
	size_t page = (uintptr_t)addr / page_bytes();
	uint64_t entry[512], zero;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	zero = zero_frame(fd);
	for (size_t at = 0; at < n_pages;) {
		size_t n = n_pages - at < 512 ? n_pages - at : 512;
		ssize_t got = pread(fd, entry, n * sizeof(*entry),
				    (off_t)((page + at) * sizeof(*entry)));

		CHECK(got == (ssize_t)(n * sizeof(*entry)));
		for (size_t i = 0; i < n; i++)
			present += entry[i] & PAGEMAP_PRESENT &&
				   (!zero || (entry[i] & PAGEMAP_PFN) != zero);
		at += n;
	}
	close(fd);
	return present;
}

/* A handle of one's own: a handle belongs to one thread, and to no forked child. */
static inline struct uhmm *handle_open(void)
{
	struct uhmm *handle = NULL;
	int error = uhmm_open(NULL, &handle);

	if (error)
		prog_fail("uhmm_open: %s", strerror(-error));
	return handle;
}

/* Ask for the range to leave; what cannot leave stays. Plain: nothing. */
static inline long nudge_away(struct uhmm *handle, const void *addr, size_t len)
{
	long moved = handle ? uhmm_migrate(handle, addr, len, UHMM_TO_TIER) : 0;

	if (moved < 0)
		prog_fail("uhmm_migrate: %s", strerror((int)-moved));
	return moved;
}

/* Send a range away and insist, by the kernel's word, that at most a tenth of it
 * stayed: a test that evicts nothing proves nothing. Main thread only. */
static inline void send_away(const void *addr, size_t len)
{
	struct uhmm *handle;
	size_t stayed = 0;

	if (!managed())
		return;
	handle = handle_open();
	for (int i = 0; i < 1000; i++) {
		nudge_away(handle, addr, len);
		stayed = present_pages(addr, len);
		if (stayed * 10 <= len / page_bytes())
			break;
		usleep(2000);
	}
	uhmm_close(handle);
	if (stayed * 10 > len / page_bytes())
		prog_fail("%zu of %zu pages at %p would not leave", stayed, len / page_bytes(),
			  addr);
}

/* Ask once, without insisting: some of the range cannot leave (zero pages, guards). */
static inline void ask_away(const void *addr, size_t len)
{
	struct uhmm *handle = managed() ? handle_open() : NULL;

	nudge_away(handle, addr, len);
	uhmm_close(handle);
}

/* One process waits at a pipe until another has said something. */
static inline void tell(int fd)
{
	CHECK(write(fd, "", 1) == 1);
}

static inline void hear(int fd)
{
	char byte;

	CHECK(read(fd, &byte, 1) == 1);
}

/* Reap one child and pass its failure on. */
static inline void child_join(pid_t pid)
{
	int status = 0;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		prog_fail("child %d ended with wait status %#x", (int)pid, (unsigned int)status);
}

#endif
