/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What `uhmm run` tells about the run: the report file and the progress line. Called by
 * run.c on the only thread. A report is never half written: it appears by a rename, and
 * a file that is no regular file is never renamed over.
 */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli.h"

static int fd_write_all(int fd, const char *bytes, size_t n_bytes)
{
	while (n_bytes) {
		ssize_t n = write(fd, bytes, n_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

/* A new file beside `path`, with the rights that open(2) would have given it. */
static int temp_open(const char *path, char out[static PATH_MAX])
{
	mode_t mask;
	int n = snprintf(out, PATH_MAX, "%s.XXXXXX", path);
	int fd;

	if (n < 0 || n >= PATH_MAX)
		return -ENAMETOOLONG;
	fd = mkostemp(out, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	mask = umask(0);
	(void)umask(mask);
	if (fchmod(fd, 0666 & ~mask) < 0) {
		int error = -errno;

		(void)close(fd);
		(void)unlink(out);
		return error;
	}
	return fd;
}

/* A name for an open descriptor, such as /dev/stdout: the file behind it is in use. */
static bool path_is_descriptor(const char *path)
{
	static const char *const prefixes[] = { "/dev/std", "/dev/fd/", "/proc/" };

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
		if (!strncmp(path, prefixes[i], strlen(prefixes[i])))
			return true;
	return false;
}

int report_file_check(const char *path, struct report_file *ret_file)
{
	char temp[PATH_MAX];
	struct stat st;
	bool exists = !stat(path, &st);
	int fd;

	if (!exists && errno != ENOENT)
		return -errno;
	if (exists && S_ISDIR(st.st_mode))
		return -EISDIR;
	if (exists && access(path, W_OK) < 0)
		return -errno;
	ret_file->in_place = path_is_descriptor(path) || (exists && !S_ISREG(st.st_mode));
	if (exists && !ret_file->in_place)
		return realpath(path, ret_file->path) ? 0 : -errno;
	if (strlen(path) >= sizeof(ret_file->path))
		return -ENAMETOOLONG;
	strcpy(ret_file->path, path);
	if (ret_file->in_place)
		return exists ? 0 : -ENOENT;
	fd = temp_open(ret_file->path, temp);
	if (fd < 0)
		return fd;
	(void)close(fd);
	return unlink(temp) < 0 ? -errno : 0;
}

static int json_write(int fd, struct json_object *json)
{
	const char *text = json_object_to_json_string_ext(
		json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	int error;

	if (!text)
		return -ENOMEM;
	error = fd_write_all(fd, text, strlen(text));
	return error ? error : fd_write_all(fd, "\n", 1);
}

int report_file_write(const struct report_file *file, struct json_object *json)
{
	char temp[PATH_MAX];
	int error;
	int fd;

	fd = file->in_place ? open(file->path, O_WRONLY | O_APPEND | O_CLOEXEC)
			    : temp_open(file->path, temp);
	if (fd < 0)
		return file->in_place ? -errno : fd;
	error = json_write(fd, json);
	if (close(fd) < 0 && !error)
		error = -errno;
	if (file->in_place)
		return error;
	if (!error && rename(temp, file->path) < 0)
		error = -errno;
	if (error)
		(void)unlink(temp);
	return error;
}

void progress_init(struct progress *progress, bool on)
{
	*progress = (struct progress){ .on = on, .tty = on && isatty(STDERR_FILENO) };
}

void progress_clear(struct progress *progress)
{
	if (!progress->shown)
		return;
	fputs("\r\033[K", stderr);
	progress->shown = false;
}

void progress_show(struct progress *progress, struct json_object *json, uint64_t now_ns, bool last)
{
	char host[CLI_SIZE_TEXT];
	char target[CLI_SIZE_TEXT];
	char tier[CLI_SIZE_TEXT];
	uint64_t target_bytes = cli_json_u64(json, "host_bytes_target");

	if (!progress->tty && !last && now_ns < progress->next_line_ns)
		return;
	progress->next_line_ns = now_ns + PROGRESS_LINE_NS;
	progress_clear(progress);
	fprintf(stderr,
		"uhmm: host %s%s%s, on tiers %s, pages out %" PRIu64 " home %" PRIu64
		", faults %" PRIu64 "%s",
		cli_format_size(cli_json_u64(json, "host_bytes_now"), host),
		target_bytes ? " of " : "",
		target_bytes ? cli_format_size(target_bytes, target) : "",
		cli_format_size(cli_json_u64(json, "device_bytes_now"), tier),
		cli_json_u64(json, "pages_evicted"), cli_json_u64(json, "pages_returned"),
		cli_json_u64(json, "faults"), progress->tty && !last ? "" : "\n");
	progress->shown = progress->tty && !last;
}
