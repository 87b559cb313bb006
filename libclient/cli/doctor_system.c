/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm doctor`: limits, cgroups and room. Called by doctor.c on the only thread. What
 * these find makes uhmm smaller or poorer, and only rarely impossible.
 */
#include "doctor.h"

#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli.h"

/* The kernel's own default, and room for the ring of a space and its tiers. */
#define MAP_COUNT_WANTED 65530u
#define NOFILE_WANTED 1024u
#define MEMLOCK_WANTED (8u << 20)
#define ROOM_NEEDED (64u << 20)

static void check_cgroup(struct doctor *doctor)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[4096];
	bool v1 = false;
	bool v2 = false;

	while (file && fgets(line, sizeof(line), file)) {
		v1 |= strstr(line, ":memory:") || strstr(line, ",memory:") ||
		      strstr(line, ":memory,");
		v2 |= !strncmp(line, "0::", 3);
	}
	if (file)
		(void)fclose(file);
	v2 &= !access("/sys/fs/cgroup/cgroup.controllers", R_OK);
	if (v1)
		doctor_note(doctor, DOCTOR_OK, "cgroup", NULL, "v1, with the memory controller");
	else if (v2)
		doctor_note(doctor, DOCTOR_OK, "cgroup", NULL, "v2");
	else
		doctor_note(doctor, DOCTOR_WARN, "cgroup",
			    "mount -t cgroup2 none /sys/fs/cgroup, with CONFIG_MEMCG=y",
			    "no memory controller: nothing is charged or limited");
}

static void check_map_count(struct doctor *doctor)
{
	uint64_t count;

	if (!doctor_read_number("/proc/sys/vm/max_map_count", &count))
		doctor_note(doctor, DOCTOR_WARN, "max-map-count", "mount /proc",
			    "vm.max_map_count cannot be read");
	else
		doctor_note(doctor, count < MAP_COUNT_WANTED ? DOCTOR_WARN : DOCTOR_OK,
			    "max-map-count", "sysctl vm.max_map_count=65530",
			    "vm.max_map_count is %" PRIu64, count);
}

static void check_limit(struct doctor *doctor, rlim_t limit, const char *name, rlim_t wanted,
			const char *remedy)
{
	if (limit == RLIM_INFINITY)
		doctor_note(doctor, DOCTOR_OK, name, NULL, "unlimited");
	else
		doctor_note(doctor, limit < wanted ? DOCTOR_WARN : DOCTOR_OK, name, remedy,
			    "the hard limit is %" PRIu64, (uint64_t)limit);
}

/* The pages of the ram tier, and the daemon's page maps, lie here. */
static void check_room(struct doctor *doctor)
{
	/* The second is a tmpfs of its own where dev-shm-uhmm.mount is installed. */
	const char *dir = access("/dev/shm/uhmm", F_OK) ? "/dev/shm" : "/dev/shm/uhmm";
	struct statfs fs;
	char room[CLI_SIZE_TEXT];
	uint64_t bytes;

	if (statfs(dir, &fs) < 0 || fs.f_type != TMPFS_MAGIC) {
		doctor_note(doctor, doctor_level_for_daemon(doctor), "pages-dir",
			    "mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm", "%s is no tmpfs", dir);
		return;
	}
	bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	doctor_note(doctor, bytes < ROOM_NEEDED ? doctor_level_for_daemon(doctor) : DOCTOR_OK,
		    "pages-dir", "mount -o remount,size=75% of what `df` names for it",
		    "%s has room for %s of pages", dir, cli_format_size(bytes, room));
}

void doctor_check_system(struct doctor *doctor)
{
	struct rlimit limit = { 0 };

	check_cgroup(doctor);
	check_map_count(doctor);
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	check_limit(doctor, limit.rlim_max, "nofile", NOFILE_WANTED,
		    "ulimit -Hn 65536, or LimitNOFILE= of the unit");
	(void)getrlimit(RLIMIT_MEMLOCK, &limit);
	check_limit(doctor, limit.rlim_max, "memlock", MEMLOCK_WANTED,
		    "ulimit -Hl unlimited, or LimitMEMLOCK= of the unit");
	check_room(doctor);
}
