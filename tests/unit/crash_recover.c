/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crash_recover.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_tier.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "recover.h"
#include "space.h"
#include "step.h"

/* The records of all spaces, by id; NULL: no such space. */
struct snapshot {
	uint64_t *recs[CRASH_SPACES];
};

static struct family *family; /* that is changed */
static char copy_dir[128], copy_path[256];
static unsigned char *saved, *last; /* the arena before, and when it was last recovered */
static size_t saved_bytes, last_bytes;
static struct snapshot before, after;
static unsigned long n_recovered;

static struct tier *find_tier(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return &fake_tier_handle;
}

static size_t arena_bytes(void)
{
	struct stat st;

	fixture_must(fstat(family->arena.fd, &st) == 0, "fstat");
	return (size_t)st.st_size;
}

/* Written, not sparse. */
static void copy_arena(void)
{
	int fd = open(copy_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	fixture_must(fd >= 0, "%s", copy_path);
	last_bytes = arena_bytes();
	memcpy(last, family->arena.header, last_bytes);
	fixture_must(write(fd, last, last_bytes) == (ssize_t)last_bytes, "write");
	(void)close(fd);
}

static uint64_t *read_map(const struct pagemap *map)
{
	uint64_t *recs = calloc(CRASH_PAGES, sizeof(*recs));

	for (uint64_t i = 0; i < CRASH_PAGES; i++)
		recs[i] = pagemap_get(map, i).v;
	return recs;
}

static void snapshot_free(struct snapshot *snapshot)
{
	for (unsigned int i = 0; i < CRASH_SPACES; i++)
		free(snapshot->recs[i]);
	*snapshot = (struct snapshot){ .recs = { NULL } };
}

/* Recover the copy: exact books, and what it holds. */
static void recover_copy(struct snapshot *ret_snapshot)
{
	struct pagemap maps[CRASH_SPACES];
	struct recovered recovered;
	char why[RECOVER_WHY_BYTES];
	int err = family_open(copy_path, family->arena.map_bytes, find_tier, NULL, &recovered, why);

	fixture_must(err == 0, "refused: %s (%d)", why, err);
	fixture_must(recovered.n_spaces < CRASH_SPACES, "%u spaces", recovered.n_spaces);
	for (uint32_t i = 0; i < recovered.n_spaces; i++) {
		uint64_t id = recovered.spaces[i].unit->space_id;

		fixture_must(id < CRASH_SPACES, "space %llu", (unsigned long long)id);
		maps[i] = recovered.spaces[i].map;
		ret_snapshot->recs[id] = read_map(&maps[i]);
	}
	check_books(recovered.family, maps, recovered.n_spaces);
	family_leave(recovered.family);
	recovered_deinit(&recovered);
	n_recovered++;
}

static void take_snapshot(struct snapshot *ret_snapshot)
{
	copy_arena();
	recover_copy(ret_snapshot);
}

void crash_expect(struct family *changed, const char *name, void (*change)(void))
{
	family = changed;
	snprintf(copy_dir, sizeof(copy_dir), "%s/copy-%d", fixture_dir, (int)getpid());
	fixture_must(mkdir(copy_dir, 0700) == 0, "%s", copy_dir);
	snprintf(copy_path, sizeof(copy_path), "%s/", copy_dir);
	(void)family_name_arena(copy_path + strlen(copy_path), 64, family->id);
	last = malloc(family->arena.map_bytes);
	saved_bytes = arena_bytes();
	saved = malloc(saved_bytes);
	memcpy(saved, family->arena.header, saved_bytes);
	take_snapshot(&before);
	step_over(name, change);
	take_snapshot(&after);
	memcpy(family->arena.header, saved, saved_bytes);
}

static bool has_slot(uint64_t rec)
{
	return page_state_has_slot(page_rec_state((struct page_rec){ rec }));
}

/* Where the record of a page comes to be; CRASH_PAGES: nowhere. */
static uint64_t goes_to(const uint64_t *recs, uint64_t page, uint64_t rec)
{
	if (recs[page] == rec)
		return page;
	for (uint64_t i = 0; i < CRASH_PAGES; i++) {
		if (recs[i] == rec)
			return i;
	}
	return CRASH_PAGES;
}

static void compare_space(unsigned int id, const uint64_t *now)
{
	const uint64_t *old = before.recs[id], *new = after.recs[id];

	for (uint64_t i = 0; i < CRASH_PAGES; i++) {
		uint64_t to;

		fixture_must((old != NULL && now[i] == old[i]) || (new != NULL && now[i] == new[i]),
			     "space %u, page %llu: %#llx", id, (unsigned long long)i,
			     (unsigned long long)now[i]);
		if (old == NULL || new == NULL || now[i] == old[i] || !has_slot(old[i]))
			continue;
		to = goes_to(new, i, old[i]);
		fixture_must(to == CRASH_PAGES || now[to] == old[i],
			     "space %u: the record of page %llu is lost", id,
			     (unsigned long long)i);
	}
}

void crash_look(void)
{
	struct snapshot now = { .recs = { NULL } };

	if (arena_bytes() == last_bytes && memcmp(last, family->arena.header, last_bytes) == 0)
		return;
	take_snapshot(&now);
	for (unsigned int id = 0; id < CRASH_SPACES; id++) {
		if (now.recs[id] != NULL)
			compare_space(id, now.recs[id]);
		else
			fixture_must(before.recs[id] == NULL || after.recs[id] == NULL,
				     "space %u is lost", id);
	}
	snapshot_free(&now);
}

unsigned long crash_done(void)
{
	memcpy(family->arena.header, saved, saved_bytes);
	snapshot_free(&before);
	snapshot_free(&after);
	free(saved);
	free(last);
	(void)unlink(copy_path);
	(void)rmdir(copy_dir);
	return n_recovered;
}
