/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts what of each mapping is in host RAM and what is away. Runs on the space's worker, which
 * alone may read the page map, in slices, so that faults are served between: the program goes on
 * meanwhile, so the rows are one look after another and not one instant.
 *
 * It moves nothing. What is in host RAM is the kernel's word (PAGEMAP_SCAN); what is away is the
 * records' (survey_count_away, the one place that says so).
 */
#define _GNU_SOURCE
#include "survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "control.h"
#include "object.h"
#include "pick.h"
#include "space.h"
#include "uffd.h"
#include "util/array.h"
#include "wire.h"

/* A slice: so many pages that are present, and so many records. */
#define SURVEY_SCAN_PAGES 65536u
#define SURVEY_REGIONS 128u
#define SURVEY_RECORDS 8192u
#define SURVEY_SHARED_PAGES 65536u

void survey_free(struct survey *survey)
{
	if (!survey)
		return;
	free(survey->rows);
	free(survey);
}

/* ---- the rows --------------------------------------------------------------------------- */

/* What the kernel calls a mapping is chosen by the program: only what is printable goes on. */
static void row_set_name(struct survey_row *row, const char *name, size_t len)
{
	size_t skip = len < SURVEY_NAME_MAX ? 0 : len - (SURVEY_NAME_MAX - 1);

	len -= skip;
	for (size_t i = 0; i < len; i++) {
		char c = name[skip + i];

		row->name[i] = c < 0x20 || c >= 0x7f ? '?' : c;
	}
	row->name[len] = '\0';
}

/* The line of /proc/PID/maps at *text; *text is at the next one then. */
static void row_read_name(struct survey_row *row, const char **text)
{
	size_t len = strcspn(*text, "\n"), at = 0;

	/* The name is what follows the fifth field: "start-end perms offset dev inode". */
	for (int field = 0; field < 5; field++) {
		at += strcspn(*text + at, " \n");
		at += strspn(*text + at, " ");
	}
	row_set_name(row, *text + at, at < len ? len - at : 0);
	*text += (*text)[len] ? len + 1 : len;
}

static bool row_continues(const struct survey_row *last, const struct survey_row *row)
{
	return last->end == row->start && last->reason == row->reason &&
	       strcmp(last->name, row->name) == 0 && last->shared == row->shared &&
	       last->dev == row->dev && last->ino == row->ino &&
	       (!row->shared || last->offset + (last->end - last->start) == row->offset);
}

