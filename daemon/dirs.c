/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directories. State and pages lie on a tmpfs in directories that only root can enter. Only
 * plain files in them are ever removed, and nothing below.
 */
#define _GNU_SOURCE
#include "dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
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
	if (err < 0)
		return err;
	dir_clear(config->state_dir);
	dir_clear(config->pages_dir);
	return 0;
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
