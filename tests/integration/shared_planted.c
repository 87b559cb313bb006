/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stranger gets at shared memory whose pages are away (here through /proc/PID/map_files, as
 * root): what it wrote into a hole is never served as if it were right. That page raises
 * SIGBUS, its neighbours are as they were.
 */
#include <setjmp.h>
#include <signal.h>

#include "prog.h"

#define LEN (8 * MIB)
#define PLANTED 5u

static sigjmp_buf after;
static void *volatile where;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	where = info->si_addr;
	siglongjmp(after, 1);
}

static void plant(const char *mem)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)mem,
		 (unsigned long)mem + LEN);
	fd = open(path, O_RDWR);
	if (fd < 0)
		prog_skip("/proc/PID/map_files cannot be opened here");
	CHECK(pwrite(fd, "planted", 7, (off_t)(PLANTED * page_bytes())) == 7);
	close(fd);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	volatile char *planted = mem + PLANTED * page_bytes();

	CHECK(mem != MAP_FAILED && managed());
	pattern_fill(mem, LEN, 1);
	send_away(mem, LEN);
	CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	plant(mem);
	if (sigsetjmp(after, 1) == 0)
		prog_fail("0x%02x was served", (unsigned char)*planted);
	CHECK(where == planted);
	pattern_check(mem, PLANTED * page_bytes(), 1);
	pattern_check_from(mem + (PLANTED + 1) * page_bytes(), LEN - (PLANTED + 1) * page_bytes(), 1,
			   (PLANTED + 1) * page_bytes());
	return 0;
}