static int survey_add(struct survey *survey, const struct survey_row *row)
{
	struct survey_row *last = survey->n_rows ? &survey->rows[survey->n_rows - 1] : NULL;
	struct survey_row *rows;

	if (last && row_continues(last, row)) {
		last->end = row->end;
		return 0;
	}
	rows = array_room(survey->rows, survey->n_rows, &survey->cap, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	survey->rows = rows;
	survey->rows[survey->n_rows++] = *row;
	return 0;
}

/* The verdict on a mapping, as pick.c sees it; the initial stack has two. */
static int survey_add_mapping(const struct space *space, struct survey *survey,
			      const struct mapping *m, struct survey_row *row)
{
	const struct range *refused = ranges_find(&space->unmanaged, m->start);
	int err = 0;

	row->start = m->start;
	row->end = m->end;
	row->reason = m->reason == UHMM_REASON_SHARED ? object_reason(m->dev, m->ino) : m->reason;
	row->shared = m->shared;
	row->dev = m->shared ? m->dev : 0;
	row->ino = m->shared ? m->ino : 0;
	row->offset = m->shared ? m->offset : 0;
	if (row->reason == UHMM_REASON_NONE && refused)
		row->reason = (enum uhmm_reason)refused->tag;
	if (m->is_stack && row->reason == UHMM_REASON_NONE && m->end > space->stack_top_addr) {
		if (m->start < space->stack_top_addr) {
			row->end = space->stack_top_addr;
			err = survey_add(survey, row);
			row->start = row->end;
			row->end = m->end;
		}
		row->reason = UHMM_REASON_STACK_TOP;
	}
	return err < 0 ? err : survey_add(survey, row);
}

static int survey_add_rows(struct space *space, struct survey *survey)
{
	struct survey_row row = { .start = 0 };
	const char *text = "";
	int err;

	err = pick_refresh_maps(space, 0);
	/* Its text may be that of smaps by now; this one is for the names. */
	if (err == 0)
		err = maps_read(&space->maps_check, space->maps_fd);
	if (err == 0 && space->maps_check.n)
		text = space->maps_check.buf;
	for (size_t i = 0, k = 0; err == 0 && i < space->maps.n; i++) {
		const struct mapping *m = &space->maps.v[i];

		if (m->start >= WIRE_ADDR_MAX)
			break; /* the kernel's: [vsyscall] */
		row_set_name(&row, "", 0);
		while (k < space->maps_check.n && space->maps_check.v[k].start <= m->start) {
			row_read_name(&row, &text);
			k++;
		}
		err = survey_add_mapping(space, survey, m, &row);
	}
	return err;
}

static void survey_finish(struct mail *mail, int error)
{
	mail->error = error;
	control_complete(mail);
}

void survey_begin(struct space *space, struct mail *mail)
{
	struct survey *survey = calloc(1, sizeof(*survey));
	int err = -ENOMEM;

	if (survey && !__atomic_load_n(&space->identified, __ATOMIC_ACQUIRE))
		err = -ESRCH;
	else if (survey)
		err = survey_add_rows(space, survey);
	if (err < 0 || survey->n_rows == 0) {
		survey_free(survey);
		survey_finish(mail, err < 0 ? err : -ESRCH);
		return;
	}
	survey->pid = space->pid;
	memcpy(survey->command, space->command, sizeof(survey->command));
	survey->agent_reason =
		(enum uhmm_reason)__atomic_load_n(&space->agent_reason, __ATOMIC_RELAXED);
	survey->held = __atomic_load_n(&space->hold, __ATOMIC_RELAXED);
	survey->scan_at = survey->count_at = survey->rows[0].start;
	mail->survey = survey;
	space->surveying = mail;
}

/* ---- the counts ------------------------------------------------------------------------- */

/* Of the rest of this row. What is swapped out is not in host RAM, and the zero page is nobody's.
 */
static int survey_scan_host(const struct space *space, struct survey_row *row, uint64_t *at)
{
	struct page_region regions[SURVEY_REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = *at,
		.end = row->end,
		.vec = (uintptr_t)regions,
		.vec_len = SURVEY_REGIONS,
		.max_pages = SURVEY_SCAN_PAGES,
		.category_mask = PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
		.category_inverted = PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_PRESENT,
	};
	int n = ioctl(space->pagemap_fd, PAGEMAP_SCAN, &arg);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		row->host_pages += (regions[i].end - regions[i].start) / space->page_size;
	*at = arg.walk_end > *at ? arg.walk_end : row->end;
	return 0;
}

static uint64_t count_shared(const struct space *space, const struct survey_row *row, uint64_t *at)
{
	struct object *object = object_of_space(space, row->dev, row->ino);
	uint64_t first = space_pgidx(space, row->offset + (*at - row->start));
	uint64_t n = space_pgidx(space, row->end - *at);

	if (!object) {
		*at = row->end;
		return 0;
	}
	if (n > SURVEY_SHARED_PAGES)
		n = SURVEY_SHARED_PAGES;
	*at += space_addr(space, n);
	return object_count_away(object, first, n);
}

/* Which pages of the rest of this row are away. Everything that is known about that is here. */
static void survey_count_away(const struct space *space, struct survey_row *row, uint64_t *at)
{
	uint64_t end = space_pgidx(space, row->end), i = space_pgidx(space, *at);
	struct page_rec rec;

	if (row->shared) {
		row->away_pages += count_shared(space, row, at);
		return;
	}
	for (uint32_t budget = SURVEY_RECORDS; budget; budget--, i++) {
		i = pagemap_next(&space->map, i, end, &rec);
		if (i >= end)
			break;
		if (page_rec_state(rec) == PAGE_POISONED)
			row->lost_pages++;
		else
			row->away_pages++;
	}
	*at = space_addr(space, i);
}

bool survey_step(struct space *space)
{
	struct mail *mail = space->surveying;
	struct survey *survey = mail ? mail->survey : NULL;
	struct survey_row *row;
	int err = 0;

	if (!mail)
		return false;
	row = &survey->rows[survey->row];
	if (survey->scan_at < row->end)
		err = survey_scan_host(space, row, &survey->scan_at);
	if (survey->count_at < row->end)
		survey_count_away(space, row, &survey->count_at);
	if (err == 0 && (survey->scan_at < row->end || survey->count_at < row->end))
		return true;
	if (err == 0 && ++survey->row < survey->n_rows) {
		survey->scan_at = survey->count_at = survey->rows[survey->row].start;
		return true;
	}
	space->surveying = NULL;
	survey_finish(mail, err);
	return false;
}
