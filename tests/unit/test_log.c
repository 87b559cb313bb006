/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "log.h"

static char seen[1100];
static int seen_priority;
static int n_seen;

static void sink(int priority, const char *line)
{
	seen_priority = priority;
	n_seen++;
	snprintf(seen, sizeof(seen), "%s", line);
}

/* Put stderr into a pipe; returns the end to read. */
static int capture_stderr(void)
{
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
	close(fds[1]);
	log_set_sink(NULL);
	return fds[0];
}

START_TEST(a_line_below_the_level_is_dropped)
{
	log_set_sink(sink);
	log_debug("not this one");
	ck_assert_int_eq(n_seen, 0);
	log_set_level(LOG_DEBUG);
	log_debug("this %d", 1);
	ck_assert_str_eq(seen, "this 1");
	ck_assert_int_eq(seen_priority, LOG_DEBUG);
}
END_TEST

START_TEST(control_characters_cannot_forge_a_line)
{
	log_set_sink(sink);
	log_warn("name '%s'", "a\nuhmmd: forged\x1b[2J");
	ck_assert_str_eq(seen, "name 'a?uhmmd: forged?[2J'");
}
END_TEST

START_TEST(a_long_line_is_cut)
{
	char text[3000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_set_sink(sink);
	log_info("%s", text);
	ck_assert_uint_eq(strlen(seen), 999);
}
END_TEST

START_TEST(errno_survives)
{
	log_set_sink(sink);
	errno = EXDEV;
	log_info("hello");
	ck_assert_int_eq(errno, EXDEV);
}
END_TEST

START_TEST(a_terminal_or_file_gets_words)
{
	int fd = capture_stderr();
	char text[100] = "";

	unsetenv("JOURNAL_STREAM");
	log_err("no");
	log_warn("hm");
	log_info("well");
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	ck_assert_str_eq(text, "uhmmd: error: no\nuhmmd: warning: hm\nuhmmd: well\n");
}
END_TEST

START_TEST(the_journal_gets_priorities)
{
	int fd = capture_stderr();
	char text[100] = "", stream[64];
	struct stat st;

	ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_err("no");
	log_info("well");
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	ck_assert_str_eq(text, "<3>no\n<6>well\n");
}
END_TEST

START_TEST(an_inherited_journal_variable_means_nothing)
{
	int fd = capture_stderr();
	char text[100] = "";

	setenv("JOURNAL_STREAM", "1:2", 1);
	log_info("well");
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	ck_assert_str_eq(text, "uhmmd: well\n");
}
END_TEST

#define LINES_A_THREAD 200

static void *chatter(void *letter)
{
	for (int i = 0; i < LINES_A_THREAD; i++)
		log_info("%.60s", (const char *)letter);
	return NULL;
}

START_TEST(lines_of_several_threads_do_not_mix)
{
	char a[61], b[61], line[200];
	int n_a = 0, n_b = 0, fd = capture_stderr();
	FILE *file = fdopen(fd, "r");
	pthread_t threads[2];

	memset(a, 'a', 60);
	memset(b, 'b', 60);
	a[60] = b[60] = '\0';
	pthread_create(&threads[0], NULL, chatter, a);
	pthread_create(&threads[1], NULL, chatter, b);
	for (int i = 0; i < 2 * LINES_A_THREAD; i++) {
		ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
		line[strcspn(line, "\n")] = '\0';
		n_a += strcmp(line + strlen("uhmmd: "), a) == 0;
		n_b += strcmp(line + strlen("uhmmd: "), b) == 0;
	}
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	ck_assert_int_eq(n_a, LINES_A_THREAD);
	ck_assert_int_eq(n_b, LINES_A_THREAD);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("log");
	TCase *tcase = tcase_create("log");

	tcase_add_test(tcase, a_line_below_the_level_is_dropped);
	tcase_add_test(tcase, control_characters_cannot_forge_a_line);
	tcase_add_test(tcase, a_long_line_is_cut);
	tcase_add_test(tcase, errno_survives);
	tcase_add_test(tcase, a_terminal_or_file_gets_words);
	tcase_add_test(tcase, the_journal_gets_priorities);
	tcase_add_test(tcase, an_inherited_journal_variable_means_nothing);
	tcase_add_test(tcase, lines_of_several_threads_do_not_mix);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
