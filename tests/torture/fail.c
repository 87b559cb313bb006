/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of the torture. Whoever finds a difference first writes down what it knows, in the
 * shared control file, and stands still; the runner sees it, stops everybody else, prints it
 * and saves the trace. Runs on the actor that found it, also in its signal handler.
 */
#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ops.h"
#include "shadow.h"

struct text {
	char *at;
	size_t left;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *text, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text->at, text->left, fmt, args);
	va_end(args);
	if (n < 0 || (size_t)n >= text->left)
		n = text->left ? (int)(text->left - 1) : 0;
	text->at += n;
	text->left -= (size_t)n;
}

/* The first one only; everybody else who fails waits to be stopped. */
static bool failure_begin(struct text *ret_text)
{
	uint32_t none = 0;

	if (!__atomic_compare_exchange_n(&ctl->failure.state, &none, 1, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return false;
	*ret_text = (struct text){ .at = ctl->failure.text, .left = FAILURE_TEXT };
	return true;
}

static void __attribute__((noreturn)) failure_end(void)
{
	__atomic_store_n(&ctl->failure.state, 2, __ATOMIC_RELEASE);
	for (;;)
		(void)pause();
}

static void add_actor(struct text *text, const struct actor *a)
{
	add(text, "seed %llu, round %u, actor %08x (slot %u, pid %d, tid %d), operation %u: %s\n",
	    (unsigned long long)ctl->seed, ctl->round, a->id, a->slot, a->pid, a->tid, a->n_ops,
	    op_name(a->code));
}

static void add_word(struct text *text, uint64_t word)
{
	add(text, "%016llx", (unsigned long long)word);
	if (word)
		add(text, " (page %07x, word %u, version %u)", (unsigned int)(word >> 36),
		    (unsigned int)(word >> 27 & 0x1ff), (unsigned int)(word & 0x7ffffff));
}

static void add_pagemap(struct text *text, const char *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	off_t at = (off_t)((uintptr_t)addr / ctl->page_size * sizeof(entry));

	if (fd < 0 || pread(fd, &entry, sizeof(entry), at) != (ssize_t)sizeof(entry)) {
		add(text, "  pagemap: cannot be read: %m\n");
	} else {
		add(text, "  pagemap: %016llx%s%s%s%s\n", (unsigned long long)entry,
		    entry >> 63 & 1 ? " present" : "", entry >> 62 & 1 ? " swap" : "",
		    entry >> 57 & 1 ? " uffd-wp" : "", entry >> 56 & 1 ? " exclusive" : "");
	}
	if (fd >= 0)
		(void)close(fd);
}

/* The lines of smaps that begin the mappings of a range, and their flags. */
static void add_mappings(struct text *text, const char *addr, size_t bytes)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long long start, end, where = (uintptr_t)addr;
	bool inside = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			inside = start < where + bytes && where < end;
		else if (strncmp(line, "VmFlags", 7) != 0)
			continue;
		if (inside)
			add(text, "  %s", line);
	}
	if (file)
		(void)fclose(file);
}

static void add_history(struct text *text, const struct page_shadow *page)
{
	uint32_t first = page->n_events > HISTORY ? page->n_events - HISTORY : 0;

	add(text, "  history of the page (operation number: operation, version at its end):\n");
	for (uint32_t i = first; i < page->n_events; i++) {
		const struct page_event *event = &page->events[i % HISTORY];

		add(text, "    %u: %s, version %u\n", event->op, op_name(event->code),
		    event->version);
	}
}

static void add_cells(struct text *text, const struct page_shadow *page, const uint64_t *words)
{
	uint32_t n = (uint32_t)cell_words();

	for (uint32_t c = 0; c < CELLS; c++) {
		uint32_t wrong = 0;

		for (uint32_t i = c * n; i < (c + 1) * n; i++)
			wrong += words[i] != shadow_word(page->key, i, page->cell[c]);
		add(text, "  cell %u: version %u expected, %u words of %u differ, first word ", c,
		    page->cell[c], wrong, n);
		add_word(text, words[c * n]);
		add(text, "\n");
	}
}

