/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The keeper of targets. A thread that samples what each space holds in host RAM, from the
 * kernel, and tells the workers of a group that comes near its target how much to take out:
 * ahead of need, by watermarks and by the rate of growth. It also notices what a program does
 * that an agent may not outlive: a seccomp filter, another uid.
 *
 * It only reads /proc and writes atomics and mailboxes; it moves nothing itself. Now and then
 * it closes stores whose last page has gone, without the registry's lock: a backend may block.
 *
 *        target ------------------------------  first touches wait for room (pacing)
 *        high   = target - reserve              eviction starts when the forecast is above
 *        low    = high - step                   and goes down to here
 */
#define _GNU_SOURCE
#include "keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "config.h"
#include "log.h"
#include "object.h"
#include "wire.h"

/* Spaces of groups without a target are looked at this many samples apart. */
#define KEEPER_SLOW 20u
/* Families whose stores are closed at a time. */
#define KEEPER_REAP_MAX 64u
/* Room kept below the target: two batches, or a sixteenth. */
#define KEEPER_RESERVE_PAGES (2u * BATCH_PAGES_MAX)

static uint64_t field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static bool ids_changed(uid_t uid, const char *text)
{
	unsigned int r, e, s, f;
	const char *at = strstr(text, "\nUid:");

	if (!at || sscanf(at + 5, "%u %u %u %u", &r, &e, &s, &f) != 4)
		return false;
	return r != uid || e != uid || s != uid;
}

/* Has a filter come since the agent did? (1 is the strict mode, which has none.) */
static bool sandbox_came(const struct space *space, const char *text)
{
	return field(text, "\nSeccomp:") == 1 ||
	       field(text, "\nSeccomp_filters:") > space->n_filters;
}

/* Is the agent itself under the filter? Then any call of it, even exit, may kill the program:
 * it is left asleep for ever. */
static bool agent_is_filtered(const struct space *space, const struct agent_view *view)
{
	char path[64], text[4096];
	ssize_t n = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", view->pid, view->tid);
	file = fopen(path, "re");
	if (file) {
		n = (ssize_t)fread(text, 1, sizeof(text) - 1, file);
		fclose(file);
	}
	if (n <= 0)
		return true;
	text[n] = '\0';
	return sandbox_came(space, text);
}

static void dismiss_agent(struct space *space, const struct agent_view *view,
			  enum uhmm_reason reason)
{
	bool filtered = agent_is_filtered(space, view);

	if (filtered ? agent_dismiss(space, view->gen, reason, false)
		     : agent_retire(space, view->gen, reason))
		log_info("pid %d: agent dismissed: %s", view->pid, uhmm_reason_name(reason));
}

