/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ram backend, called as tier.c calls it: what a store keeps when its process ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "log.h"
#include "uhmm/backend.h"

#define SLOTS 64u

static const struct uhmm_backend_ops *ops;
static struct uhmm_tier *tier;
static char name[32];
static size_t page;

static void setup(void)
{
	const struct uhmm_backend_param none = { .key = NULL };
	struct uhmm_backend_env env = {
		.size = sizeof(env),
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.tier_name = "ram",
		.pages_dir = fixture_dir,
		.log = log_write,
	};

	page = env.page_size;
	ops = uhmm_backend_entry();
	snprintf(name, sizeof(name), "f%d-s1-1", (int)getpid());
	ck_assert_int_eq(ops->tier_open(&env, &none, &tier), 0);
}

static void teardown(void)
{
	ops->tier_close(tier);
}

static const char *path(void)
{
	static char text[128];

	snprintf(text, sizeof(text), "%s/%s", fixture_dir, name);
	return text;
}

/* A store of SLOTS slots with a byte of its own in slot 5, that its process left. */
static void leave_store(void)
{
	struct uhmm_store *store;
	char *bytes = calloc(1, page);

	ck_assert_int_eq(ops->store_open(tier, name, &store), 0);
	ck_assert_int_eq(ops->store_resize(store, SLOTS), 0);
	bytes[9] = 'x';
	ck_assert_int_eq(ops->write(store, 5, 1, bytes), 0);
	ops->store_leave(store);
	free(bytes);
}

static void reopen_is(uint64_t n_slots, int expected)
{
	struct uhmm_store *store;

	ck_assert_int_eq(ops->store_reopen(tier, name, n_slots, &store), expected);
	if (expected == 0)
		ops->store_leave(store);
}

START_TEST(a_store_that_was_left_has_its_bytes)
{
	struct uhmm_store *store;
	const char *map;
	char *bytes = malloc(page);

	leave_store();
	ck_assert_int_eq(ops->store_reopen(tier, name, SLOTS, &store), 0);
	map = ops->store_map(store);
	ck_assert_int_eq(map[5 * page + 9], 'x');
	ck_assert_int_eq(ops->read(store, 5, 1, bytes), 0);
	ck_assert_int_eq(bytes[9], 'x');
	ops->store_close(store);
	free(bytes);
}
END_TEST

START_TEST(it_grows_on_and_never_shrinks)
{
	struct uhmm_store *store;
	struct stat st;
	char *bytes = calloc(1, page);
	int fd;

	leave_store();
	/* Fewer are known than there are: a crash came between. */
	ck_assert_int_eq(ops->store_reopen(tier, name, 6, &store), 0);
	ck_assert_int_eq(ops->store_resize(store, 7), 0);
	ck_assert_int_eq(stat(path(), &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, SLOTS * page);
	ck_assert_int_eq(ops->store_resize(store, 2 * SLOTS), 0);
	ck_assert_int_eq(ops->write(store, 2 * SLOTS - 1, 1, bytes), 0);
	fd = ops->store_fd(store);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ops->store_close(store);
	free(bytes);
}
END_TEST

START_TEST(closing_forgets_it)
{
	struct uhmm_store *store;

	leave_store();
	ck_assert_int_eq(ops->store_reopen(tier, name, SLOTS, &store), 0);
	ops->store_close(store);
	ck_assert_int_eq(access(path(), F_OK), -1);
	reopen_is(0, -ENOENT);
}
END_TEST

START_TEST(a_file_that_is_too_short_is_refused)
{
	leave_store();
	reopen_is(SLOTS + 1, -EPROTO);
	reopen_is(UINT64_MAX, -EPROTO);
	ck_assert_int_eq(truncate(path(), (off_t)((SLOTS - 1) * page)), 0);
	reopen_is(SLOTS, -EPROTO);
	reopen_is(SLOTS - 1, 0);
}
END_TEST

START_TEST(a_file_that_others_can_reach_is_refused)
{
	char other[160];

	leave_store();
	ck_assert_int_eq(chmod(path(), 0640), 0);
	reopen_is(SLOTS, -EPERM);
	ck_assert_int_eq(chmod(path(), 0600), 0);
	snprintf(other, sizeof(other), "%s-other", path());
	ck_assert_int_eq(link(path(), other), 0);
	reopen_is(SLOTS, -EPERM);
	ck_assert_int_eq(unlink(other), 0);
	reopen_is(SLOTS, 0);
	if (geteuid() == 0) {
		ck_assert_int_eq(chown(path(), 1, 1), 0);
		reopen_is(SLOTS, -EPERM);
	}
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
	char target[160];

	leave_store();
	snprintf(target, sizeof(target), "%s-target", path());
	ck_assert_int_eq(rename(path(), target), 0);
	ck_assert_int_eq(symlink(target, path()), 0);
	reopen_is(SLOTS, -EPERM);
	ck_assert_int_eq(unlink(path()), 0);
	ck_assert_int_eq(mkfifo(path(), 0600), 0);
	reopen_is(SLOTS, -EPERM);
	ck_assert_int_eq(unlink(path()), 0);
	ck_assert_int_eq(mkdir(path(), 0700), 0);
	reopen_is(SLOTS, -EISDIR);
	ck_assert_int_eq(rmdir(path()), 0);
	ck_assert_int_eq(rename(target, path()), 0);
	reopen_is(SLOTS, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ram");
	TCase *tcase = tcase_create("ram");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_store_that_was_left_has_its_bytes);
	tcase_add_test(tcase, it_grows_on_and_never_shrinks);
	tcase_add_test(tcase, closing_forgets_it);
	tcase_add_test(tcase, a_file_that_is_too_short_is_refused);
	tcase_add_test(tcase, a_file_that_others_can_reach_is_refused);
	tcase_add_test(tcase, what_is_no_file_is_refused);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
