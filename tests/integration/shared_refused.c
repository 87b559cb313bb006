/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A segment that one mapping keeps here (a private one, one that is for reading only) is not
 * watched either: nothing of it is registered, and the program pays nothing. When that mapping
 * has gone, it leaves.
 */
#include "prog.h"

#define LEN (16 * MIB)

/* VmFlags of the mapping that begins here: does a userfaultfd watch it? */
static bool is_watched(const void *addr)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[512];
	bool here = false, watched = false;

	CHECK(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start == (uintptr_t)addr;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			watched = strstr(line, " um ") || strstr(line, " uw ") ||
				  strstr(line, " ui ");
	}
	fclose(smaps);
	return watched;
}

/* Both below and above the other mapping: whichever is looked at first. */
static void stays_unwatched(const char *low, const char *high, const char *what)
{
	double until = now_sec() + 5.0;

	for (int i = 0; i < 5; i++) {
		ask_away(low, LEN);
		ask_away(high, LEN);
	}
	while (is_watched(low) || is_watched(high)) {
		if (now_sec() > until)
			prog_fail("%s: it is watched still", what);
		usleep(10000);
	}
	if (present_pages(low, LEN) != LEN / page_bytes())
		prog_fail("%s: some of it has left", what);
}

static void try_with(int protection, int flags, int fd, int other_fd, const char *what)
{
	char *room = mmap(NULL, 3 * LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const int shared = MAP_SHARED | MAP_FIXED;
	char *low, *high, *other;

	CHECK(room != MAP_FAILED && fd >= 0 && other_fd >= 0);
	low = mmap(room, LEN, PROT_READ | PROT_WRITE, shared, fd, 0);
	other = mmap(room + LEN, LEN, protection, flags | MAP_FIXED, other_fd, 0);
	high = mmap(room + 2 * LEN, LEN, PROT_READ | PROT_WRITE, shared, fd, 0);
	CHECK(low == room && other == room + LEN && high == room + 2 * LEN);
	pattern_fill(low, LEN, 1);
	close(fd);
	close(other_fd);
	stays_unwatched(low, high, what);
	pattern_check(other, LEN, 1);
	CHECK(munmap(other, LEN) == 0);
	send_away(low, LEN);
	pattern_check(high, LEN, 1);
	CHECK(munmap(low, LEN) == 0 && munmap(high, LEN) == 0);
}

static int segment(void)
{
	int fd = memfd_create("uhmm-test", MFD_CLOEXEC);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)LEN) == 0);
	return fd;
}

int main(void)
{
	int fd = segment();
	char path[64];

	try_with(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, dup(fd), "mapped privately too");
	fd = segment();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	try_with(PROT_READ, MAP_SHARED, fd, open(path, O_RDONLY | O_CLOEXEC), "for reading only");
	return 0;
}
