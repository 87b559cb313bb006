/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file that `uhmm run --report` writes, and the live line of --progress. */
#ifndef UHMM_CLI_REPORT_H
#define UHMM_CLI_REPORT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct json_object;

struct report_file {
	char path[PATH_MAX]; /* without symbolic links, if it exists */
	bool in_place;       /* a terminal, a pipe, /dev/null: nothing to rename over */
};

/* Can a report be written there at the end? Leaves nothing behind. 0 or -errno. */
int report_file_check(const char *path, struct report_file *ret_file);
/* One JSON object; what was there before stays whole if this fails. */
int report_file_write(const struct report_file *file, struct json_object *json);

#define PROGRESS_SAMPLE_NS 200000000ull
#define PROGRESS_LINE_NS 2000000000ull

struct progress {
	bool on;
	bool tty;              /* stderr is: the line is rewritten in place */
	bool shown;            /* the cursor is at the end of our line */
	uint64_t next_line_ns; /* CLOCK_MONOTONIC; when it is no terminal */
};

void progress_init(struct progress *progress, bool on);
/* Show the daemon's report, if its time has come or `last`. */
void progress_show(struct progress *progress, struct json_object *json, uint64_t now_ns, bool last);
/* Before something else is written to stderr. */
void progress_clear(struct progress *progress);

#endif
