/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arenas that no daemon wrote: a valid one with words, bits or bytes changed at random, or cut.
 * Recovery never crashes; it refuses the arena and leaves the file alone, or what it makes of it
 * is consistent and can be used until nothing is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fake_tier.h"
#include "fixture.h"
#include "pagemap_check.h"
#include "pagemap_tree.h"
#include "recover.h"
#include "space.h"

#define LEAF PAGEMAP_LEAF_PAGES
#define UNITS 40u
#define SLOTS 64u
#define ROUNDS 100000u

static unsigned char valid[UNITS * ARENA_UNIT];
static size_t valid_bytes;
static char path[256];
static uint64_t seed;
static unsigned long n_accepted, n_refused;

static struct tier *find_tier(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, fake_tier_handle.name) == 0 ? &fake_tier_handle : NULL;
}

static uint64_t below(uint64_t n)
{
	return fixture_random(&seed) % n;
}

/* Two spaces that share a leaf, one removed chunk, a batch, two stores; few units are free. */
static void setup(void)
{
	struct family *family = check_family(UNITS, SLOTS);
	struct pagemap maps[2];
	struct store *store;

	seed = fixture_seed();
	strcpy(path, family->arena.path);
	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 1, &store), 0);
	ck_assert_int_eq(slots_grow(&family->arena, &store->unit->slots, SLOTS), 0);
	ck_assert_int_eq(pagemap_init(&maps[0], family), 0);
	for (uint64_t i = 0; i < 40; i++)
		ck_assert_int_eq(pagemap_set(&maps[0], i % 2 * LEAF + i, check_stored(family)), 0);
	ck_assert_int_eq(pagemap_fork(&maps[0], &maps[1]), 0);
	ck_assert_int_eq(pagemap_set(&maps[1], LEAF, (struct page_rec){ PAGE_POISONED }), 0);
	ck_assert_int_eq(pagemap_set(&maps[1], 3 * LEAF, check_stored(family)), 0);
	ck_assert_int_eq(pagemap_remove(&maps[1], 3 * LEAF, LEAF), 0);
	for (unsigned int i = 0; i < 2; i++)
		check_publish(family, i + 1, &maps[i]);
	valid_bytes = family->arena.header->n_units * ARENA_UNIT;
	ck_assert_uint_le(valid_bytes, sizeof(valid));
	memcpy(valid, family->arena.header, valid_bytes);
	family_leave(family);
	(void)unlink(path);
}

static void teardown(void)
{
	(void)unlink(path);
}

/* Most of an arena is zero: look for a word that says something, mostly. */
static size_t pick_word(void)
{
	size_t n = valid_bytes / 8;

	if (below(4) == 0)
		return below(n);

	for (unsigned int tries = 0; tries < 2000; tries++) {
		size_t at = below(8) == 0 ? below(20) : below(n); /* the header more often */
		uint64_t word;

		memcpy(&word, valid + at * 8, 8);
		if (word != 0 || tries % 500 == 499)
			return at;
	}
	return 0;
}

/* What may stand in an arena's words. */
static uint64_t likely_word(void)
{
	uint64_t word;

	switch (below(6)) {
	case 0: /* an offset, with flags now and then */
		return below(UNITS + 2) * ARENA_UNIT | (below(3) == 0 ? below(8) : 0);
	case 1: /* a record */
		return below(8) | below(4) << PAGE_REC_STORE_SHIFT |
		       below(SLOTS + 2) << PAGE_REC_SLOT_SHIFT;
	case 2:
		return below(600);
	case 3: /* a word of it */
		memcpy(&word, valid + pick_word() * 8, 8);
		return word;
	case 4:
		return UINT64_MAX - below(3);
	default:
		return fixture_random(&seed);
	}
}

static void spoil(unsigned char *bytes)
{
	size_t at = pick_word() * 8;
	uint64_t word;

	switch (below(4)) {
	case 0:
		bytes[at + below(8)] ^= (unsigned char)(1u << below(8));
		break;
	case 1:
		bytes[at + below(8)] = (unsigned char)below(256);
		break;
	default:
		word = likely_word();
		memcpy(bytes + at, &word, 8);
		break;
	}
}

