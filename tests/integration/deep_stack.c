/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stack that is deeper than the host target: frames far up leave while the
 * thread works below them, and each return finds its frame as it was. Done on a
 * thread's stack and on the initial one, which grows by itself.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "prog.h"

#define FRAME 1024
#define THREAD_STACK (48 * MIB)

static char *low_water;

static void dive(size_t depth, uint64_t seed)
{
	uint64_t frame[FRAME / sizeof(uint64_t)];

	pattern_fill(frame, sizeof(frame), seed + depth);
	if (depth)
		dive(depth - 1, seed);
	else
		low_water = (char *)frame;
	/* The compiler must not turn the recursion into something flatter. */
	__asm__ volatile("" : : "r"(frame) : "memory");
	if (!pattern_holds(frame, sizeof(frame), seed + depth, 0))
		prog_fail("the frame at depth %zu (seed %llu) is not what it was", depth,
			  (unsigned long long)seed);
}

static void *thread_run(void *arg)
{
	(void)arg;
	for (uint64_t round = 1; round <= 3; round++)
		dive((THREAD_STACK - MIB) / (FRAME + 128), round << 20);
	return NULL;
}

int main(void)
{
	struct rlimit limit;
	pthread_attr_t attr;
	pthread_t thread;
	size_t main_bytes;

	CHECK(getrlimit(RLIMIT_STACK, &limit) == 0);
	main_bytes = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > 32 * MIB ?
			     32 * MIB :
			     (size_t)limit.rlim_cur / 4 * 3;
	dive(main_bytes / (FRAME + 128), 5);
	send_away(low_water, main_bytes / 2);
	dive(main_bytes / (FRAME + 128), 6);
	CHECK(pthread_attr_init(&attr) == 0);
	CHECK(pthread_attr_setstacksize(&attr, THREAD_STACK) == 0);
	CHECK(pthread_create(&thread, &attr, thread_run, NULL) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	return 0;
}
