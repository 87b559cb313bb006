/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guard page put over memory that is away stays a guard: neighbours that come
 * home, by whatever fault-around, do not erase it, and once removed it reads zero.
 */
#include <setjmp.h>
#include <signal.h>

#include "prog.h"

#define LEN (16 * MIB)
#define GUARD_INSTALL 102 /* MADV_GUARD_INSTALL, Linux 6.13 */
#define GUARD_REMOVE 103
#define STEP 9 /* pages from one guard to the next */

static sigjmp_buf out;

static void on_segv(int number)
{
	siglongjmp(out, number);
}

static bool traps(const volatile char *addr)
{
	if (sigsetjmp(out, 1))
		return true;
	(void)*addr;
	return false;
}

static void check_guards(char *mem)
{
	size_t page = page_bytes();

	for (size_t i = 0; i < LEN / page; i++) {
		if (i % STEP == 0)
			CHECK(traps(mem + i * page));
		else
			pattern_check_from(mem + i * page, page, 1, i * page);
	}
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_segv };
	size_t page = page_bytes();
	char *mem = map_private(LEN);

	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	for (size_t i = 0; i < LEN / page; i += STEP)
		if (madvise(mem + i * page, page, GUARD_INSTALL))
			prog_skip("MADV_GUARD_INSTALL needs Linux 6.13");
	check_guards(mem);
	for (int round = 0; round < 3; round++) {
		ask_away(mem, LEN);
		check_guards(mem);
	}
	CHECK(madvise(mem, LEN, GUARD_REMOVE) == 0);
	for (size_t i = 0; i < LEN / page; i += STEP)
		CHECK(is_zero(mem + i * page, page));
	return 0;
}
