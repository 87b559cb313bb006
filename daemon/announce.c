/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The words for the service manager: one line on what the daemon serves, or on what it still
 * has to bring home before it can end, and a sign of life. Called by control, on its thread.
 *
 * The sign of life says that the control thread turns and gets the registry's lock. It says
 * nothing about workers: one may wait for a slow tier, and ending the daemon would not help it.
 */
#include "announce.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "service.h"
#include "space.h"

/* A person reads the line: no need for more. */
#define ANNOUNCE_NS 500000000u

struct announcement {
	unsigned int n_spaces;
	uint64_t away_bytes;
};

static struct announcement announce_look(void)
{
	struct announcement now = { 0 };
	struct list *pos;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		const struct space *space = list_entry(pos, struct space, link);
		enum space_state state = space_get_state(space);

		if (state != SPACE_SERVING && state != SPACE_DRAINING)
			continue;
		now.n_spaces++;
		now.away_bytes += stats_get(&space->tier_pages) * space->page_size;
	}
	registry_unlock();
	return now;
}

static void announce_line(const struct announcement *now, bool stopping, char *out,
			  size_t out_bytes)
{
	unsigned long long mib = now->away_bytes >> 20;
	unsigned int tenths = (unsigned int)((now->away_bytes & 0xfffff) * 10 >> 20);

	if (stopping && now->away_bytes)
		snprintf(out, out_bytes,
			 "STOPPING=1\nSTATUS=Stopping: %llu.%u MiB still to be brought home, "
			 "managed processes: %u",
			 mib, tenths, now->n_spaces);
	else if (stopping)
		snprintf(out, out_bytes, "STOPPING=1\nSTATUS=Stopping: all pages are home");
	else
		snprintf(out, out_bytes, "STATUS=Serving: %llu.%u MiB on tiers, managed processes: %u",
			 mib, tenths, now->n_spaces);
}

void announce_ready(void)
{
	service_ready("Serving");
}

void announce_tick(bool stopping)
{
	static uint64_t watchdog_ns, alive_ns, looked_ns;
	static bool begun, was_stopping;
	static char said[160];
	uint64_t now_ns = clock_now_ns();
	struct announcement now;
	char line[sizeof(said)];

	if (!begun) {
		begun = true;
		watchdog_ns = service_watchdog_ns();
	}
	if (watchdog_ns && now_ns - alive_ns >= watchdog_ns / 4) {
		alive_ns = now_ns;
		service_notify("WATCHDOG=1");
	}
	if (now_ns - looked_ns < ANNOUNCE_NS && stopping == was_stopping)
		return;
	looked_ns = now_ns;
	was_stopping = stopping;
	now = announce_look();
	announce_line(&now, stopping, line, sizeof(line));
	if (strcmp(line, said) == 0)
		return;
	strcpy(said, line);
	service_notify(line);
}
