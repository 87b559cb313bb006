/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The object thread: looks at which shared memory programs map, brings it under management
 * when something of it is to leave, takes pages out, and lets go of what is all home. One
 * thread for all objects; a slow tier makes it slow, and no fault waits for it.
 *
 * It knows what is wanted from the keeper (want_pages of an object) and from requests, which
 * workers pass on when the private memory is done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "config.h"
#include "control.h"
#include "log.h"
#include "object.h"
#include "util/array.h"

/* How often it looks around. */
#define ROUND_NS 20000000u
#define SCAN_NS 250000000u
/* A refused object is looked at again after this. */
#define RETRY_NS 500000000u
/* Taking something out of one is tried again after this at the latest. */
#define VAIN_MAX_NS 1000000000u
/* One that is all home is let go after this. */
#define IDLE_NS 1000000000u
/* What mappers that take their leave have not brought home by then, they do not map. */
#define QUIT_NS 1000000000u
/* Smaller ones are not worth a descriptor and an arena. */
#define OBJECT_PAGES_MIN 16u
#define COPY_PATIENCE_SEC 2

struct request {
	struct list link;
	struct space *space; /* with a reference */
	struct mail *mail;
};

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_cond = PTHREAD_COND_INITIALIZER;
static struct list queue = LIST_INIT(queue);
static bool kicked;
static const struct daemon_env *thread_env;

/* ---- asking a worker ----------------------------------------------------------------- */

struct call {
	struct mail mail;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done, abandoned;
};

static void call_free(struct call *call)
{
	object_put(call->mail.object);
	pthread_mutex_destroy(&call->lock);
	pthread_cond_destroy(&call->cond);
	free(call);
}

static void call_done(struct mail *mail)
{
	struct call *call = list_entry(mail, struct call, mail);
	bool abandoned;

	pthread_mutex_lock(&call->lock);
	call->done = true;
	abandoned = call->abandoned;
	pthread_cond_signal(&call->cond);
	pthread_mutex_unlock(&call->lock);
	if (!abandoned)
		return;
	free(call->mail.copy);
	call_free(call);
}

static struct call *call_new(struct object *object, enum mail_type type)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	pthread_mutex_init(&call->lock, NULL);
	pthread_cond_init(&call->cond, NULL);
	list_init(&call->mail.link);
	call->mail.type = type;
	/* Who answers late may do so when we have let go of it. */
	call->mail.object = object_get(object->dev, object->ino, NULL, thread_env);
	call->mail.done = call_done;
	return call;
}

/* Wait for the answer, with a bound if there is one. Frees the call when it is answered. */
static int call_wait(struct call *call, const struct timespec *until)
{
	bool done;
	int err = 0;

	pthread_mutex_lock(&call->lock);
	while (!call->done && err == 0)
		err = until ? pthread_cond_timedwait(&call->cond, &call->lock, until)
			    : pthread_cond_wait(&call->cond, &call->lock);
	done = call->done;
	call->abandoned = !done;
	err = done ? call->mail.error : -ETIMEDOUT;
	pthread_mutex_unlock(&call->lock);
	if (done)
		call_free(call); /* else whoever answers does */
	return err;
}

int object_ask(struct space *space, struct object *object, enum mail_type type, const void *arg)
{
	struct call *call = call_new(object, type);

	if (!call)
		return -ENOMEM;
	call->mail.arg = arg;
	space_post(space, &call->mail);
	return call_wait(call, NULL);
}

int object_ask_copy(struct space *space, struct object *object, struct object_copy **copy)
{
	struct call *call = call_new(object, MAIL_OBJECT_STORE);
	struct timespec until;
	int err;

	if (!call)
		return -EBUSY;
	call->mail.copy = *copy;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += COPY_PATIENCE_SEC;
	space_post(space, &call->mail);
	err = call_wait(call, &until);
	if (err == -ETIMEDOUT)
		*copy = NULL;
	return err;
}

