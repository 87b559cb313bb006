/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker of a space. One thread does everything that touches the space's pages, in this
 * order, for ever:
 *
 *   wait for: a message of the userfaultfd, an answer of the agent, mail, a time
 *   close the gate, read, apply events      fault_read
 *   sort what a child inherited             fork_sort_unmarked
 *   serve faults                            fault_serve_all
 *   look at a child that is new             event_look_around
 *   help an mremap out of a knot            populate_step
 *   requests                                home_step, survey_step
 *   advance and start batches               evict_step
 *   let go of what is all home              home_release
 *
 * So the one order of things needs no lock: it is the order of this loop.
 *
 * Latency depends on where it runs: a handler on the faulting thread's own CPU is woken several
 * times faster than one elsewhere, so the worker follows the thread that faults.
 */
#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "comeback.h"
#include "config.h"
#include "control.h"
#include "event.h"
#include "evict.h"
#include "fault.h"
#include "fork.h"
#include "ground.h"
#include "home.h"
#include "log.h"
#include "object.h"
#include "pick.h"
#include "populate.h"
#include "quiesce.h"
#include "survey.h"
#include "tier.h"
#include "uffd.h"

/* Nothing to do: look around this often. */
#define IDLE_NS 200000000
/* Something waits for a time or for a thread of the program. */
#define RETRY_NS 1000000
/* The address space is ending: ask whether it has. */
#define DRAIN_NS 5000000
#define RELEASE_NS 500000000u
/* Every so many faults, look where the faulting thread runs. */
#define FOLLOW_FAULTS 64u

/* ---- where it runs ---------------------------------------------------------------------- */

/* Field 39 of /proc/TID/stat: the CPU that the thread ran on last. */
static int cpu_of(pid_t pid, uint32_t tid)
{
	char path[64], text[1024], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%u/stat", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	at = strrchr(text, ')');
	for (int field = 2; at && field < 39; field++) {
		at = strchr(at + 1, ' ');
	}
	return at ? atoi(at + 1) : -1;
}

static void worker_follow(struct space *space)
{
	cpu_set_t set;
	int cpu;

	if (space->n_faults == 0 || space->follow_countdown-- > 0)
		return;
	space->follow_countdown = FOLLOW_FAULTS;
	cpu = cpu_of(space->pid, space->faults[0].tid);
	if (cpu < 0 || cpu == space->worker_cpu || cpu >= CPU_SETSIZE)
		return;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		space->worker_cpu = cpu;
}

/* ---- the loop --------------------------------------------------------------------------- */

static void worker_drain_eventfd(int fd)
{
	uint64_t count;

	(void)!read(fd, &count, sizeof(count));
}

/* One long request of a kind at a time; what is short waits for none. */
static bool mail_must_wait(const struct space *space, const struct mail *mail)
{
	switch (mail->type) {
	case MAIL_EVICT:
	case MAIL_RESTORE:
	case MAIL_MIGRATE:
	case MAIL_QUIT:
		return space->current != NULL;
	case MAIL_MAPS:
		return space->surveying != NULL;
	case MAIL_AGENT:
		return space->attaching != NULL;
	case MAIL_QUERY:
	case MAIL_OBJECT_JOIN:
	case MAIL_OBJECT_LEAVE:
	case MAIL_OBJECT_PROTECT:
	case MAIL_OBJECT_STORE:
		break;
	}
	return false;
}

static struct mail *worker_next_mail(struct space *space)
{
	struct mail *found = NULL;
	struct list *pos;

	pthread_mutex_lock(&space->mail_lock);
	list_for_each(pos, &space->mail) {
		struct mail *mail = list_entry(pos, struct mail, link);

		if (mail_must_wait(space, mail))
			continue;
		list_del(&mail->link);
		found = mail;
		break;
	}
	pthread_mutex_unlock(&space->mail_lock);
	return found;
}

static int64_t worker_timeout(const struct space *space)
{
	if (space->n_events || space->n_faults || space->n_unmarked)
		return RETRY_NS;
	if (space->current || space->attaching || evict_is_busy(space))
		return RETRY_NS;
	if (stats_get(&space->want_pages) && space_has_agent(space) && !space_is_held(space))
		return RETRY_NS;
	if (space_get_state(space) == SPACE_DRAINING || !quiesce_is_idle(&space->quiesce))
		return DRAIN_NS;
	return IDLE_NS;
}

static void worker_wait(struct space *space, bool at_once)
{
	struct pollfd fds[] = {
		{ .fd = space->uffd, .events = POLLIN },
		{ .fd = space->mail_efd, .events = POLLIN },
		{ .fd = space->agent_efd, .events = POLLIN },
	};
	struct timespec timeout = { .tv_nsec = at_once ? 0 : worker_timeout(space) };

	if (ppoll(fds, 3, &timeout, NULL) <= 0)
		return;
	if (fds[1].revents)
		worker_drain_eventfd(space->mail_efd);
	if (fds[2].revents)
		worker_drain_eventfd(space->agent_efd);
	space->readable = fds[0].revents & POLLIN;
	/* The program shares the description, and has cleared its flag: poll says nothing else. */
	if (fds[0].revents & POLLERR)
		(void)fcntl(space->uffd, F_SETFL, O_NONBLOCK);
}

