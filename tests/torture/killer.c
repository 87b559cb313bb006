/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The killer. The time between two kills is exponentially distributed, and runs on while the next
 * daemon starts and takes over: that one may be killed at it, too. A pause lasts from the first
 * kill until the probe (probe.h) has been served by a daemon that has come up since.
 */
#include "killer.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "probe.h"
#include "torture.h"

#define FINISH_NS 30000000000u
#define FINISH_STEP_NS 5000000

static void draw_next(struct killer *killer)
{
	double even = ((double)(random_next(&killer->rng) >> 11) + 1) / (double)(1ull << 53);

	killer->due_ns = now_ns() + (uint64_t)(-log(even) * killer->mean_ms * 1e6);
}

void killer_init(struct killer *ret_killer, struct service *service, unsigned int mean_ms,
		 uint64_t seed)
{
	ret_killer->service = service;
	ret_killer->mean_ms = mean_ms;
	ret_killer->rng = hash2(seed, 0x6b696c6c);
	ret_killer->ready_ns = now_ns();
	if (mean_ms)
		draw_next(ret_killer);
}

static bool end_daemon(struct killer *killer, int (*end)(struct service *service))
{
	uint64_t at_ns = now_ns();

	killer->n_kills++;
	killer->ready_ns = 0;
	probe_expect(0);
	if (killer->killed_ns == 0)
		killer->killed_ns = at_ns;
	if (killer->mean_ms)
		draw_next(killer);
	if (end(killer->service) == 0)
		return true;
	fail_note("DIFFERENCE: the daemon cannot be started again\n");
	return false;
}

bool killer_follow(struct killer *killer)
{
	killer->n_own++;
	return end_daemon(killer, service_start_again);
}

/* It has said something: that it listens, or why it does not. */
static bool take_ready(struct killer *killer)
{
	uint64_t at_ns = now_ns();

	if (service_take_ready(killer->service) < 0) {
		if (killer->kills_itself)
			return true; /* it will be reaped */
		fail_note("DIFFERENCE: the daemon does not come up again\n");
		return false;
	}
	killer->ready_ns = at_ns;
	probe_expect(at_ns);
	return true;
}

static void note_pause(struct killer *killer)
{
	uint64_t served_ns = probe_served_ns();

	if (killer->killed_ns == 0 || killer->ready_ns == 0 || served_ns == 0)
		return;
	if (killer->n_pauses < PAUSES_MAX)
		killer->pauses_us[killer->n_pauses++] =
			(uint32_t)((served_ns - killer->killed_ns) / 1000);
	killer->killed_ns = 0;
}

bool killer_step(struct killer *killer)
{
	bool good = true;

	note_pause(killer);
	if (killer->ready_ns == 0 && service_is_answering(killer->service))
		good = take_ready(killer);
	if (good && killer->mean_ms && now_ns() >= killer->due_ns)
		good = end_daemon(killer, service_kill);
	return good;
}

bool killer_has_daemon(const struct killer *killer)
{
	return killer->ready_ns != 0;
}

void killer_sleep(const struct killer *killer, long nsec)
{
	struct pollfd pollfd = { .fd = killer->service->daemon.ready_fd, .events = POLLIN };
	struct timespec time = { .tv_nsec = nsec };
	uint64_t now = now_ns();

	if (killer->mean_ms && killer->due_ns < now + (uint64_t)nsec)
		time.tv_nsec = killer->due_ns > now ? (long)(killer->due_ns - now) : 0;
	(void)ppoll(&pollfd, killer->ready_ns == 0, &time, NULL);
}

bool killer_finish(struct killer *killer)
{
	uint64_t until_ns = now_ns() + FINISH_NS;

	if (killer->mean_ms == 0)
		return true;
	killer->mean_ms = 0;
	while (killer->killed_ns && now_ns() < until_ns) {
		if (!killer_step(killer))
			return false;
		killer_sleep(killer, FINISH_STEP_NS);
	}
	if (killer->killed_ns)
		fail_note("DIFFERENCE: the probe is not served any more\n");
	return killer->killed_ns == 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

void killer_print(struct killer *killer, uint32_t n_incomplete)
{
	uint32_t n = killer->n_pauses;

	qsort(killer->pauses_us, n, sizeof(*killer->pauses_us), compare);
	printf("kills=%u", killer->n_kills);
	if (killer->kills_itself)
		printf(" own=%u", killer->n_own);
	printf(" pauses=%u", n);
	if (n)
		printf(" pause_ms p50=%.1f p90=%.1f max=%.1f", killer->pauses_us[n / 2] / 1e3,
		       killer->pauses_us[n * 9 / 10] / 1e3, killer->pauses_us[n - 1] / 1e3);
	printf(" incomplete=%u\n", n_incomplete);
}