/* One look at a space: its pages in host RAM. */
static uint64_t keeper_sample(struct space *space)
{
	bool has_agent;
	struct agent_view view;
	char text[4096];
	uint64_t kb;
	ssize_t n;

	/* Before the look: what is seen is then about this agent's program or a later one's. */
	has_agent = agent_view(space, &view);
	n = pread(space->status_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	kb = field(text, "\nRssAnon:");
	__atomic_store_n(&space->shmem_pages,
			 field(text, "\nRssShmem:") * 1024u / space->page_size, __ATOMIC_RELAXED);
	__atomic_store_n(&space->host_pages, kb * 1024u / space->page_size, __ATOMIC_RELAXED);
	__atomic_store_n(&space->locked_kb, field(text, "\nVmLck:"), __ATOMIC_RELAXED);
	if (has_agent && sandbox_came(space, text))
		dismiss_agent(space, &view, UHMM_REASON_SECCOMP);
	else if (has_agent && ids_changed(view.uid, text))
		dismiss_agent(space, &view, UHMM_REASON_UID_CHANGED);
	return kb * 1024u / space->page_size;
}

static bool is_sampled(const struct space *space)
{
	return space_get_state(space) == SPACE_SERVING &&
	       __atomic_load_n(&space->identified, __ATOMIC_ACQUIRE);
}

/* Its share of what the group wants out. */
static void keeper_ask(struct space *space, uint64_t want)
{
	if (!space_has_agent(space) || __atomic_load_n(&space->hold, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&space->want_pages, want, __ATOMIC_RELAXED);
	if (want == 0 && !__atomic_load_n(&space->group->pacing, __ATOMIC_RELAXED))
		return;
	if (space_start_worker_locked(space) == 0)
		space_kick(space);
}

/* Shared memory counts once, however many map it. */
struct object_share {
	const struct group *group;
	uint64_t pages;	    /* in host RAM: their sum */
	uint64_t want, sum; /* what the group wants out, of how much */
	bool any;
};

static void count_object(struct object *object, void *arg)
{
	struct object_share *share = arg;

	if (object->group == share->group)
		share->pages += stats_get(&object->resident_pages);
}

static void ask_object(struct object *object, void *arg)
{
	struct object_share *share = arg;
	uint64_t host = stats_get(&object->resident_pages);

	if (object->group != share->group || host == 0)
		return;
	__atomic_store_n(&object->want_pages, share->want * host / share->sum + 1,
			 __ATOMIC_RELAXED);
	share->any = true;
}

static uint64_t count_objects(const struct group *group)
{
	struct object_share share = { .group = group };

	object_each(count_object, &share);
	return share.pages;
}

static void ask_objects(const struct group *group, uint64_t want, uint64_t sum)
{
	struct object_share share = { .group = group, .want = want, .sum = sum };

	if (want == 0 || sum == 0)
		return;
	object_each(ask_object, &share);
	if (share.any)
		object_kick();
}

static void keeper_decide(struct group *group, uint64_t sum, uint64_t leaving)
{
	uint64_t target = stats_get(&group->target_pages), reserve, high, low, forecast, want = 0;
	uint64_t grown = sum > group->sampled_pages ? sum - group->sampled_pages : 0;
	struct list *pos;

	__atomic_store_n(&group->sampled_pages, sum, __ATOMIC_RELAXED);
	__atomic_store_n(&group->est_pages, (int64_t)sum, __ATOMIC_RELAXED);
	if (sum > group->peak_pages)
		__atomic_store_n(&group->peak_pages, sum, __ATOMIC_RELAXED);
	if (target == 0)
		return;
	reserve = target / 16 > KEEPER_RESERVE_PAGES ? target / 16 : KEEPER_RESERVE_PAGES;
	high = target > 2 * reserve ? target - reserve : target / 2;
	low = high - high / 16;
	forecast = sum + 2 * grown;
	if (forecast > high)
		want = forecast - low > leaving ? forecast - low - leaving : 0;
	if (forecast > high)
		__atomic_store_n(&group->pacing, true, __ATOMIC_RELAXED);
	else if (sum < low - low / 8)
		__atomic_store_n(&group->pacing, false, __ATOMIC_RELAXED);
	ask_objects(group, want, sum);
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);
		uint64_t host = stats_get(&space->host_pages);

		if (space->group == group && is_sampled(space) && sum)
			keeper_ask(space, want ? want * host / sum + 1 : 0);
	}
}

static void keeper_round(uint64_t round)
{
	struct list *gpos, *pos;

	registry_lock();
	list_for_each(gpos, &registry_groups) {
		struct group *group = list_entry(gpos, struct group, link);
		uint64_t sum = 0, leaving = 0;

		if (stats_get(&group->target_pages) == 0 && round % KEEPER_SLOW != 0)
			continue;
		list_for_each(pos, &registry_spaces) {
			struct space *space = list_entry(pos, struct space, link);

			if (space->group != group || !is_sampled(space))
				continue;
			sum += keeper_sample(space);
			leaving += stats_get(&space->leaving_pages);
		}
		sum += count_objects(group);
		keeper_decide(group, sum, leaving);
	}
	registry_unlock();
}

void keeper_reap(void)
{
	struct space *some[KEEPER_REAP_MAX];
	struct list *pos;
	size_t n = 0;

	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);

		if (n == KEEPER_REAP_MAX)
			break;
		if (!family_has_dead(space->family))
			continue;
		space->n_refs++;
		some[n++] = space;
	}
	registry_unlock();
	for (size_t i = 0; i < n; i++) {
		family_reap(some[i]->family);
		space_unref(some[i]);
	}
}

static void *keeper_run(void *arg)
{
	const struct daemon_env *env = arg;
	struct timespec next;

	prctl(PR_SET_NAME, "uhmmd-keeper", 0, 0, 0);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t round = 0;; round++) {
		keeper_round(round);
		if (round % KEEPER_SLOW == 0)
			keeper_reap();
		next.tv_nsec += (long)env->config->sample_usec * 1000;
		while (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return NULL;
}

int keeper_start(const struct daemon_env *env)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = -pthread_create(&thread, &attr, keeper_run, (void *)(uintptr_t)env);
	pthread_attr_destroy(&attr);
	return err;
}
