/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vfork child shares the address space: its touches are faults of that space,
 * and its exec or exit must not be taken for the parent's.
 */
#include "prog.h"

#define LEN (32 * MIB)
#define ROUNDS 40

int main(void)
{
	char *mem = map_private(LEN);

	pattern_fill(mem, LEN, 1);
	for (int round = 0; round < ROUNDS; round++) {
		size_t part = (size_t)round % 8 * (LEN / 8);
		pid_t pid;

		if (round % 8 == 0)
			send_away(mem, LEN);
		pid = vfork();
		if (pid == 0) {
			if (!pattern_holds(mem + part, page_bytes(), 1, part))
				_exit(2);
			if (round % 2)
				_exit(0);
			execl("/bin/true", "true", (char *)NULL);
			_exit(3);
		}
		child_join(pid);
		pattern_check_from(mem + part, LEN / 8, 1, part);
	}
	return 0;
}
