/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Under a daemon that loses pages: a page may raise SIGBUS, and a child may be ended because
 * its memory is incomplete, but nothing that can be read is ever wrong.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>

#include "prog.h"

#define LEN (8 * MIB)
#define PIECE (2 * MIB + 3 * 4096)
#define FRESH (1 * MIB)
#define SEED 51

static sigjmp_buf jump;
static size_t n_lost;

static void on_sigbus(int sig)
{
	(void)sig;
	siglongjmp(jump, 1);
}

/* `skip` SIZE_MAX: zeros. */
static void check_page(const char *page, size_t skip)
{
	if (sigsetjmp(jump, 1)) {
		n_lost++;
		return;
	}
	if (skip == SIZE_MAX ? !is_zero(page, page_bytes())
			     : !pattern_holds(page, page_bytes(), SEED, skip))
		prog_fail("page %p (%zu) is wrong: %s, word 0 is %llx", (const void *)page,
			  skip / page_bytes(), is_zero(page, page_bytes()) ? "zero" : "other bytes",
			  (unsigned long long)*(const uint64_t *)(const void *)page);
}

static void check(const char *addr, size_t len, size_t skip)
{
	for (size_t at = 0; at < len; at += page_bytes())
		check_page(addr + at, skip == SIZE_MAX ? skip : skip + at);
}

static char *reserve(size_t len)
{
	char *addr = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(addr != MAP_FAILED);
	return addr;
}

static char *move(char *from, size_t len)
{
	char *to = reserve(len + 2 * MIB) + 7 * page_bytes();

	CHECK(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	return to;
}

/* LEN of pattern, away, and FRESH behind it that nobody has touched. */
static char *make_area(void)
{
	struct uhmm *handle = managed() ? handle_open() : NULL;
	char *area = map_private(LEN + FRESH);

	CHECK(madvise(area, LEN + FRESH, MADV_NOHUGEPAGE) == 0);
	pattern_fill(area, LEN, SEED);
	/* Once the daemon has lost something nothing leaves any more. */
	if (handle)
		(void)uhmm_migrate(handle, area, LEN, UHMM_TO_TIER);
	uhmm_close(handle);
	return area;
}

static void join_tolerant(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && managed())
		return; /* its memory was incomplete */
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		prog_fail("child %d ended with wait status %#x", (int)pid, (unsigned int)status);
}

static void forked_child_checks(const char *area, size_t skip, size_t len)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		check(area, len, skip);
		_exit(0);
	}
	join_tolerant(pid);
}

static void moves_whole_and_in_part(void)
{
	char *area = move(make_area(), LEN + FRESH);
	char *piece = move(area + MIB, PIECE);

	check(piece, PIECE, MIB);
	check(area, MIB, 0);
	check(area + LEN, FRESH, SIZE_MAX);
	forked_child_checks(area + 4 * MIB, 4 * MIB, LEN - 4 * MIB);
	check(area + 4 * MIB, LEN - 4 * MIB, 4 * MIB);
}

static void unmaps_and_gives_up(void)
{
	char *area = make_area(), *again;

	CHECK(munmap(area + MIB, PIECE) == 0);
	again = mmap(area + MIB, PIECE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(again == area + MIB);
	CHECK(madvise(area + 5 * MIB, MIB, MADV_DONTNEED) == 0);
	check(again, PIECE, SIZE_MAX);
	check(area + 5 * MIB, MIB, SIZE_MAX);
	check(area, MIB, 0);
	forked_child_checks(area + 6 * MIB, 6 * MIB, 2 * MIB);
	check(area + 6 * MIB, 2 * MIB, 6 * MIB);
}

static atomic_bool stop;

static void *move_to_and_fro(void *arg)
{
	char **piece = arg;

	while (!atomic_load(&stop)) {
		*piece = move(*piece, PIECE);
		usleep(200);
	}
	return NULL;
}

/* Forks and mremaps whose events are read together. */
static void forks_while_it_moves(void)
{
	char *area = make_area(), *piece = area + MIB;
	pthread_t mover;

	atomic_store(&stop, false);
	CHECK(pthread_create(&mover, NULL, move_to_and_fro, &piece) == 0);
	for (int i = 0; i < 8; i++)
		forked_child_checks(area + 4 * MIB, 4 * MIB, LEN - 4 * MIB);
	atomic_store(&stop, true);
	CHECK(pthread_join(mover, NULL) == 0);
	check(piece, PIECE, MIB);
	check(area + 4 * MIB, LEN - 4 * MIB, 4 * MIB);
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_sigbus };

	CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	moves_whole_and_in_part();
	unmaps_and_gives_up();
	forks_while_it_moves();
	if (!managed() && n_lost)
		prog_fail("%zu pages raised SIGBUS", n_lost);
	return 0;
}
