/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the checks of `uhmm doctor` share. */
#ifndef UHMM_CLI_DOCTOR_H
#define UHMM_CLI_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

enum doctor_level {
	DOCTOR_OK,
	DOCTOR_WARN, /* the main job runs, something is less than it could be */
	DOCTOR_FAIL, /* the main job cannot run */
};

struct json_object;

struct doctor {
	const char *socket;
	bool root;
	int daemon_error; /* 0: a daemon answers at the socket; else a negative errno */
	const char *daemon_refusal; /* what it said if it refuses */
	bool failed;
	struct json_object *checks;
};

/* Note one result. `remedy`: the knob and how to turn it; NULL when there is none. */
void doctor_note(struct doctor *doctor, enum doctor_level level, const char *name,
		 const char *remedy, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/*
 * How bad it is when something is missing that only the daemon uses: a daemon that
 * listens has looked at it itself, and found it.
 */
static inline enum doctor_level doctor_level_for_daemon(const struct doctor *doctor)
{
	return doctor->daemon_error ? DOCTOR_FAIL : DOCTOR_WARN;
}

/* The first number in a file such as /proc/sys/vm/max_map_count; false: there is none. */
bool doctor_read_number(const char *path, uint64_t *ret_number);
/* The value of a line "Key:\tvalue" of /proc/self/status, in that base; false: none. */
bool doctor_read_status(const char *key, int base, uint64_t *ret_number);

void doctor_check_kernel(struct doctor *doctor); /* doctor_kernel.c */
void doctor_check_system(struct doctor *doctor); /* doctor_system.c */
void doctor_check_parts(struct doctor *doctor);  /* doctor_parts.c */
void doctor_check_units(struct doctor *doctor);  /* doctor_units.c */

#endif
