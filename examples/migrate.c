/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Send 64 MiB of ordinary malloc memory to a tier, see where it is, and touch it home.
 * Needs a running uhmmd; run it as `uhmm run -- uhmm-example-migrate` to have one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uhmm/uhmm.h>
#include <unistd.h>

#define BYTES (64u << 20)

static int say(const char *what, long err)
{
	fprintf(stderr, "%s: %s\n", what, strerror((int)-err));
	return EXIT_FAILURE;
}

static size_t count_on_tier(const unsigned char *vec, size_t n_pages)
{
	size_t n = 0;

	for (size_t i = 0; i < n_pages; i++)
		n += vec[i] == UHMM_WHERE_TIER;
	return n;
}

int main(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t n_pages = BYTES / page + 1; /* malloc does not align to pages */
	unsigned char *memory = malloc(BYTES);
	unsigned char *vec = calloc(n_pages, 1);
	struct uhmm *handle;
	long moved;
	int err;

	if (!memory || !vec)
		return say("malloc", -ENOMEM);
	memset(memory, 42, BYTES);

	err = uhmm_open(NULL, &handle);
	if (err)
		return say("uhmm_open", err);
	moved = uhmm_migrate(handle, memory, BYTES, UHMM_TO_TIER);
	if (moved < 0)
		return say("uhmm_migrate", moved);
	err = uhmm_query(handle, memory, BYTES, vec);
	if (err)
		return say("uhmm_query", err);
	printf("%ld pages moved out, %zu of %zu are on a tier\n", moved,
	       count_on_tier(vec, n_pages), n_pages);

	for (size_t i = 0; i < BYTES; i += page)
		if (memory[i] != 42)
			return say("a page came home changed", -EIO);
	puts("every page came home as it was");

	uhmm_close(handle);
	free(vec);
	free(memory);
	return EXIT_SUCCESS;
}