/* ---- what there is ------------------------------------------------------------------- */

/* How many pages the object has in host RAM. */
static uint64_t count_resident(int fd, unsigned int page_shift)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : ((uint64_t)st.st_blocks * 512u) >> page_shift;
}

static void count_unopened(struct object *object, const struct space *space,
			   const struct mapping *m)
{
	int fd = object_open_mapped(space, m);

	if (fd < 0)
		return;
	__atomic_store_n(&object->resident_pages, count_resident(fd, object->page_shift),
			 __ATOMIC_RELAXED);
	close(fd);
}

/* Not what we share with the program ourselves. */
static bool is_candidate(struct space *space, const struct mapping *m)
{
	return m->shared && m->reason == UHMM_REASON_SHARED &&
	       m->start != agent_ring_addr(space);
}

/* A space that has shared memory. Its mappings are read here, not by its worker, which may not
 * even run. */
static void scan_space(struct space *space, struct maps *maps)
{
	if (maps_read(maps, space->maps_fd) < 0)
		return;
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->v[i];
		struct object *object;

		if (!is_candidate(space, m))
			continue;
		object = object_get(m->dev, m->ino, space->group, thread_env);
		if (!object)
			continue;
		object->seen_ns = clock_now_ns();
		if (object->fd < 0)
			count_unopened(object, space, m);
		object_put(object);
	}
}

/* Those that somebody may want some of out, without having asked. */
static struct space **spaces_with_shared(uint32_t *ret_n)
{
	struct space **found = NULL;
	struct list *pos;
	uint32_t n = 0;

	registry_lock();
	list_for_each(pos, &registry_spaces)
		n++;
	found = calloc(n ? n : 1, sizeof(*found));
	n = 0;
	if (found)
		list_for_each(pos, &registry_spaces) {
			struct space *space = list_entry(pos, struct space, link);

			if (stats_get(&space->group->target_pages) == 0 ||
			    space_get_state(space) != SPACE_SERVING ||
			    !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE) ||
			    stats_get(&space->shmem_pages) < OBJECT_PAGES_MIN)
				continue;
			space->n_refs++;
			found[n++] = space;
		}
	registry_unlock();
	*ret_n = n;
	return found;
}

static void scan_all(void)
{
	struct maps maps = MAPS_NULL;
	uint32_t n;
	struct space **spaces = spaces_with_shared(&n);

	for (uint32_t i = 0; i < n; i++)
		scan_space(spaces[i], &maps);
	maps_deinit(&maps);
	object_mappers_free(spaces, n);
}

/* ---- taking out ---------------------------------------------------------------------- */

/* Pages [first, end) of the object that lies at m in the space; opens it first if need be. */
static uint64_t evict_mapping(struct space *space, const struct mapping *m, uint64_t first,
			      uint64_t end, uint64_t want)
{
	struct object *object = object_get(m->dev, m->ino, space->group, thread_env);
	uint64_t left = 0;

	if (!object)
		return 0;
	object->seen_ns = clock_now_ns();
	if (object->open || object_open(object, space, m, thread_env) == 0)
		left = object_evict(object, first, end, want, true);
	object_put(object);
	return left;
}

/* The rest of a request: what of [start, end) is shared memory. */
static void serve_request(struct request *request)
{
	struct mail *mail = request->mail;
	uint64_t page = thread_env->page_size, start = 0, end = UINT64_MAX, want = UINT64_MAX;
	struct maps maps = MAPS_NULL;

	if (mail->type == MAIL_MIGRATE) {
		start = mail->addr & ~(page - 1);
		end = (mail->addr + mail->bytes + page - 1) & ~(page - 1);
	} else if (mail->bytes) {
		want = (mail->bytes + page - 1) / page;
		want = want > mail->pages ? want - mail->pages : 0;
	}
	if (maps_read(&maps, request->space->maps_fd) < 0)
		maps.n = 0;
	for (size_t i = 0; i < maps.n && want; i++) {
		const struct mapping *m = &maps.v[i];
		uint64_t from = m->start > start ? m->start : start;
		uint64_t to = m->end < end ? m->end : end, left;

		if (!is_candidate(request->space, m) || from >= to)
			continue;
		left = evict_mapping(request->space, m, (from - m->start + m->offset) / page,
				     (to - m->start + m->offset) / page, want);
		mail->pages += left;
		want -= left < want ? left : want;
	}
	maps_deinit(&maps);
	mail->error = 0;
	control_complete(mail);
}

