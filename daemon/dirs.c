/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directories. State and pages lie on a tmpfs in directories that only root can enter. Only
 * plain files in them are ever removed, and nothing below. Each belongs to one daemon at a time,
 * which a lock shows: two that share one would make files of the same names there, and an agent
 * would write its pages into the other daemon's. On the main thread.
 */
#define _GNU_SOURCE
#include "dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "guard.h"
#include "log.h"

static int dir_make(const char *path, mode_t mode)
{
	char parent[4096];
	struct stat st;

	snprintf(parent, sizeof(parent), "%s", path);
	if (mkdir(dirname(parent), 0711) < 0 && errno != EEXIST) {
		log_err("cannot make the parent of %s: %s", path, strerror(errno));
		return -errno;
	}
	if (mkdir(path, mode) < 0 && errno != EEXIST) {
		log_err("cannot make %s: %s", path, strerror(errno));
		return -errno;
	}
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    (st.st_mode & 077 & ~mode) != 0) {
		log_err("%s: not a directory that only this user can enter", path);
		return -EPERM;
	}
	return 0;
}

/* The descriptor stays open, so that the lock ends with this process, however that ends. */
static int dir_lock(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int err = fd < 0 ? -errno : 0;
	unsigned int waited_ms = 0;

	if (err == 0)
		do
			err = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
		while (err == -EWOULDBLOCK && guard_may_be_ending(&waited_ms));
	if (err == 0)
		return 0;
	if (err == -EWOULDBLOCK)
		log_err("%s: another daemon uses it: give this one a state-dir and a pages-dir of "
			"its own, see uhmmd.conf(5)",
			path);
	else
		log_err("cannot lock %s: %s", path, strerror(-err));
	if (fd >= 0)
		(void)close(fd);
	return err;
}

static void dir_clear(const char *path)
{
	struct dirent *entry;
	DIR *dir = opendir(path);

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (entry->d_type == DT_REG)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

int dirs_make(const struct config *config)
{
	int err = dir_make(config->state_dir, 0700);

	if (err == 0)
		err = dir_make(config->pages_dir, 0700);
	if (err == 0)
		err = dir_lock(config->state_dir);
	if (err == 0)
		err = dir_lock(config->pages_dir);
	return err;
}

void dirs_remove(const struct config *config, bool private_daemon)
{
	char parent[4096];

	dir_clear(config->state_dir);
	dir_clear(config->pages_dir);
	if (!private_daemon)
		return;
	(void)rmdir(config->state_dir);
	(void)rmdir(config->pages_dir);
	snprintf(parent, sizeof(parent), "%s", config->socket);
	(void)rmdir(dirname(parent));
}
