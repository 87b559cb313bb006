/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forked children that are killed while their pages are on the way out, under a parent that
 * lives on. Says when it is done, and stays until its standard input ends: killed_while_evicting
 * looks at what is left of them.
 */
#include <signal.h>

#include "prog.h"

#define LEN (32 * MIB)
#define KEPT (8 * MIB)
#define CHILDREN 60

/* Says so when the first pages have left. */
__attribute__((noreturn)) static void evict_for_ever(char *area, int tell_fd)
{
	struct uhmm *handle = handle_open();
	bool told = false;

	for (;;) {
		pattern_fill(area, KEPT, 2);
		if (nudge_away(handle, area, KEPT) > 0 && !told)
			told = write(tell_fd, "", 1) == 1;
	}
}

int main(void)
{
	char *area = map_private(LEN), byte;
	int told[2];

	CHECK(pipe(told) == 0);
	pattern_fill(area, LEN, 1);
	send_away(area, KEPT);
	for (unsigned int i = 0; i < CHILDREN; i++) {
		pid_t pid = fork();

		if (pid == 0)
			evict_for_ever(area + LEN - KEPT, told[1]);
		CHECK(pid > 0);
		hear(told[0]);
		usleep(i * 700);
		CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	}
	CHECK(write(STDOUT_FILENO, "done\n", 5) == 5);
	CHECK(read(STDIN_FILENO, &byte, 1) == 0);
	pattern_check(area, LEN, 1);
	return 0;
}