/* Somebody who maps it, and where. */
static struct space *find_mapper(const struct object *object, struct mapping *ret)
{
	struct space *found = NULL;
	struct maps maps = MAPS_NULL;
	uint32_t n;
	struct space **spaces = spaces_with_shared(&n);

	for (uint32_t i = 0; i < n && !found; i++) {
		if (maps_read(&maps, spaces[i]->maps_fd) < 0)
			continue;
		for (size_t k = 0; k < maps.n && !found; k++)
			if (is_candidate(spaces[i], &maps.v[k]) && maps.v[k].dev == object->dev &&
			    maps.v[k].ino == object->ino) {
				*ret = maps.v[k];
				found = space_ref(spaces[i]);
			}
	}
	maps_deinit(&maps);
	object_mappers_free(spaces, n);
	return found;
}

static bool open_for_target(struct object *object)
{
	struct mapping m;
	struct space *space;
	bool open;

	if (object->open)
		return true;
	if (clock_now_ns() - object->tried_ns < RETRY_NS)
		return false;
	object->tried_ns = clock_now_ns();
	space = find_mapper(object, &m);
	open = space && object_open(object, space, &m, thread_env) == 0;
	space_unref(space);
	return open;
}

/* Where nothing can leave, as of a program that has become another user, it is tried less and less
 * often. */
static void note_vain(struct object *object, bool vain)
{
	object->vain_ns = clock_now_ns();
	object->pause_ns = !vain			   ? 0
			   : object->pause_ns == 0	   ? ROUND_NS
			   : object->pause_ns < VAIN_MAX_NS ? object->pause_ns * 2
							   : object->pause_ns;
}

static void evict_for_target(struct object *object)
{
	uint64_t want = stats_get(&object->want_pages), left;

	if (want == 0 || clock_now_ns() - object->vain_ns < object->pause_ns ||
	    !open_for_target(object))
		return;
	left = object_evict(object, object->hand, UINT64_MAX >> object->page_shift, want, false);
	if (left < want && object->hand == 0)
		left += object_evict(object, 0, UINT64_MAX >> object->page_shift, want - left,
				     false);
	note_vain(object, left == 0);
	__atomic_store_n(&object->want_pages, 0, __ATOMIC_RELAXED);
}

enum wanted { WANTED_NOT, WANTED_HOME, WANTED_QUIT };

/* Does a mapper want it home, or even take its leave? */
static enum wanted is_wanted_home(struct object *object)
{
	uint64_t gen;
	uint32_t n;
	struct space **mappers = object_mappers(object, &n, &gen);
	enum wanted wanted = WANTED_NOT;

	for (uint32_t i = 0; i < n; i++) {
		if (__atomic_load_n(&mappers[i]->quitting, __ATOMIC_RELAXED))
			wanted = WANTED_QUIT;
		else if (wanted == WANTED_NOT && __atomic_load_n(&mappers[i]->hold, __ATOMIC_RELAXED))
			wanted = WANTED_HOME;
	}
	object_mappers_free(mappers, n);
	return wanted;
}

/* A mapper that was too busy to let go when the object was closed. */
static void close_again(struct object *object)
{
	bool left;

	object_lock(object);
	left = object->n_mappers != 0;
	object_unlock(object);
	if (!left || clock_now_ns() - object->tried_ns < RETRY_NS)
		return;
	object->tried_ns = clock_now_ns();
	object_close(object);
}

