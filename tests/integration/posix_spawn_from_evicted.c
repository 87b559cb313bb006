/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posix_spawn with arguments, environment and file actions whose memory is away:
 * the kernel reads them in execve, in the middle of replacing the address space.
 */
#include <spawn.h>

#include "prog.h"

#define LEN (32 * MIB)
#define ROUNDS 20

static void spawn_once(char *mem, int round)
{
	char **argv = (void *)mem;
	char **envp = (void *)(mem + 4 * MIB);
	char *text = mem + 8 * MIB, *command = mem + 12 * MIB, *value = mem + 16 * MIB;
	char got[64] = "", want[64];
	posix_spawn_file_actions_t actions;
	int fds[2];
	pid_t pid;

	strcpy(text, "sh");
	strcpy(mem + 20 * MIB, "-c");
	strcpy(command, "echo \"$WORD\"");
	snprintf(value, 64, "WORD=round-%d", round);
	argv[0] = text, argv[1] = mem + 20 * MIB, argv[2] = command, argv[3] = NULL;
	envp[0] = value, envp[1] = NULL;
	CHECK(pipe2(fds, O_CLOEXEC) == 0);
	CHECK(posix_spawn_file_actions_init(&actions) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&actions, fds[1], 1) == 0);
	send_away(mem, LEN);
	CHECK(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, envp) == 0);
	close(fds[1]);
	CHECK(read(fds[0], got, sizeof(got) - 1) > 0);
	close(fds[0]);
	child_join(pid);
	posix_spawn_file_actions_destroy(&actions);
	snprintf(want, sizeof(want), "round-%d\n", round);
	CHECK(strcmp(got, want) == 0);
}

int main(void)
{
	char *mem = map_private(LEN);

	pattern_fill(mem + 24 * MIB, 8 * MIB, 7);
	for (size_t at = 0; at < 24 * MIB; at += page_bytes())
		mem[at] = 1;
	for (int round = 0; round < ROUNDS; round++)
		spawn_once(mem, round);
	pattern_check(mem + 24 * MIB, 8 * MIB, 7);
	return 0;
}
