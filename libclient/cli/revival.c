/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A private daemon that ended before its time: told in one line, and started again on the same
 * directory, where the next one finds what this one had; programs that touch memory that is
 * away wait meanwhile. Called by run.c on the only thread. Never here: a loop of starts without
 * a pause, or a wait while the command runs.
 */
#include "revival.h"

#include <poll.h>
#include <string.h>
#include <time.h>

#include "cli.h"

/* The first start is at once; then these. */
#define FIRST_DELAY_MS 100u
#define LAST_DELAY_MS 5000u
/* One that served for so long was no failed start. */
#define GOOD_NS 10000000000u
#define START_NS 30000000000u

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool is_readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return fd >= 0 && poll(&pollfd, 1, 0) == 1;
}

void revival_init(struct revival *ret_revival, const struct private_options *options)
{
	*ret_revival = (struct revival){
		.state = REVIVAL_SERVING,
		.options = *options,
		.since_ns = now_ns(),
	};
}

static void wait_for_next(struct revival *revival)
{
	revival->state = REVIVAL_WAITING;
	revival->due_ns = now_ns() + revival->delay_ms * 1000000ull;
	revival->delay_ms *= 2;
	if (revival->delay_ms == 0)
		revival->delay_ms = FIRST_DELAY_MS;
	else if (revival->delay_ms > LAST_DELAY_MS)
		revival->delay_ms = LAST_DELAY_MS;
}

static void take_end(struct revival *revival, struct private_daemon *daemon)
{
	bool served = revival->state == REVIVAL_SERVING;
	char how[32];

	private_take_end(daemon, how, sizeof(how));
	if (served) {
		cli_error("the private daemon ended (%s): starting it again", how);
		revival->explained = false;
		if (now_ns() - revival->since_ns >= GOOD_NS)
			revival->delay_ms = 0;
	}
	wait_for_next(revival);
}

static void start(struct revival *revival, struct private_daemon *daemon)
{
	int error = private_start_again(&revival->options, daemon);

	if (!error) {
		revival->state = REVIVAL_STARTING;
		revival->due_ns = now_ns() + START_NS;
		return;
	}
	if (!revival->explained)
		cli_error("cannot start the private daemon: %s", strerror(-error));
	revival->explained = true;
	wait_for_next(revival);
}

/* It said something, or closed its end. True: it listens. */
static bool take_ready(struct revival *revival, struct private_daemon *daemon)
{
	char line[256], text[256];

	if (private_take_ready(daemon, line, sizeof(line)) == 0) {
		revival->state = REVIVAL_SERVING;
		revival->since_ns = now_ns();
		return true;
	}
	if (!revival->explained)
		cli_error("the private daemon did not start: %s",
			  *line ? cli_printable(line, text, sizeof(text)) : "no answer");
	revival->explained = true;
	return false;
}

bool revival_step(struct revival *revival, struct private_daemon *daemon)
{
	switch (revival->state) {
	case REVIVAL_NONE:
		return false;
	case REVIVAL_STARTING:
		if (is_readable(daemon->ready_fd) ||
		    (daemon->ready_fd >= 0 && now_ns() >= revival->due_ns))
			return take_ready(revival, daemon);
		__attribute__((fallthrough));
	case REVIVAL_SERVING:
		if (is_readable(daemon->pidfd))
			take_end(revival, daemon);
		break;
	case REVIVAL_WAITING:
		break;
	}
	if (revival->state == REVIVAL_WAITING && now_ns() >= revival->due_ns)
		start(revival, daemon);
	return false;
}

int revival_timeout_ms(const struct revival *revival)
{
	uint64_t now = now_ns();

	if (revival->state != REVIVAL_WAITING && revival->state != REVIVAL_STARTING)
		return -1;
	/* Rounded up: a wait that ends early begins again. */
	return revival->due_ns > now ? (int)((revival->due_ns - now) / 1000000u + 1) : 0;
}

bool revival_finish(struct revival *revival, struct private_daemon *daemon)
{
	char how[32];

	if (revival_step(revival, daemon))
		return true;
	if (revival->state == REVIVAL_WAITING)
		start(revival, daemon);
	if (revival->state != REVIVAL_STARTING)
		return false;
	if (take_ready(revival, daemon))
		return true;
	private_take_end(daemon, how, sizeof(how));
	revival->state = REVIVAL_NONE;
	return false;
}
