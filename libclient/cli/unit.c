/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Units, for `enable`, `disable` and `doctor`. Called on the only thread. systemd is asked
 * through systemctl, which is looked for where it is installed and not in $PATH: this runs as
 * root. A drop-in appears and goes as a whole, so that systemd never reads a half.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../sandbox.h"
#include "cli.h"

#define DROPIN_NAME "50-uhmm.conf"
#define ARGUMENTS_MAX 14

extern char **environ;

bool unit_manager_runs(void)
{
	return access("/run/systemd/system", F_OK) == 0;
}

/* ---- systemctl -------------------------------------------------------------------------- */

static const char *systemctl_find(void)
{
	return access("/usr/bin/systemctl", X_OK) == 0 ? "/usr/bin/systemctl" : "/bin/systemctl";
}

/* Read to the end; what does not fit is dropped, so that the writer never waits. */
static void read_all(int fd, char *out, size_t out_bytes)
{
	char spare[512];
	size_t used = 0;
	ssize_t n;

	do {
		bool full = used + 1 >= out_bytes;

		n = read(fd, full ? spare : out + used,
			 full ? sizeof(spare) : out_bytes - 1 - used);
		if (n > 0 && !full)
			used += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (out_bytes)
		out[used] = '\0';
}

int unit_systemctl(const char *const *arguments, char *out, size_t out_bytes)
{
	const char *argv[ARGUMENTS_MAX + 2] = { "systemctl" };
	posix_spawn_file_actions_t actions;
	int fds[2], status = 0, err;
	pid_t pid;

	for (size_t i = 0; i < ARGUMENTS_MAX && arguments[i]; i++)
		argv[i + 1] = arguments[i];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	err = -posix_spawn(&pid, systemctl_find(), &actions, NULL, (char *const *)argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(fds[1]);
	if (err == 0)
		read_all(fds[0], out, out ? out_bytes : 0);
	(void)close(fds[0]);
	if (err < 0)
		return err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

const char *unit_property(const char *text, const char *key, char *out, size_t out_bytes)
{
	size_t key_length = strlen(key);

	*out = '\0';
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, key_length) != 0 || line[key_length] != '=')
			continue;
		line += key_length + 1;
		snprintf(out, out_bytes, "%.*s", (int)strcspn(line, "\n"), line);
		break;
	}
	return out;
}

/* ---- names ------------------------------------------------------------------------------ */

int unit_name(const char *given, char ret_name[static UNIT_NAME_BYTES])
{
	static const char valid[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789:-_.\\@";
	const char *dot = strrchr(given, '.');
	bool is_service = dot && !strcmp(dot, ".service");
	static const char *const others[] = { ".socket", ".target", ".device", ".mount", ".scope",
					      ".automount", ".swap", ".path", ".timer", ".slice" };
	int n;

	if (!*given || *given == '.' || given[strspn(given, valid)])
		return -EINVAL;
	for (size_t i = 0; dot && i < sizeof(others) / sizeof(*others); i++)
		if (!strcmp(dot, others[i]))
			return -EINVAL;
	n = snprintf(ret_name, UNIT_NAME_BYTES, "%s%s", given, is_service ? "" : ".service");
	if (n >= (int)UNIT_NAME_BYTES || *ret_name == '.' || !strcmp(ret_name, ".service"))
		return -EINVAL;
	return 0;
}

/* "getty@.service" for "getty@tty1.service"; false: the name is no template's instance. */
static bool unit_template(const char *name, char *out, size_t out_bytes)
{
	const char *at = strchr(name, '@');

	if (!at)
		return false;
	snprintf(out, out_bytes, "%.*s.service", (int)(at - name + 1), name);
	return true;
}

static bool unit_file_exists(const char *root, const char *name)
{
	static const char *const dirs[] = { "etc", "run", "usr/local/lib", "usr/lib", "lib" };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		int n = snprintf(path, sizeof(path), "%s/%s/systemd/system/%s", root, dirs[i],
				 name);

		if (n < (int)sizeof(path) && access(path, F_OK) == 0)
			return true;
	}
	return false;
}

/*
 * A call that enrolment needs and the unit's filter does not let pass; NULL: there is none. The
 * property is the list of names that are allowed, or after a "~" of those that are not; a name
 * with an errno behind it fails with that.
 */
static const char *unit_forbids(const char *filter)
{
#define AS_NAME(name, ...) #name,
	static const char *const needed[] = { SANDBOX_CALLS(AS_NAME) };
	bool listed_is_denied = *filter == '~';

	if (!*filter)
		return NULL;
	filter += listed_is_denied;
	for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++) {
		size_t length = strlen(needed[i]);
		bool listed = false, fails = false;

		for (const char *word = filter; *word && !listed; word += strspn(word, " ")) {
			size_t word_length = strcspn(word, " :");

			listed = word_length == length && !strncmp(word, needed[i], length);
			fails = listed && word[word_length] == ':';
			word += strcspn(word, " ");
		}
		if (listed == listed_is_denied || fails)
			return needed[i];
	}
	return NULL;
}

