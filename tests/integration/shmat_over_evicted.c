/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shmat(SHM_REMAP) replaces memory without a word to us, also such that had been away. What is
 * mapped there later is new to us, and keeps its bytes when it leaves.
 */
#include <sys/ipc.h>
#include <sys/shm.h>

#include "prog.h"

#define LEN (16 * MIB)

int main(void)
{
	char *mem = map_private(LEN);
	int id = shmget(IPC_PRIVATE, LEN, IPC_CREAT | 0600);

	CHECK(id >= 0);
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 1); /* and home again */
	CHECK(shmat(id, mem, SHM_REMAP) == mem);
	CHECK(shmctl(id, IPC_RMID, NULL) == 0);
	CHECK(is_zero(mem, LEN));
	CHECK(shmdt(mem) == 0);
	CHECK(mmap(mem, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == mem);
	pattern_fill(mem, LEN, 2);
	for (int i = 0; i < 5; i++)
		ask_away(mem, LEN);
	pattern_check(mem, LEN, 2);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 2);
	return 0;
}
