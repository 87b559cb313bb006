/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fixture.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

char fixture_dir[64] = "/dev/shm/uhmm-unit-XXXXXX";

static const char *expected_error;
static int n_errors;

static void fixture_sink(int priority, const char *line)
{
	if (priority > LOG_ERR)
		return;
	if (expected_error == NULL || strstr(line, expected_error) == NULL) {
		fprintf(stderr, "unexpected error line: %s\n", line);
		abort();
	}
	n_errors++;
}

void fixture_expect_error(const char *part)
{
	expected_error = part;
}

int fixture_errors_seen(void)
{
	return n_errors;
}

const char *fixture_path(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%d-%s", fixture_dir, (int)getpid(), name);
	return path;
}

void fixture_fail(const char *cond, const char *fmt, ...)
{
	char text[500];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	ck_abort_msg("%s: %s", cond, text);
	abort(); /* ck_abort_msg does not say that it never returns */
}

void fixture_arena(struct arena *arena, uint64_t n_units)
{
	ck_assert_int_eq(
		arena_create(arena, fixture_path("arena"), 7, (size_t)(n_units * ARENA_UNIT)), 0);
}

uint64_t fixture_seed(void)
{
	const char *text = getenv("UHMM_SEED");
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = text != NULL ? strtoull(text, NULL, 0)
			    : (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec;
	printf("UHMM_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	return seed == 0 ? 1 : seed;
}

uint64_t fixture_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

static void fixture_clean(void)
{
	DIR *dir = opendir(fixture_dir);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		(void)unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir != NULL)
		closedir(dir);
	(void)rmdir(fixture_dir);
}

int fixture_main(Suite *suite)
{
	SRunner *runner;
	int failed;

	if (mkdtemp(fixture_dir) == NULL) {
		perror(fixture_dir);
		return EXIT_FAILURE;
	}
	log_set_sink(fixture_sink);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	fixture_clean();
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
