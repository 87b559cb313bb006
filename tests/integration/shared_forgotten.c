/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A shared segment ends with its last mapping, also while its pages are away and though the
 * program goes on: then nobody holds a descriptor of it any more, neither the daemon nor an
 * agent, which would keep its memory alive and charged.
 */
#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "prog.h"

#define LEN (16 * MIB)
#define PATIENCE_SEC 10.0

struct identity {
	dev_t dev;
	ino_t ino;
};

static struct identity identity_of(const void *addr)
{
	struct identity id = { 0 };
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	CHECK(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, ino;
		unsigned int major_nr, minor_nr;

		if (sscanf(line, "%lx-%*x %*s %*x %x:%x %lu", &start, &major_nr, &minor_nr,
			   &ino) == 4 &&
		    start == (uintptr_t)addr)
			id = (struct identity){ makedev(major_nr, minor_nr), ino };
	}
	fclose(maps);
	CHECK(id.ino);
	return id;
}

/* Does this table of descriptors have one of it? */
static bool table_holds(const char *path, struct identity id)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	struct stat st;
	bool holds = false;

	while (dir && (entry = readdir(dir)))
		holds |= fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && st.st_dev == id.dev &&
			 st.st_ino == id.ino;
	if (dir)
		closedir(dir);
	return holds;
}

static bool process_holds(const char *pid, struct identity id)
{
	char path[600];
	struct dirent *entry;
	bool holds = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/task/%s/fd", pid, entry->d_name);
		holds |= atoi(entry->d_name) > 0 && table_holds(path, id);
	}
	if (dir)
		closedir(dir);
	return holds;
}

static bool somebody_holds(struct identity id)
{
	struct dirent *entry;
	bool holds = false;
	DIR *dir = opendir("/proc");

	CHECK(dir);
	while ((entry = readdir(dir)))
		holds |= atoi(entry->d_name) > 0 && process_holds(entry->d_name, id);
	closedir(dir);
	return holds;
}

static void is_forgotten(struct identity id, const char *when)
{
	double until = now_sec() + PATIENCE_SEC;

	while (somebody_holds(id)) {
		if (now_sec() > until)
			prog_fail("%s: somebody holds it still", when);
		usleep(100000);
	}
}

/* A child that did not get it is no mapper, and goes on. */
static void with_dontfork(void)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct identity id;
	int end[2];
	pid_t pid;
	char byte;

	CHECK(mem != MAP_FAILED && pipe(end) == 0);
	id = identity_of(mem);
	pattern_fill(mem, LEN, 1);
	CHECK(madvise(mem, LEN, MADV_DONTFORK) == 0);
	send_away(mem, LEN);
	pid = fork();
	if (pid == 0) {
		close(end[1]);
		_exit(read(end[0], &byte, 1) != 0);
	}
	pattern_check(mem, MIB, 1);
	CHECK(munmap(mem, LEN) == 0);
	is_forgotten(id, "not inherited by a child");
	close(end[1]);
	child_join(pid);
	close(end[0]);
}

int main(void)
{
	char *mem, *rest;
	struct identity id;
	pid_t pid;

	for (int twice = 0; twice < 2; twice++) {
		mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		CHECK(mem != MAP_FAILED);
		id = identity_of(mem);
		pattern_fill(mem, LEN, 1);
		send_away(mem, LEN);
		/* The child's mapping is the last. */
		pid = fork();
		if (pid == 0) {
			usleep(300000);
			rest = mremap(mem, LEN, MIB, 0);
			CHECK(rest == mem);
			pattern_check(mem, MIB, 1);
			CHECK(munmap(mem, MIB) == 0);
			is_forgotten(id, "unmapped by a child");
			_exit(0);
		}
		CHECK(munmap(mem, LEN) == 0);
		child_join(pid);
	}
	with_dontfork();
	return 0;
}