/* All of it is home, and has been for a while: programs pay nothing for it any more. */
static void close_if_idle(struct object *object)
{
	enum wanted wanted;
	bool away;

	if (!object->open) {
		close_again(object);
		return;
	}
	wanted = is_wanted_home(object);
	object_lock(object);
	away = object->map.n_away || object->map.n_poisoned || object->n_removes;
	object_unlock(object);
	if (away || (wanted == WANTED_NOT &&
		     __atomic_load_n(&object->group->pacing, __ATOMIC_RELAXED))) {
		object->idle_ns = 0;
		if (wanted != WANTED_QUIT)
			object->quit_ns = 0;
		else if (object->quit_ns == 0)
			object->quit_ns = clock_now_ns();
		else if (clock_now_ns() - object->quit_ns > QUIT_NS)
			object_write_back(object);
		return;
	}
	if (object->idle_ns == 0)
		object->idle_ns = clock_now_ns();
	if (wanted != WANTED_NOT || clock_now_ns() - object->idle_ns > IDLE_NS)
		object_close(object);
}

/* ---- the loop ------------------------------------------------------------------------ */

struct collected {
	struct object **v;
	uint32_t n, cap;
};

static void collect(struct object *object, void *arg)
{
	struct collected *all = arg;
	struct object **v = array_room(all->v, all->n, &all->cap, sizeof(struct object *));

	if (!v)
		return;
	all->v = v;
	object->n_refs++; /* the table's lock is held */
	all->v[all->n++] = object;
}

static void visit_objects(struct collected *all)
{
	all->n = 0;
	object_each(collect, all);
	for (uint32_t i = 0; i < all->n; i++) {
		if (all->v[i]->fd >= 0)
			__atomic_store_n(&all->v[i]->resident_pages,
					 count_resident(all->v[i]->fd, all->v[i]->page_shift),
					 __ATOMIC_RELAXED);
		evict_for_target(all->v[i]);
		close_if_idle(all->v[i]);
		object_put(all->v[i]);
	}
}

static struct request *next_request(void)
{
	struct request *request = NULL;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += ROUND_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&queue_lock);
	if (list_empty(&queue) && !kicked)
		(void)pthread_cond_timedwait(&queue_cond, &queue_lock, &until);
	kicked = false;
	if (!list_empty(&queue)) {
		request = list_entry(queue.next, struct request, link);
		list_del(&request->link);
	}
	pthread_mutex_unlock(&queue_lock);
	return request;
}

static void *object_thread_run(void *arg)
{
	struct collected all = { .v = NULL };
	uint64_t scanned_ns = 0;

	(void)arg;
	prctl(PR_SET_NAME, "uhmmd-objects", 0, 0, 0);
	for (;;) {
		struct request *request = next_request();

		if (request) {
			serve_request(request);
			space_unref(request->space);
			free(request);
		}
		if (clock_now_ns() - scanned_ns > SCAN_NS) {
			scanned_ns = clock_now_ns();
			scan_all();
			object_sweep(scanned_ns - 4u * SCAN_NS);
		}
		visit_objects(&all);
	}
	return NULL;
}

void object_post(struct space *space, struct mail *mail)
{
	struct request *request = calloc(1, sizeof(*request));

	if (!request) {
		mail->error = -ENOMEM;
		control_complete(mail);
		return;
	}
	request->space = space_ref(space);
	request->mail = mail;
	pthread_mutex_lock(&queue_lock);
	list_add_tail(&queue, &request->link);
	pthread_cond_signal(&queue_cond);
	pthread_mutex_unlock(&queue_lock);
}

void object_kick(void)
{
	pthread_mutex_lock(&queue_lock);
	kicked = true;
	pthread_cond_signal(&queue_cond);
	pthread_mutex_unlock(&queue_lock);
}

int object_thread_start(const struct daemon_env *env)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	thread_env = env;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = -pthread_create(&thread, &attr, object_thread_run, NULL);
	pthread_attr_destroy(&attr);
	return err;
}