void fail_page(struct actor *a, const struct region *region, uint32_t index, uint32_t word,
	       const char *bytes, const char *how)
{
	const struct page_shadow *page = &region->pages[index];
	const uint64_t *words = (const uint64_t *)(const void *)bytes;
	uint32_t cell = word / (uint32_t)cell_words();
	const char *addr = page_addr(region, index);
	struct text text;

	if (!failure_begin(&text))
		failure_end();
	add(&text, "DIFFERENCE seen by %s\n", how);
	add_actor(&text, a);
	add(&text, "  address %p: page %u of %u of the region at %p (slot %td, kind %u%s)\n",
	    (const void *)(addr + word * sizeof(uint64_t)), index, region->n_pages,
	    (const void *)region->addr, region - a->regions, region->kind,
	    region->patched ? ", patched" : "");
	add(&text, "  page %07x, map %u, freed %u (sure %02x), flags %x\n", page->key, page->map,
	    page->freed, page->sure, page->flags);
	add(&text, "  expected ");
	add_word(&text, shadow_word(page->key, word, page->cell[cell]));
	add(&text, "\n  got      ");
	add_word(&text, words[word]);
	add(&text, "\n");
	add_cells(&text, page, words);
	add_pagemap(&text, addr);
	add_mappings(&text, addr, ctl->page_size);
	add_history(&text, page);
	failure_end();
}

static void __attribute__((noreturn, format(printf, 3, 0)))
vfail(struct actor *a, const struct region *region, const char *fmt, va_list args)
{
	struct text text;
	char line[1024];

	(void)vsnprintf(line, sizeof(line), fmt, args);
	if (!failure_begin(&text))
		failure_end();
	add(&text, "DIFFERENCE: %s\n", line);
	if (a)
		add_actor(&text, a);
	if (region) {
		add(&text, "  region at %p (slot %td), %u pages%s\n", (const void *)region->addr,
		    region - a->regions, region->n_pages, region->patched ? ", patched" : "");
		add_history(&text, &region->pages[0]);
		add_mappings(&text, region->addr, region->n_pages * ctl->page_size);
	}
	failure_end();
}

void fail(struct actor *a, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfail(a, NULL, fmt, args);
}

void fail_region(struct actor *a, const struct region *region, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfail(a, region, fmt, args);
}

void fail_note(const char *fmt, ...)
{
	struct text text;
	va_list args;

	if (!failure_begin(&text))
		return;
	va_start(args, fmt);
	(void)vsnprintf(text.at, text.left, fmt, args);
	va_end(args);
	__atomic_store_n(&ctl->failure.state, 2, __ATOMIC_RELEASE);
}

static struct actor *actor_of_this_thread(void)
{
	pid_t tid = (pid_t)syscall(SYS_gettid);

	for (uint32_t i = 0; i < ACTORS_MAX; i++)
		if (ctl->actors[i].state == ACTOR_RUNNING && ctl->actors[i].tid == tid)
			return &ctl->actors[i];
	return NULL;
}

static void on_fault(int signo, siginfo_t *info, void *context)
{
	struct actor *a = actor_of_this_thread();
	struct text text;

	(void)context;
	if (!failure_begin(&text))
		failure_end();
	add(&text, "DIFFERENCE: signal %d (code %d) at %p\n", signo, info->si_code, info->si_addr);
	if (a)
		add_actor(&text, a);
	for (uint32_t r = 0; a && r < REGIONS_MAX; r++) {
		const struct region *region = &a->regions[r];
		size_t at = (size_t)((const char *)info->si_addr - region->addr);

		if (region->kind == REGION_FREE || at >= region->n_pages * ctl->page_size)
			continue;
		add(&text, "  page %zu of the region at %p (slot %u), page %07x, map %u\n",
		    at / ctl->page_size, (const void *)region->addr, r,
		    region->pages[at / ctl->page_size].key, region->pages[at / ctl->page_size].map);
		add_history(&text, &region->pages[at / ctl->page_size]);
	}
	add_pagemap(&text, info->si_addr);
	add_mappings(&text, info->si_addr, 1);
	failure_end();
}

void fail_install_handlers(void)
{
	const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	(void)sigaction(SIGSEGV, &action, NULL);
	(void)sigaction(SIGBUS, &action, NULL);
	(void)sigaction(SIGILL, &action, NULL);
}