/* True: there may be more. A QUERY can take long, so after one the rest of the world has its
 * turn. */
static bool worker_take_mail(struct space *space)
{
	struct mail *mail;

	while ((mail = worker_next_mail(space))) {
		bool takes_long = mail->type == MAIL_QUERY;

		home_take_mail(space, mail);
		if (takes_long)
			return true;
	}
	return false;
}

/* Is the address space still there? Asked when its socket closed, and now and then of a child
 * that we know no process of. */
static void worker_check_alive(struct space *space)
{
	if (uffd_alive(space->uffd) == UFFD_GONE)
		space->gone = true;
}

static void worker_publish(struct space *space)
{
	uint64_t before = stats_get(&space->tier_pages), now = space->map.n_away;

	if (before == now)
		return;
	__atomic_store_n(&space->tier_pages, now, __ATOMIC_RELAXED);
	group_add_tier_pages(space->group, (int64_t)now - (int64_t)before);
}

/* Do first touches have to come through us? Not of a space that is to be left alone, or that
 * nothing leaves any more. */
static bool worker_is_pacing(const struct space *space)
{
	return __atomic_load_n(&space->group->pacing, __ATOMIC_RELAXED) && !space_is_held(space) &&
	       space_has_agent(space);
}

static void worker_release(struct space *space, uint64_t *last_ns)
{
	uint64_t now_ns = clock_now_ns();

	/* All home after a request: at once. Otherwise it can wait. */
	bool all_home = space->map.n_away == 0 && space_is_held(space);

	if (space->registered.n == 0 || space->current || worker_is_pacing(space))
		return;
	if (!all_home && now_ns - *last_ns < RELEASE_NS)
		return;
	*last_ns = now_ns;
	home_release(space);
	evict_trim(space);
}

/* Growth that escapes between two looks at the maps is what a target overshoots by. */
static void worker_pace(struct space *space)
{
	if (!worker_is_pacing(space) || !space_has_agent(space) || !space->beacon_out ||
	    space->n_events ||
	    pick_refresh_maps(space, space->env->config->sample_usec * 1000u) < 0)
		return;
	for (size_t i = 0; i < space->maps.n; i++) {
		const struct mapping *m = &space->maps.v[i];

		if (m->reason == UHMM_REASON_NONE && !ranges_find(&space->unmanaged, m->start) &&
		    !(m->is_stack && m->end > space->stack_top_addr))
			(void)ground_register(space, m->start, m->end);
	}
}

static void worker_end(struct space *space)
{
	struct mail **const at_work[] = { &space->current, &space->surveying, &space->attaching,
					  &space->object_mail };
	struct mail *mail;

	pthread_mutex_lock(&space->mail_lock);
	__atomic_store_n(&space->state, SPACE_DEAD, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&space->mail_lock);
	agent_free_warden(space);
	object_leave_all(space);
	evict_end(space);
	for (size_t i = 0; i < sizeof(at_work) / sizeof(at_work[0]); i++) {
		mail = *at_work[i];
		*at_work[i] = NULL;
		if (mail) {
			mail->error = at_work[i] == &space->object_mail ? -ENOTCONN : -ESRCH;
			control_complete(mail);
		}
	}
	while ((mail = worker_next_mail(space))) {
		mail->error = -ESRCH;
		control_complete(mail);
	}
	group_add_tier_pages(space->group, -(int64_t)stats_get(&space->tier_pages));
	stats_add(&space->tier_pages, -stats_get(&space->tier_pages));
	log_debug("space %llu (pid %d): ended", (unsigned long long)space->id, space->pid);
}

void *worker_run(void *arg)
{
	struct space *space = arg;
	uint64_t released_ns = clock_now_ns(), alive_ns = released_ns;
	bool more = false;

	prctl(PR_SET_NAME, "uhmmd-worker", 0, 0, 0);
	if (space->comeback)
		comeback_settle(space);
	while (!space->gone) {
		worker_wait(space, more);
		if (space->readable || space->n_events) {
			space->readable = false;
			fault_read(space);
			worker_follow(space);
		}
		fork_sort_unmarked(space);
		fault_serve_all(space);
		event_look_around(space);
		populate_step(space);
		more = worker_take_mail(space);
		more |= home_step(space);
		more |= survey_step(space);
		quiesce_step(space);
		evict_step(space);
		object_agent_step(space);
		object_prune(space);
		worker_pace(space);
		worker_release(space, &released_ns);
		worker_publish(space);
		if (clock_now_ns() - alive_ns > DRAIN_NS) {
			alive_ns = clock_now_ns();
			worker_check_alive(space);
		}
	}
	worker_end(space);
	space_unref(space);
	return NULL;
}
