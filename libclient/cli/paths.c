/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds the daemon, the preload library and the plug-ins that belong to the running
 * binary, so that a build tree uses its own parts and not installed ones. Called by
 * `run` and `doctor` on the only thread. $PATH and the working directory are never
 * looked at: what is found here runs as root.
 */
#include "paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory of the running binary. */
static int binary_dir(char out[static PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
	char *slash;

	if (n < 0)
		return -errno;
	out[n] = '\0';
	slash = strrchr(out, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	return 0;
}

static int paths_find(const char *beside, const char *installed, char out[static PATH_MAX])
{
	char dir[PATH_MAX];
	char path[PATH_MAX];
	int n;

	if (binary_dir(dir) < 0) {
		snprintf(out, PATH_MAX, "%s", installed);
		return access(out, F_OK) ? -ENOENT : 0;
	}
	n = snprintf(path, sizeof(path), "%s/%s", dir, beside);
	if (n < 0 || n >= PATH_MAX)
		return -ENAMETOOLONG;
	if (!access(path, F_OK))
		return realpath(path, out) ? 0 : -errno;
	if (!access(installed, F_OK)) {
		snprintf(out, PATH_MAX, "%s", installed);
		return 0;
	}
	memcpy(out, path, sizeof(path));
	return -ENOENT;
}

int paths_find_daemon(char out[static PATH_MAX])
{
	return paths_find("uhmmd", UHMM_INSTALLED_DAEMON, out);
}

int paths_find_preload(char out[static PATH_MAX])
{
	return paths_find("../lib/libuhmm-preload.so", UHMM_INSTALLED_PRELOAD, out);
}

int paths_find_backends(char out[static PATH_MAX])
{
	return paths_find("../lib/uhmm/backends", UHMM_INSTALLED_BACKENDS, out);
}
