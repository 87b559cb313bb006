/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An actor's life: draw an operation, write it into the trace, do it; in the end look at all
 * that it owns. On the actor's own thread, in a managed process.
 */
#include "actor.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "fail.h"
#include "ops.h"
#include "shadow.h"
#include "uhmm/uhmm.h"

#define CODE_NONE 0xffu

static void actor_find_script(struct actor *a)
{
	a->n_ops_max = 0;
	for (uint32_t i = 0; i < ctl->n_scripts; i++) {
		if (ctl->scripts[i].actor != a->id)
			continue;
		a->script = &ctl->script_ops[ctl->scripts[i].first];
		a->n_ops_max = ctl->scripts[i].n;
	}
}

struct actor *actor_new(uint32_t id, uint32_t depth, uint32_t n_ops_max)
{
	uint32_t slot = __atomic_fetch_add(&ctl->n_actors, 1, __ATOMIC_RELAXED);
	struct actor *a;

	if (slot >= ACTORS_MAX)
		return NULL;
	a = &ctl->actors[slot];
	a->id = id;
	a->slot = slot;
	a->depth = depth;
	a->pid = a->tid = 0;
	a->rng = hash2(hash2(ctl->seed, ctl->round), id);
	a->n_ops = 0;
	a->n_ops_max = n_ops_max < TRACE_MAX ? n_ops_max : TRACE_MAX;
	a->script = NULL;
	a->last_key = a->n_forks = a->pages_used = 0;
	a->waiting = a->asking = 0;
	a->foreign = a->dropped = false;
	a->code = CODE_NONE;
	a->handle = NULL;
	a->pipe[0] = a->pipe[1] = a->file = a->direct = -1;
	a->ask.state = 0;
	for (uint32_t i = 0; i < KIDS_MAX; i++)
		a->kids[i] = 0;
	for (uint32_t i = 0; i < REGIONS_MAX; i++)
		a->regions[i].kind = REGION_FREE;
	if (ctl->replaying)
		actor_find_script(a);
	__atomic_store_n(&a->state, ACTOR_RUNNING, __ATOMIC_RELEASE);
	return a;
}

static void actor_end(struct actor *a)
{
	kids_wait(a);
	for (uint32_t i = 0; i < REGIONS_MAX; i++) {
		if (a->regions[i].kind == REGION_FREE)
			continue;
		region_check(a, &a->regions[i], "the last look at all");
		region_unmap(a, &a->regions[i]);
	}
	uhmm_close(a->handle);
	a->handle = NULL;
	__atomic_fetch_add(&ctl->operations, a->n_ops, __ATOMIC_RELAXED);
	__atomic_store_n(&a->state, ACTOR_DONE, __ATOMIC_RELEASE);
}

void actor_run(struct actor *a)
{
	a->pid = getpid();
	a->tid = (int32_t)syscall(SYS_gettid);
	while (a->n_ops < a->n_ops_max && !__atomic_load_n(&ctl->stop, __ATOMIC_RELAXED)) {
		uint64_t began_ns;
		struct op op;

		if (a->script)
			op = a->script[a->n_ops];
		else
			op_draw(a, &op);
		a->trace[a->n_ops++] = op;
		a->code = op.code;
		actor_beat(a);
		began_ns = now_ns();
		op_kind(op.code)->run(a, &op);
		__atomic_fetch_add(&ctl->costs[op.code].n, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&ctl->costs[op.code].ns, now_ns() - began_ns, __ATOMIC_RELAXED);
	}
	a->code = CODE_NONE;
	actor_end(a);
}
