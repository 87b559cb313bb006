/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One process sends a segment away all the time, another locks it now and then: what is here
 * when mlock returns stays, also if it was on its way out already. Only an mlock in the very
 * instant of a few pages' leaving may be missed.
 */
#include "prog.h"

#define LEN (16 * MIB)
#define ROUNDS 60
#define MISSED_MAX 3

static int lock_now_and_then(const char *mem)
{
	int missed = 0;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		usleep(5000 + i * 7919 % 60000);
		if (mlock(mem, LEN))
			return 77;
		usleep(40000);
		missed += present_pages(mem, LEN) != LEN / page_bytes();
		CHECK(munlock(mem, LEN) == 0);
	}
	if (missed > MISSED_MAX)
		prog_fail("%d of %d times something was not here", missed, ROUNDS);
	return 0;
}

int main(void)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t pid;

	CHECK(mem != MAP_FAILED);
	pattern_fill(mem, LEN, 1);
	pid = fork();
	if (pid == 0)
		_exit(lock_now_and_then(mem));
	while (waitpid(pid, &status, WNOHANG) == 0) {
		ask_away(mem, LEN);
		usleep(1000);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		prog_skip("not enough memory may be locked here");
	CHECK(status == 0);
	pattern_check(mem, LEN, 1);
	return 0;
}
