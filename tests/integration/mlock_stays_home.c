/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mlock is a promise to the program: locked memory comes home, stays home however
 * hard it is asked to leave, and may leave again after munlock.
 */
#include "prog.h"

#define LEN (8 * MIB)
#define OTHER (32 * MIB)

static void check_all_home(const char *mem)
{
	unsigned char where[LEN / 4096];
	struct uhmm *handle;

	CHECK(present_pages(mem, LEN) == LEN / page_bytes());
	if (!managed())
		return;
	handle = handle_open();
	CHECK(nudge_away(handle, mem, LEN) == 0);
	CHECK(uhmm_query(handle, mem, LEN, where) == 0);
	for (size_t i = 0; i < LEN / page_bytes(); i++)
		CHECK(where[i] == UHMM_WHERE_HOST);
	uhmm_close(handle);
	CHECK(present_pages(mem, LEN) == LEN / page_bytes());
}

int main(void)
{
	char *mem = map_private(LEN), *other = map_private(OTHER);

	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	if (mlock(mem, LEN))
		prog_skip("mlock of 8 MiB refused: raise RLIMIT_MEMLOCK or run as root");
	check_all_home(mem);
	pattern_fill(other, OTHER, 2);
	send_away(other, OTHER);
	check_all_home(mem);
	pattern_check(mem, LEN, 1);
	pattern_check(other, OTHER, 2);
	CHECK(munlock(mem, LEN) == 0);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 1);
	return 0;
}
