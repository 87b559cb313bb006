/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child that ends as incomplete has said so before, in a line that nobody else writes: so there
 * are at least as many lines as such ends were seen, and each end needs a line of its own. Its pid
 * is no help: in a namespace of its own it is another.
 */
#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "torture.h"

static const char incomplete[] = "uhmm: this child was forked while the daemon died; its memory is "
				 "incomplete, so it ends here\n";

/* The runner's; -1: worlds speak as they like. */
static int words_fd = -1;

int words_open(void)
{
	words_fd = memfd_create("uhmm-torture-words", MFD_CLOEXEC);
	if (words_fd < 0 || fcntl(words_fd, F_SETFL, O_APPEND) < 0)
		return -errno;
	ctl->has_words = 1;
	return 0;
}

void words_redirect(void)
{
	if (words_fd >= 0)
		(void)dup2(words_fd, STDERR_FILENO);
}

/* From *at on; false: there is no more. A line that is too long comes in pieces. */
static bool next_line(int fd, off_t *at, char *line, size_t room)
{
	ssize_t n = pread(fd, line, room - 1, *at);
	char *end;

	if (n <= 0)
		return false;
	line[n] = '\0';
	end = strchr(line, '\n');
	if (end)
		end[1] = '\0';
	*at += (off_t)strlen(line);
	return true;
}

static uint32_t count_incomplete(int fd, FILE *others)
{
	char line[256];
	uint32_t n = 0;
	off_t at = 0;

	while (next_line(fd, &at, line, sizeof(line))) {
		if (strcmp(line, incomplete) == 0)
			n++;
		else if (others)
			fputs(line, others);
	}
	return n;
}

uint32_t words_pass_on(void)
{
	uint32_t n;

	if (words_fd < 0)
		return 0;
	n = count_incomplete(words_fd, stderr);
	(void)!ftruncate(words_fd, 0);
	ctl->n_incomplete = 0;
	return n;
}

bool words_allow_end(int status)
{
	return ctl->has_words && status == SIGKILL &&
	       __atomic_add_fetch(&ctl->n_incomplete, 1, __ATOMIC_RELAXED) <=
		       count_incomplete(STDERR_FILENO, NULL);
}