/* Any length, but often one at which something ends. */
static size_t pick_length(void)
{
	if (below(20) != 0)
		return valid_bytes;
	return below(2) == 0 ? below(valid_bytes / ARENA_UNIT + 1) * ARENA_UNIT
			     : below(valid_bytes + 1);
}

static int write_arena(const unsigned char *bytes, size_t n)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	fixture_must(fd >= 0 && write(fd, bytes, n) == (ssize_t)n, "%s", path);
	return fd;
}

static void use_up(struct recovered *recovered)
{
	struct pagemap maps[UNITS];
	struct pagemap fork = PAGEMAP_NULL;

	for (uint32_t i = 0; i < recovered->n_spaces; i++)
		maps[i] = recovered->spaces[i].map;
	check_books(recovered->family, recovered->has_object ? &recovered->object.map : maps,
		    recovered->has_object ? 1 : recovered->n_spaces);
	for (uint32_t i = 0; i < recovered->n_spaces; i++) {
		struct pagemap *map = &recovered->spaces[i].map;

		(void)pagemap_set(map, below(4 * LEAF), (struct page_rec){ PAGE_REMOVED });
		(void)pagemap_move(map, 0, 8 * LEAF + below(3), 1 + below(3 * LEAF));
		if (pagemap_fork(map, &fork) == 0)
			pagemap_deinit(&fork);
		(void)pagemap_remove(map, 9 * LEAF, LEAF);
		pagemap_prune(map);
	}
	if (recovered->has_object)
		pagemap_deinit(&recovered->object.map);
	for (uint32_t i = 0; i < recovered->n_spaces; i++)
		recovered_forget_space(recovered, i);
	check_books(recovered->family, NULL, 0);
	family_unref(recovered->family);
	recovered_deinit(recovered);
}

static void has_not_changed(int fd, const unsigned char *bytes, size_t n)
{
	static unsigned char now[sizeof(valid)];

	fixture_must(pread(fd, now, sizeof(now), 0) == (ssize_t)n && memcmp(now, bytes, n) == 0,
		     "a refused file was changed");
}

static void recover_spoilt(unsigned int n_spoils)
{
	static unsigned char bytes[sizeof(valid)];
	struct recovered recovered;
	char why[RECOVER_WHY_BYTES] = "";
	size_t n = pick_length();
	int fd, err;

	memcpy(bytes, valid, valid_bytes);
	while (n_spoils-- > 0)
		spoil(bytes);
	fd = write_arena(bytes, n);
	err = family_open(path, UNITS * ARENA_UNIT, find_tier, NULL, &recovered, why);
	/* ENODEV: the tier's name is another. */
	fixture_must(err == 0 || err == -EPROTO || err == -ENODEV, "%d: %s", err, why);
	fixture_must((err == 0) == (why[0] == '\0'), "%d: %s", err, why);
	if (err == 0)
		use_up(&recovered);
	else
		has_not_changed(fd, bytes, n);
	n_accepted += err == 0;
	n_refused += err != 0;
	(void)close(fd);
	fixture_must(fake_tier.n_open == 0, "%d stores are open still", fake_tier.n_open);
}

START_TEST(a_spoilt_arena_is_refused_or_consistent)
{
	for (unsigned int i = 0; i < ROUNDS; i++)
		recover_spoilt(i % 10 == 0 ? 0 : 1 + (unsigned int)below(1 + i % 4));
	printf("%lu accepted, %lu refused\n", n_accepted, n_refused);
	fflush(stdout);
	/* It refuses, and it does not refuse all. */
	ck_assert_uint_gt(n_accepted, ROUNDS / 20);
	ck_assert_uint_gt(n_refused, ROUNDS / 5);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recover_hostile");
	TCase *tcase = tcase_create("recover_hostile");

	tcase_set_timeout(tcase, 550);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_spoilt_arena_is_refused_or_consistent);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
