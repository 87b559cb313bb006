/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Root that becomes somebody else for good, with memory away: the bytes stay
 * right, and its credentials, capabilities and dumpable flag are what they would
 * have been, in every thread of the process.
 */
#include <dirent.h>
#include <grp.h>
#include <sys/prctl.h>

#include "prog.h"

#define LEN (48 * MIB)
#define NOBODY 65534u

static void print_status_of(const char *tid)
{
	char path[64], line[256];
	FILE *status;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", tid);
	status = fopen(path, "re");
	if (!status)
		return;
	while (fgets(line, sizeof(line), status))
		if (!strncmp(line, "Uid:", 4) || !strncmp(line, "Gid:", 4) ||
		    !strncmp(line, "CapEff:", 7) || !strncmp(line, "CapPrm:", 7))
			CHECK(strstr(line, "\t65534\t65534\t65534\t65534") ||
			      strstr(line, "\t0000000000000000"));
	fclose(status);
}

/* The agent may need a moment to follow, or to end. */
static void check_every_thread(void)
{
	DIR *dir;
	struct dirent *entry;

	usleep(500000);
	dir = opendir("/proc/self/task");
	CHECK(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			print_status_of(entry->d_name);
	closedir(dir);
}

int main(void)
{
	char *mem = map_private(LEN);

	if (geteuid() != 0)
		prog_skip("needs root to have a uid to drop: run as root");
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	CHECK(setgroups(0, NULL) == 0);
	CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
	printf("dumpable %d uid %u gid %u\n", prctl(PR_GET_DUMPABLE), getuid(), getgid());
	pattern_check(mem, LEN / 2, 1);
	pattern_fill(mem + LEN / 2, LEN / 2, 2);
	check_every_thread();
	pattern_check(mem, LEN / 2, 1);
	pattern_check(mem + LEN / 2, LEN / 2, 2);
	return 0;
}
