/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "fixture.h"
#include "log.h"

static struct config config;
static char said[1100];
static int n_said;

static void sink(int priority, const char *line)
{
	ck_assert_int_eq(priority, LOG_ERR);
	snprintf(said, sizeof(said), "%s", line);
	n_said++;
}

static void setup(void)
{
	log_set_sink(sink);
	config_init(&config);
}

static int load(const char *text)
{
	const char *path = fixture_path("conf");
	FILE *file = fopen(path, "we");

	ck_assert_int_ge(fputs(text, file), 0);
	fclose(file);
	n_said = 0;
	config_init(&config);
	return config_load(path, &config);
}

/* The file is refused with this one line, but for the path. */
static void expect_error(const char *text, const char *expected)
{
	char line[600];

	snprintf(line, sizeof(line), "%s:%s", fixture_path("conf"), expected);
	ck_assert_int_eq(load(text), -EINVAL);
	ck_assert_str_eq(said, line);
	ck_assert_int_eq(n_said, 1);
}

START_TEST(the_defaults_are_those_of_the_sample)
{
	ck_assert_str_eq(config.socket, "/run/uhmm/uhmm.sock");
	ck_assert_str_eq(config.state_dir, "/run/uhmm/state");
	ck_assert_str_eq(config.pages_dir, "/dev/shm/uhmm");
	ck_assert_str_eq(config.backend, "ram");
	ck_assert_int_eq(config.log_level, LOG_NOTICE);
	ck_assert_uint_eq(config.sample_usec, 5000);
	ck_assert_uint_eq(config.n_staging_chunks, 2);
	ck_assert_uint_eq(config.host_ram, 0);
	ck_assert_int_ne(config.plugin_dir[0], '\0');
}
END_TEST

START_TEST(the_sample_is_accepted)
{
	ck_assert_int_eq(config_load(UHMM_SAMPLE_CONF, &config), 0);
	ck_assert_int_eq(n_said, 0);
}
END_TEST

/* The sample with every "#key = value" uncommented says nothing that is wrong. */
START_TEST(every_key_of_the_sample_is_accepted)
{
	FILE *file = fopen(UHMM_SAMPLE_CONF, "re");
	char text[8192] = "", line[300];
	int n_keys = 0;

	while (fgets(line, sizeof(line), file) != NULL) {
		bool is_key = line[0] == '#' && line[1] != ' ' && line[1] != '\n';

		n_keys += is_key;
		strcat(text, is_key ? line + 1 : line);
	}
	fclose(file);
	ck_assert_int_eq(n_keys, 15);
	ck_assert_msg(load(text) == 0, "%s", said);
	ck_assert_str_eq(config.plugin_dir, "/usr/lib/uhmm/backends");
	ck_assert_uint_eq(config.max_arena_bytes, 1u << 30);
	ck_assert(config.allow_uids.everyone);
}
END_TEST

START_TEST(every_key_lands_in_its_member)
{
	ck_assert_int_eq(load("[daemon]\nsocket = /a\nstate-dir=/b\npages-dir = /c\n"
			      "plugin-dir = /d\nlog-level = debug\n"
			      "[tier]\nbackend = ram:capacity=2G,foo=bar\n"
			      "[eviction]\nhost-ram = 64M\nsample-usec = 100\n"
			      "staging-chunks = 4\n"
			      "[limits]\nspaces = 10\nspaces-per-uid = 5\narena = 2M\n"
			      "[policy]\nallow-uids = 0, 1000\ndeny-uids = 7\nallow-gids = 8,9\n"),
			 0);
	ck_assert_str_eq(config.socket, "/a");
	ck_assert_str_eq(config.state_dir, "/b");
	ck_assert_str_eq(config.pages_dir, "/c");
	ck_assert_str_eq(config.plugin_dir, "/d");
	ck_assert_int_eq(config.log_level, LOG_DEBUG);
	ck_assert_str_eq(config.backend, "ram:capacity=2G,foo=bar");
	ck_assert_uint_eq(config.host_ram, 64u << 20);
	ck_assert_uint_eq(config.sample_usec, 100);
	ck_assert_uint_eq(config.n_staging_chunks, 4);
	ck_assert_uint_eq(config.max_spaces, 10);
	ck_assert_uint_eq(config.max_spaces_per_uid, 5);
	ck_assert_uint_eq(config.max_arena_bytes, 2u << 20);
	ck_assert_uint_eq(config.allow_uids.n, 2);
	ck_assert_uint_eq(config.allow_uids.ids[1], 1000);
	ck_assert_uint_eq(config.deny_uids.ids[0], 7);
	ck_assert_uint_eq(config.allow_gids.n, 2);
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_named)
{
	ck_assert_int_eq(config_load("/nonexistent/uhmmd.conf", &config), -EINVAL);
	ck_assert_str_eq(said, "/nonexistent/uhmmd.conf: cannot open: No such file or directory");
	ck_assert_int_eq(config_load("/", &config), -EINVAL);
	ck_assert_str_eq(said, "/: cannot read: Is a directory");
}
END_TEST

