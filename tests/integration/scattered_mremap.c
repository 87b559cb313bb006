/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One page of each 2 MiB of a large mapping is asked to leave, more than a small page map has
 * room for; then all of it moves by an mremap that fits no chunk to another. Nothing is lost.
 */
#include "prog.h"

#define CHUNK (2 * MIB)
#define N_CHUNKS 2000u
#define LEN (N_CHUNKS * CHUNK)
#define SEED 41

static void check_all(const char *area)
{
	for (size_t i = 0; i < N_CHUNKS; i++)
		pattern_check(area + i * CHUNK, page_bytes(), SEED + i);
}

static char *reserve(size_t len)
{
	char *addr = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(addr != MAP_FAILED);
	return addr;
}

static char *move(char *from, char *to)
{
	char *at = mremap(from, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	CHECK(at == to);
	return at;
}

int main(void)
{
	char *area = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pid_t pid;

	CHECK(area != MAP_FAILED);
	CHECK(madvise(area, LEN, MADV_NOHUGEPAGE) == 0);
	for (size_t i = 0; i < N_CHUNKS; i++)
		pattern_fill(area + i * CHUNK, page_bytes(), SEED + i);
	for (int round = 0; round < 3; round++) {
		ask_away(area, LEN);
		area = move(area, reserve(LEN + CHUNK) + 5 * page_bytes());
		check_all(area);
	}
	ask_away(area, LEN);
	pid = fork();
	if (pid == 0) {
		check_all(area);
		_exit(0);
	}
	child_join(pid);
	check_all(area);
	return 0;
}
