/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Traces. A line for each operation, "ACTOR NAME r0 r1 r2", in the order of each actor; actors
 * are not ordered among each other, because nobody knows that order. Lines may be deleted by
 * hand: an operation takes what it needs from its own numbers and its actor's state. Runner only.
 */
#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"
#include "torture.h"

static void write_actor(FILE *file, const struct actor *a)
{
	if (a->state == ACTOR_FREE)
		return;
	for (uint32_t i = 0; i < a->n_ops; i++)
		fprintf(file, "%08x %s %u %u %u\n", a->id, op_name(a->trace[i].code),
			a->trace[i].r[0], a->trace[i].r[1], a->trace[i].r[2]);
}

/* Never in place of another: a replay that differs earlier says less than what it replays. */
static FILE *trace_create(char *path, size_t size)
{
	const char *const dirs[] = { ".", "/tmp" };
	char number[16];
	FILE *file = NULL;

	for (size_t i = 0; !file && i < sizeof(dirs) / sizeof(*dirs); i++) {
		*number = '\0';
		for (unsigned int k = 1; !file && k <= 1000; k++) {
			if (k > 1)
				(void)snprintf(number, sizeof(number), "-%u", k);
			(void)snprintf(path, size, "%s/uhmm-torture-%llu-%u%s.trace", dirs[i],
				       (unsigned long long)ctl->seed, ctl->round, number);
			file = fopen(path, "wxe");
			if (!file && errno != EEXIST)
				break;
		}
	}
	return file;
}

const char *trace_write(void)
{
	static char path[128];
	FILE *file = trace_create(path, sizeof(path));

	if (!file)
		return NULL;
	fprintf(file, "uhmm-torture seed %llu round %u threads %u processes %u pages %u\n",
		(unsigned long long)ctl->seed, ctl->round, ctl->n_threads, ctl->n_processes,
		ctl->pages_max);
	for (uint32_t i = 0; i < ACTORS_MAX && i < ctl->n_actors; i++)
		write_actor(file, &ctl->actors[i]);
	return fclose(file) == 0 ? path : NULL;
}

static int read_line(const char *line, uint32_t *n_ops)
{
	uint32_t actor, last = ctl->n_scripts - 1;
	struct op op;
	char name[32];
	int code;

	if (sscanf(line, "%x %31s %u %u %u", &actor, name, &op.r[0], &op.r[1], &op.r[2]) != 5)
		return -EINVAL;
	code = op_code(name);
	if (code < 0 || *n_ops == SCRIPT_MAX)
		return -EINVAL;
	op.code = (uint8_t)code;
	if (ctl->n_scripts == 0 || ctl->scripts[last].actor != actor) {
		if (ctl->n_scripts == ACTORS_MAX)
			return -EINVAL;
		last = ctl->n_scripts++;
		ctl->scripts[last].actor = actor;
		ctl->scripts[last].first = *n_ops;
		ctl->scripts[last].n = 0;
	}
	if (ctl->scripts[last].n == TRACE_MAX)
		return -EINVAL;
	ctl->script_ops[(*n_ops)++] = op;
	ctl->scripts[last].n++;
	return 0;
}

int trace_reread(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned int number = 1;
	uint32_t n_ops = 0;
	char line[256];
	int error = 0;

	if (!file)
		return -errno;
	ctl->n_scripts = 0;
	if (!fgets(line, sizeof(line), file))
		error = -EINVAL;
	while (!error && fgets(line, sizeof(line), file)) {
		number++;
		error = *line == '#' || *line == '\n' ? 0 : read_line(line, &n_ops);
	}
	if (error)
		fprintf(stderr, "uhmm-torture: %s:%u: this is no line of a trace\n", path, number);
	(void)fclose(file);
	return error;
}

int trace_read(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned long long seed;
	char line[256] = "";

	if (!file || !fgets(line, sizeof(line), file) ||
	    sscanf(line, "uhmm-torture seed %llu round %u threads %u processes %u pages %u", &seed,
		   &ctl->round, &ctl->n_threads, &ctl->n_processes, &ctl->pages_max) != 5) {
		fprintf(stderr, "uhmm-torture: %s is no trace\n", path);
		if (file)
			(void)fclose(file);
		return -EINVAL;
	}
	ctl->seed = seed;
	ctl->replaying = 1;
	(void)fclose(file);
	return trace_reread(path);
}