/* What the manager knows beats what its files say: aliases, generated units. */
static int unit_check_loaded(char name[static UNIT_NAME_BYTES])
{
	const char *const show[] = { "show", "--property=Id,LoadState,RootDirectory,RootImage,"
					     "Environment,SystemCallFilter",
				     "--", name, NULL };
	static char text[UNIT_TEXT_BYTES], value[UNIT_TEXT_BYTES];
	const char *forbidden;
	int status = unit_systemctl(show, text, sizeof(text));

	if (status) {
		cli_error("systemctl cannot tell of %s", name);
		return -EIO;
	}
	unit_property(text, "LoadState", value, sizeof(value));
	if (strcmp(value, "loaded") != 0) {
		cli_error("%s: %s", name,
			  !strcmp(value, "masked") ? "the unit is masked" : "there is no such unit");
		return -ENOENT;
	}
	if (*unit_property(text, "RootDirectory", value, sizeof(value)) ||
	    *unit_property(text, "RootImage", value, sizeof(value))) {
		cli_error("%s: its programs see another root directory, without uhmm's library in it",
			  name);
		return -EOPNOTSUPP;
	}
	unit_property(text, "Environment", value, sizeof(value));
	if (strstr(value, "LD_PRELOAD=") && !strstr(value, "libuhmm-preload.so")) {
		cli_error("%s: it sets LD_PRELOAD itself: add the library there by hand", name);
		return -EEXIST;
	}
	unit_property(text, "SystemCallFilter", value, sizeof(value));
	forbidden = unit_forbids(value);
	if (forbidden) {
		cli_error("%s: its SystemCallFilter= forbids %s, which uhmm needs", name, forbidden);
		return -EPERM;
	}
	unit_property(text, "Id", value, sizeof(value));
	if (unit_name(value, name) < 0)
		return -EINVAL;
	return 0;
}

void unit_resolve(char name[static UNIT_NAME_BYTES])
{
	const char *const show[] = { "show", "--property=Id", "--", name, NULL };
	char text[2 * UNIT_NAME_BYTES], value[UNIT_NAME_BYTES];

	if (unit_manager_runs() && !strstr(name, "@.service") &&
	    unit_systemctl(show, text, sizeof(text)) == 0 &&
	    *unit_property(text, "Id", value, sizeof(value)))
		(void)unit_name(value, name);
}

int unit_check(const struct unit_place *place, char name[static UNIT_NAME_BYTES])
{
	char template[UNIT_NAME_BYTES];

	if (!strcmp(name, "uhmmd.service")) {
		cli_error("%s: the daemon cannot manage itself", name);
		return -EINVAL;
	}
	/* A template itself is never loaded. */
	if (!*place->root && unit_manager_runs() && !strstr(name, "@.service"))
		return unit_check_loaded(name);
	if (unit_file_exists(place->root, name) ||
	    (unit_template(name, template, sizeof(template)) &&
	     unit_file_exists(place->root, template)))
		return 0;
	cli_error("%s: there is no such unit%s%s", name, *place->root ? " below " : "",
		  place->root);
	return -ENOENT;
}

/* ---- drop-ins --------------------------------------------------------------------------- */

int unit_dropin_path(const struct unit_place *place, const char *name, char *out,
		     size_t out_bytes)
{
	int n = snprintf(out, out_bytes, "%s/%s/systemd/system/%s.d/" DROPIN_NAME, place->root,
			 place->runtime ? "run" : "etc", name);

	return n < 0 || (size_t)n >= out_bytes ? -ENAMETOOLONG : 0;
}

static int make_dirs(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return 0;
}

static int write_synced(int fd, const char *text)
{
	size_t length = strlen(text);
	ssize_t n = write(fd, text, length);

	if (n < 0)
		return -errno;
	if ((size_t)n != length)
		return -EIO;
	return fchmod(fd, 0644) < 0 || fsync(fd) < 0 ? -errno : 0;
}

int unit_dropin_write(const char *path, const char *text)
{
	char temp[PATH_MAX];
	int fd, err;

	/* Not "*.conf": systemd leaves it alone. */
	if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	err = make_dirs(temp);
	if (err < 0)
		return err;
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = write_synced(fd, text);
	(void)close(fd);
	if (err == 0 && rename(temp, path) < 0)
		err = -errno;
	if (err < 0)
		(void)unlink(temp);
	return err;
}

int unit_dropin_remove(const char *path)
{
	char dir[PATH_MAX];

	if (unlink(path) < 0)
		return -errno;
	snprintf(dir, sizeof(dir), "%s", path);
	(void)rmdir(dirname(dir));
	return 0;
}