START_TEST(unknown_names_are_errors)
{
	expect_error("[demon]\nsocket = /a\n", "2: [demon] socket: there is no such section");
	expect_error("\n# hm\n[daemon]\nsockets = /a\n", "4: [daemon] sockets: there is no such key");
	expect_error("socket = /a\n", "1: socket: this key is in no section");
	expect_error("[tier]\nsocket = /a\n", "2: [tier] socket: there is no such key");
}
END_TEST

START_TEST(a_line_that_says_nothing_is_an_error)
{
	expect_error("[daemon]\nsocket\n", "2: neither [section] nor key = value nor a comment");
	expect_error("[daemon\nsocket = /a\n",
		     "1: neither [section] nor key = value nor a comment");
	expect_error("[daemon]\nfoo = 1\nsocket\n", "2: [daemon] foo: there is no such key");
	expect_error("[daemon]\nsocket\nfoo = 1\n",
		     "2: neither [section] nor key = value nor a comment");
}
END_TEST

START_TEST(a_key_given_twice_is_an_error)
{
	expect_error("[tier]\nbackend = ram\n[tier]\nbackend = ram\n",
		     "4: [tier] backend: given twice");
}
END_TEST

START_TEST(a_line_too_long_is_an_error)
{
	char text[1000];

	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "[tier]\nbackend = ", 17);
	text[sizeof(text) - 1] = '\0';
	ck_assert_int_eq(load(text), -EINVAL);
	ck_assert_ptr_nonnull(strstr(said, ":2: the line is longer than "));
	ck_assert_int_eq(n_said, 1);
}
END_TEST

START_TEST(wrong_values_are_named_with_their_key)
{
	expect_error("[daemon]\nsocket = run/x\n",
		     "2: [daemon] socket: 'run/x' is not an absolute path");
	expect_error("[daemon]\nsocket =\n", "2: [daemon] socket: '' is not an absolute path");
	expect_error("[daemon]\nlog-level = loud\n",
		     "2: [daemon] log-level: 'loud' is not error, warning, notice, info or debug");
	expect_error("[tier]\nbackend = ram:capacity\n",
		     "2: [tier] backend: 'ram:capacity' is not of the form NAME or "
		     "NAME:key=value,...");
	expect_error("[eviction]\nhost-ram = 64MB\n",
		     "2: [eviction] host-ram: '64MB' is not a size (a number and at most one of "
		     "K, M, G, T)");
	expect_error("[eviction]\nhost-ram = 99999999T\n",
		     "2: [eviction] host-ram: '99999999T' is out of range");
	expect_error("[eviction]\nsample-usec = 99\n",
		     "2: [eviction] sample-usec: '99' is out of range");
	expect_error("[eviction]\nsample-usec = 5K\n",
		     "2: [eviction] sample-usec: '5K' is not a number");
	expect_error("[eviction]\nsample-usec = -5\n",
		     "2: [eviction] sample-usec: '-5' is not a number");
	expect_error("[eviction]\nstaging-chunks = 5\n",
		     "2: [eviction] staging-chunks: '5' is out of range");
	expect_error("[limits]\narena = 1K\n", "2: [limits] arena: '1K' is out of range");
	expect_error("[limits]\nspaces = 0\n", "2: [limits] spaces: '0' is out of range");
}
END_TEST

START_TEST(a_path_too_long_is_an_error)
{
	char text[200] = "[daemon]\nsocket = /", expected[300];

	memset(text + strlen(text), 'x', 108);
	snprintf(expected, sizeof(expected), "2: [daemon] socket: '%s' is too long",
		 strchr(text, '/'));
	expect_error(text, expected);
}
END_TEST

