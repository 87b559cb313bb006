/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A storm of signals while pages come home: a fault that a signal interrupts is
 * raised again, and a handler runs on an alternate stack that is itself away.
 */
#include <signal.h>
#include <sys/time.h>

#include "prog.h"

#define LEN (32 * MIB)
#define STACK_LEN (1 * MIB)
#define ROUNDS 12

static char *mem, *touched;
static volatile sig_atomic_t n_signals, n_wrong;

static void on_alarm(int number)
{
	size_t page = (size_t)(n_signals * 37) % (LEN / page_bytes()) * page_bytes();
	volatile char local[8192];

	(void)number;
	local[0] = local[sizeof(local) - 1] = (char)n_signals;
	if (!pattern_holds(touched + page, 64, 2, page) || local[0] != (char)n_signals)
		n_wrong++;
	n_signals++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART };
	struct itimerval timer = { { 0, 1000 }, { 0, 1000 } }, off = { 0 };
	stack_t stack = { .ss_size = STACK_LEN };

	mem = map_private(LEN);
	touched = map_private(LEN);
	stack.ss_sp = map_private(STACK_LEN);
	pattern_fill(mem, LEN, 1);
	pattern_fill(touched, LEN, 2);
	pattern_fill(stack.ss_sp, STACK_LEN, 3);
	CHECK(sigaltstack(&stack, NULL) == 0);
	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		send_away(mem, LEN);
		send_away(touched, LEN);
		send_away(stack.ss_sp, STACK_LEN);
		CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
		pattern_check(mem, LEN, 1);
		CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
	}
	CHECK(n_signals > ROUNDS);
	CHECK(n_wrong == 0);
	pattern_check(touched, LEN, 2);
	return 0;
}
