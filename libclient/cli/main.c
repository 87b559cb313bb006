/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm`: the table of subcommands, and the two that only need the table. One thread.
 * A subcommand lives in the file of its name; adding one is a file and a line here.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define SOCKET_HELP                                                                                \
	"  --socket PATH  where the daemon listens ($UHMM_SOCKET; /run/uhmm/uhmm.sock)\n"
#define UNIT_HELP                                                                                  \
	"  --runtime        only until the next boot\n"                                            \
	"  --root DIR       for the system below this directory, which does not run\n"
#define JSON_HELP "  --json         print JSON instead of text\n"

static const struct cli_command commands[] = {
	{ "run", "[OPTIONS] [--] CMD ARGS...", "Run a command whose memory is managed",
	  "  --host-ram SIZE  what the command's processes may keep in host RAM (64M, 2G ...)\n"
	  "  --backend SPEC   where pages go, with a private daemon: NAME[:key=value,...]\n"
	  "  --socket PATH    the daemon's socket ($UHMM_SOCKET; /run/uhmm/uhmm.sock)\n"
	  "  --private        start a daemon for this command, whoever listens at the socket\n"
	  "  --report FILE    write a JSON report when the command has ended\n"
	  "  --progress       show on stderr what happens meanwhile\n"
	  "  --verbose        the private daemon says more\n"
	  "\n"
	  "With no daemon at the socket a private one is started; that needs root.\n"
	  "Exit status: the command's, 128+N if signal N ended it; 125 if uhmm failed or was\n"
	  "used wrongly, 126 if CMD cannot be executed, 127 if it is not found.\n"
	  "UHMM_OPTIONAL=1 in the environment: if uhmm fails, CMD runs unmanaged.\n",
	  run_main },
	{ "status", "[PID --maps] [--json] [--socket PATH]", "Show the managed processes",
	  "  --maps         of one process, each range of its memory: what lies where, and why\n"
	  JSON_HELP SOCKET_HELP,
	  status_main },
	{ "evict", "PID [all|SIZE] [--json] [--socket PATH]",
	  "Move pages of a process out to a tier", JSON_HELP SOCKET_HELP, evict_main },
	{ "restore", "PID [--hold|--release] [--json] [--socket PATH]",
	  "Bring all pages of a process home",
	  "  --hold         and keep them there, until `uhmm evict` or --release\n"
	  "  --release      and let them leave again\n" JSON_HELP SOCKET_HELP,
	  restore_main },
	{ "core", "PID FILE [--socket PATH]", "Save a core dump, complete; for core_pattern",
	  "The dump comes on standard input. What of the process was away when the kernel wrote it\n"
	  "is brought home and put in its place. Needs kernel.core_pipe_limit above 0.\n" SOCKET_HELP,
	  core_main },
	{ "tiers", "[--json] [--socket PATH]", "Show the tiers and what is on them",
	  JSON_HELP SOCKET_HELP, tiers_main },
	{ "enable", "UNIT [--host-ram SIZE] [OPTIONS]", "Have a service's programs managed",
	  "  --host-ram SIZE  what its programs may keep in host RAM (64M, 2G ...)\n"
	  "  --socket PATH    the daemon's socket, if it is not the system's\n" UNIT_HELP
	  "\n"
	  "Writes a drop-in that counts from the unit's next start on, and makes systemd read it.\n",
	  enable_main },
	{ "disable", "UNIT [OPTIONS]", "Undo what enable has done", UNIT_HELP, disable_main },
	{ "doctor", "[--json] [--socket PATH]", "Check whether this machine can do the job",
	  JSON_HELP SOCKET_HELP "Exit status: 0 if `uhmm run` can work here, else 1.\n",
	  doctor_main },
	{ "version", "", "Print the version", NULL, version_main },
	{ "help", "[CMD]", "Explain a subcommand", NULL, help_main },
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static const struct cli_command *command_find(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

int version_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct cli_args args;
	int status;

	if (!cli_parse(cmd, 0, argc, argv, &args, &status))
		return status;
	if (args.n_operands)
		return cli_usage_error(cmd, "takes no operand");
	puts("uhmm " UHMM_VERSION);
	return cli_finish(CLI_EXIT_OK);
}

int help_main(const struct cli_command *cmd, int argc, char **argv)
{
	const struct cli_command *about;

	if (argc > 2)
		return cli_usage_error(cmd, "takes one subcommand");
	if (argc == 2) {
		about = command_find(argv[1]);
		if (!about)
			return cli_usage_error(cmd, "there is no subcommand '%s'", argv[1]);
		cli_print_help(about);
		return cli_finish(CLI_EXIT_OK);
	}
	puts("Usage: uhmm CMD [OPTIONS] ...\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].summary);
	puts("\n`uhmm help CMD` explains one; the manual is uhmm(1).");
	return cli_finish(CLI_EXIT_OK);
}

/*
 * With a standard descriptor closed, the next file that we open would become it and
 * messages would go there. Close-on-exec, so that a command still finds it closed.
 */
static int standard_fds_occupy(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return -1;
	} while (fd <= STDERR_FILENO);
	return close(fd);
}

int main(int argc, char **argv)
{
	const struct cli_command *cmd;
	const char *name = argc > 1 ? argv[1] : NULL;

	if (standard_fds_occupy() < 0)
		return CLI_EXIT_RUN_FAIL;
	if (!name) {
		cli_error("no subcommand given (see `uhmm help`)");
		return CLI_EXIT_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	else if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		name = "version";
	cmd = command_find(name);
	if (!cmd) {
		cli_error("there is no subcommand '%s' (see `uhmm help`)", name);
		return CLI_EXIT_USAGE;
	}
	return cmd->main(cmd, argc - 1, argv + 1);
}
