/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What of a process lies where, mapping by mapping: the answer to `uhmm status PID --maps`.
 * Made by the space's worker, a slice at a time; read by control when it is complete.
 */
#ifndef UHMMD_SURVEY_H
#define UHMMD_SURVEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "uhmm/wire.h"

struct space;
struct mail;

#define SURVEY_NAME_MAX 96u

/* Mappings that touch, go on in the same thing, and have the same name and the same reason are
 * one row. */
struct survey_row {
	uint64_t start, end;
	bool shared;
	dev_t dev; /* with ino and offset, as in struct mapping; of shared memory only */
	uint64_t ino, offset;
	enum uhmm_reason reason; /* NONE: its pages can leave */
	uint64_t host_pages;
	uint64_t away_pages; /* on a tier, or on the way there */
	uint64_t lost_pages;
	char name[SURVEY_NAME_MAX]; /* as in /proc/PID/maps; printable; of a long one the end */
};

struct survey {
	pid_t pid;
	char command[64];
	enum uhmm_reason agent_reason; /* NONE: managed */
	bool held;
	struct survey_row *rows;
	uint32_t n_rows, cap;
	/* how far it is */
	uint32_t row;
	uint64_t scan_at, count_at; /* addresses */
};

/* Begin the survey that a MAIL_MAPS asks for, or answer it with an error. */
void survey_begin(struct space *space, struct mail *mail);
/* A slice of it; answers at the end. True if there is more to do right away. */
bool survey_step(struct space *space);
/* NULL is fine. */
void survey_free(struct survey *survey);

#endif
