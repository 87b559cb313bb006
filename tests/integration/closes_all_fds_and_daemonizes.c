/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks for descriptors that it did not open, closes every descriptor, becomes a
 * daemon in the old way (two forks, a session of its own, another directory) and
 * goes on with memory that is away. The survivor writes "ok" to the path that is
 * its argument. Run by daemonizes.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "prog.h"

#define LEN (48 * MIB)

/* Descriptors above stderr, other than the one that lists them. */
static unsigned int count_strangers(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned int n = 0;

	CHECK(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.' && atoi(entry->d_name) > 2 &&
		     atoi(entry->d_name) != dirfd(dir);
	closedir(dir);
	return n;
}

static void survive(char *mem, const char *path)
{
	int fd;

	pattern_check(mem, LEN, 1);
	pattern_fill(mem, LEN, 2);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 2);
	fd = open(path, O_WRONLY | O_CREAT, 0644);
	_exit(fd == 0 && write(fd, "ok\n", 3) == 3 ? 0 : 1);
}

int main(int argc, char **argv)
{
	char *mem = map_private(LEN);
	pid_t pid;

	CHECK(argc == 2);
	printf("%u strange descriptors\n", count_strangers());
	fflush(stdout);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	for (int fd = 0; fd < 1024; fd++)
		close(fd);
	pattern_check(mem, LEN / 4, 1);
	pid = fork();
	if (pid != 0)
		_exit(pid < 0);
	if (setsid() < 0 || chdir("/"))
		_exit(1);
	umask(0);
	pid = fork();
	if (pid != 0)
		_exit(pid < 0);
	survive(mem, argv[1]);
}
