/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A world: the main thread is its first actor, and each other actor has a thread.
 */
#include "world.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "actor.h"
#include "fail.h"
#include "ops.h"
#include "torture.h"

static void *world_thread(void *arg)
{
	actor_run(arg);
	return NULL;
}

int world_main(uint32_t first, uint32_t n)
{
	pthread_t threads[ACTORS_MAX];

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	fail_install_handlers();
	common_open(&ctl->actors[first]);
	for (uint32_t i = 1; i < n; i++)
		if (pthread_create(&threads[i], NULL, world_thread, &ctl->actors[first + i]) != 0)
			fail(&ctl->actors[first], "cannot start a thread");
	actor_run(&ctl->actors[first]);
	for (uint32_t i = 1; i < n; i++)
		(void)pthread_join(threads[i], NULL);
	return 0;
}
