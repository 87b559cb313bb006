/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An mmap(MAP_FIXED) that fails leaves what was there, also where the kernel has said already
 * that it is unmapped. Once for a limit of the address space, with more behind the old memory
 * than there is room for, and once for more than the machine has.
 */
#include <sys/resource.h>

#include "prog.h"

#define LEN (16 * MIB)
#define FAR_TOO_MUCH ((size_t)1 << 44)

static void must_not_map(char *mem, size_t len)
{
	void *got = mmap(mem, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			 -1, 0);

	/* A machine may promise more than it has. */
	if (got != MAP_FAILED)
		prog_skip("so much can be mapped here");
	CHECK(errno == ENOMEM);
}

/* As under ulimit -v: no room for the second half. */
static void must_not_map_over_limit(char *mem)
{
	struct rlimit old, now;
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	CHECK(file && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	CHECK(getrlimit(RLIMIT_AS, &old) == 0);
	now = old;
	now.rlim_cur = pages * page_bytes() + MIB;
	CHECK(setrlimit(RLIMIT_AS, &now) == 0);
	must_not_map(mem, 2 * LEN);
	CHECK(setrlimit(RLIMIT_AS, &old) == 0);
}

int main(void)
{
	/* With room behind it for the largest. */
	char *mem = mmap((void *)0x100000000000, LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK(mem != MAP_FAILED);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	must_not_map_over_limit(mem);
	pattern_check(mem, LEN, 1);
	pattern_fill(mem, LEN, 2);
	send_away(mem, LEN);
	must_not_map(mem, FAR_TOO_MUCH);
	pattern_check(mem, LEN, 2);
	/* One that does not fail leaves nothing. */
	send_away(mem, LEN);
	CHECK(mmap(mem, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == mem);
	CHECK(is_zero(mem, LEN));
	return 0;
}
