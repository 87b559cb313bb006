/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Protection is the kernel's business: memory that is away stays inaccessible
 * under PROT_NONE, readable under PROT_READ, and has its bytes when it is back.
 */
#include <setjmp.h>
#include <signal.h>

#include "prog.h"

#define LEN (32 * MIB)

static sigjmp_buf out;

static void on_segv(int number)
{
	siglongjmp(out, number);
}

static bool read_traps(const volatile char *addr)
{
	if (sigsetjmp(out, 1))
		return true;
	(void)*addr;
	return false;
}

static bool write_traps(volatile char *addr)
{
	if (sigsetjmp(out, 1))
		return true;
	*addr = 0;
	return false;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_segv };
	char *mem = map_private(LEN);

	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	pattern_fill(mem, LEN, 1);
	for (int round = 0; round < 3; round++) {
		send_away(mem, LEN);
		CHECK(mprotect(mem, LEN, PROT_NONE) == 0);
		for (size_t at = 0; at < LEN; at += MIB)
			CHECK(read_traps(mem + at));
		CHECK(mprotect(mem, LEN / 2, PROT_READ) == 0);
		pattern_check(mem, LEN / 4, 1);
		for (size_t at = 0; at < LEN / 2; at += MIB)
			CHECK(write_traps(mem + at));
		CHECK(mprotect(mem, LEN, PROT_READ | PROT_WRITE) == 0);
		pattern_check(mem, LEN, 1);
	}
	return 0;
}
