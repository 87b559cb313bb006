/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stays under its target for its whole life, forks, runs threads, and prints what
 * the kernel says of its memory: how much of it is in huge pages, and how many
 * mappings a userfaultfd watches. Run by under_target_zero_events.
 */
#include <pthread.h>

#include "prog.h"

#define LEN (64 * MIB)
#define HUGE (2 * MIB)

static void *touch(void *addr)
{
	pattern_fill(addr, LEN / 2, 2);
	pattern_check(addr, LEN / 2, 2);
	return NULL;
}

/* The AnonHugePages of the mapping at addr, and the watched mappings of all. */
static void print_smaps(const void *addr)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long start = 0, end = 0, kib = 0, huge_kib = 0;
	unsigned int n_watched = 0;
	char line[512];

	CHECK(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2)
			start = a, end = b;
		else if (sscanf(line, "AnonHugePages: %lu", &kib) == 1 &&
			 (uintptr_t)addr >= start && (uintptr_t)addr < end)
			huge_kib = kib;
		else if (strncmp(line, "VmFlags:", 8) == 0)
			n_watched += strstr(line, " um") || strstr(line, " uw");
	}
	fclose(smaps);
	printf("huge_kib %lu watched %u\n", huge_kib, n_watched);
}

int main(void)
{
	char *raw = map_private(LEN + HUGE), *other = map_private(LEN / 2);
	char *mem = (char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
	pthread_t thread;
	pid_t pid;

	madvise(mem, LEN, MADV_HUGEPAGE);
	pattern_fill(mem, LEN, 1);
	CHECK(pthread_create(&thread, NULL, touch, other) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	pid = fork();
	if (pid == 0)
		_exit(pattern_holds(mem, LEN, 1, 0) ? 0 : 1);
	child_join(pid);
	usleep(300000); /* time for a daemon that is too eager */
	print_smaps(mem);
	pattern_check(mem, LEN, 1);
	return 0;
}
