/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The probe: a managed process with some pages that it sends away again and again, and touches one
 * after the other. A touch counts if the page was away just before, as /proc/self/pagemap says;
 * so its end is a moment at which the daemon served. Besides it looks at what it gets.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <uhmm/uhmm.h>

#include "fail.h"
#include "torture.h"

#define PROBE_PAGES 512u
#define PAUSE_NS 1000000
#define PAGEMAP_PRESENT (1ull << 63)

static void send_away(char *pages)
{
	static struct uhmm *handle;

	if (!handle && uhmm_open(NULL, &handle) < 0)
		handle = NULL;
	if (handle && uhmm_migrate(handle, pages, PROBE_PAGES * ctl->page_size,
				   UHMM_TO_TIER) == -ENOTCONN) {
		uhmm_close(handle); /* it was another daemon's */
		handle = NULL;
	}
}

static bool is_away(int pagemap_fd, const char *page)
{
	uint64_t entry = PAGEMAP_PRESENT;

	(void)!pread(pagemap_fd, &entry, sizeof(entry),
		     (off_t)((uintptr_t)page / ctl->page_size * sizeof(entry)));
	return !(entry & PAGEMAP_PRESENT);
}

static void note_served(uint64_t at_ns)
{
	uint64_t after_ns = __atomic_load_n(&ctl->probe.after_ns, __ATOMIC_ACQUIRE), none = 0;

	if (after_ns && at_ns > after_ns)
		(void)__atomic_compare_exchange_n(&ctl->probe.served_ns, &none, at_ns, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void touch(int pagemap_fd, char *pages, uint32_t i)
{
	char *page = pages + i * ctl->page_size;
	bool away = is_away(pagemap_fd, page);
	uint64_t word = *(volatile uint64_t *)(void *)page;

	if (away)
		note_served(now_ns());
	if (word != hash2(ctl->seed, i))
		fail_note("DIFFERENCE: page %u of the probe holds %016llx, expected %016llx\n", i,
			  (unsigned long long)word, (unsigned long long)hash2(ctl->seed, i));
}

int probe_main(void)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	size_t bytes = PROBE_PAGES * ctl->page_size;
	char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pages == MAP_FAILED || pagemap_fd < 0) {
		perror("uhmm-torture: the probe");
		return 2;
	}
	for (uint32_t i = 0; i < PROBE_PAGES; i++)
		*(uint64_t *)(void *)(pages + i * ctl->page_size) = hash2(ctl->seed, i);
	for (;;) {
		send_away(pages);
		for (uint32_t i = 0; i < PROBE_PAGES; i++) {
			touch(pagemap_fd, pages, i);
			(void)nanosleep(&pause, NULL);
		}
	}
}

void probe_expect(uint64_t after_ns)
{
	__atomic_store_n(&ctl->probe.after_ns, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&ctl->probe.served_ns, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&ctl->probe.after_ns, after_ns, __ATOMIC_RELEASE);
}

uint64_t probe_served_ns(void)
{
	return __atomic_load_n(&ctl->probe.served_ns, __ATOMIC_ACQUIRE);
}