START_TEST(id_lists_are_exact)
{
	static const char *const bad[] = { "root", "0,", ",0",	 "0,,1", "0 1",
					   "*,0",  "-1", "0x10", "4294967295", "99999999999999999" };
	char text[100], expected[200];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "[policy]\nallow-uids = %s\n", bad[i]);
		snprintf(expected, sizeof(expected),
			 "2: [policy] allow-uids: '%s' is not * or a list of ids, as in 0,1000",
			 bad[i]);
		expect_error(text, expected);
	}
}
END_TEST

START_TEST(id_lists_have_a_limit)
{
	char text[300] = "[policy]\ndeny-uids = 0";

	for (unsigned int i = 0; i < CONFIG_IDS_MAX; i++)
		strcat(text, ",1");
	ck_assert_int_eq(load(text), -EINVAL);
	ck_assert_ptr_nonnull(strstr(said, "has too many ids"));
}
END_TEST

static bool allows(uid_t uid, gid_t gid, const char *expected)
{
	char why[200] = "";
	bool allowed = config_policy_allows(&config, uid, gid, why, sizeof(why));

	ck_assert_str_eq(why, expected);
	return allowed;
}

START_TEST(everyone_is_allowed_unless_said_otherwise)
{
	ck_assert(allows(0, 0, ""));
	ck_assert(allows(12345, 12345, ""));
}
END_TEST

START_TEST(only_those_who_are_listed_are_allowed)
{
	ck_assert_int_eq(load("[policy]\nallow-uids = 1000\nallow-gids = 100\n"), 0);
	ck_assert(allows(1000, 5, ""));
	ck_assert(allows(5, 100, ""));
	ck_assert(!allows(0, 0, "uid 0 is not in allow-uids, and gid 0 not in allow-gids"));
	ck_assert_int_eq(load("[policy]\nallow-gids = 100\n"), 0);
	ck_assert(!allows(5, 5, "uid 5 is not in allow-uids, and gid 5 not in allow-gids"));
}
END_TEST

START_TEST(deny_beats_allow)
{
	ck_assert_int_eq(load("[policy]\nallow-uids = *\ndeny-uids = 7\n"), 0);
	ck_assert(!allows(7, 7, "uid 7 is in deny-uids"));
	ck_assert(allows(8, 7, ""));
	ck_assert_int_eq(load("[policy]\nallow-uids = 5\ndeny-uids = *\n"), 0);
	ck_assert(!allows(5, 5, "uid 5 is in deny-uids"));
}
END_TEST

START_TEST(a_member_is_set_whole_or_not_at_all)
{
	char member[4] = "old";

	ck_assert_int_eq(config_set(member, sizeof(member), "new"), 0);
	ck_assert_str_eq(member, "new");
	ck_assert_int_eq(config_set(member, sizeof(member), "long"), -ENAMETOOLONG);
	ck_assert_str_eq(member, "new");
	ck_assert_int_eq(n_said, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tcase = tcase_create("config");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, the_defaults_are_those_of_the_sample);
	tcase_add_test(tcase, the_sample_is_accepted);
	tcase_add_test(tcase, every_key_of_the_sample_is_accepted);
	tcase_add_test(tcase, every_key_lands_in_its_member);
	tcase_add_test(tcase, a_file_that_cannot_be_read_is_named);
	tcase_add_test(tcase, unknown_names_are_errors);
	tcase_add_test(tcase, a_line_that_says_nothing_is_an_error);
	tcase_add_test(tcase, a_key_given_twice_is_an_error);
	tcase_add_test(tcase, a_line_too_long_is_an_error);
	tcase_add_test(tcase, wrong_values_are_named_with_their_key);
	tcase_add_test(tcase, a_path_too_long_is_an_error);
	tcase_add_test(tcase, id_lists_are_exact);
	tcase_add_test(tcase, id_lists_have_a_limit);
	tcase_add_test(tcase, everyone_is_allowed_unless_said_otherwise);
	tcase_add_test(tcase, only_those_who_are_listed_are_allowed);
	tcase_add_test(tcase, deny_beats_allow);
	tcase_add_test(tcase, a_member_is_set_whole_or_not_at_all);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
