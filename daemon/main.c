/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uhmmd: options, configuration, directories and the socket; then control_run. Single-threaded
 * until keeper_start.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "adopt.h"
#include "announce.h"
#include "config.h"
#include "control.h"
#include "decline.h"
#include "dirs.h"
#include "guard.h"
#include "keeper.h"
#include "log.h"
#include "object.h"
#include "service.h"
#include "tier.h"
#include "uffd.h"

/* The service unit knows these. */
enum exit_status {
	EXIT_FAILED = 1,
	EXIT_CONFIG = 2,
	EXIT_MACHINE = 3, /* it will never do on this machine */
};

struct options {
	const char *config_path;
	bool check_only;
	int ready_fd;
	struct control_params control;
};

enum long_option {
	OPT_SOCKET = 256,
	OPT_BACKEND,
	OPT_PRIVATE,
	OPT_STATE_DIR,
	OPT_PAGES_DIR,
	OPT_PLUGIN_DIR,
	OPT_GROUP,
	OPT_READY_FD,
	OPT_LIFELINE_FD,
};

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "backend", required_argument, NULL, OPT_BACKEND },
	{ "check", no_argument, NULL, 'n' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ "private", no_argument, NULL, OPT_PRIVATE },
	{ "state-dir", required_argument, NULL, OPT_STATE_DIR },
	{ "pages-dir", required_argument, NULL, OPT_PAGES_DIR },
	{ "plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR },
	{ "group", required_argument, NULL, OPT_GROUP },
	{ "ready-fd", required_argument, NULL, OPT_READY_FD },
	{ "lifeline-fd", required_argument, NULL, OPT_LIFELINE_FD },
	{ 0 },
};

static void usage(FILE *to)
{
	fputs("usage: uhmmd [-c FILE] [--socket PATH] [--backend SPEC] [-n] [-v]\n"
	      "\n"
	      "  -c, --config FILE   configuration (uhmmd.conf(5))\n"
	      "      --socket PATH   where clients connect\n"
	      "      --backend SPEC  where pages go: NAME or NAME:key=value,...\n"
	      "  -n, --check         check the configuration and exit\n"
	      "  -v, --verbose       say more; twice for debugging\n",
	      to);
}

/* For the one who started a private daemon: "ready", or why not. */
static void tell_ready(int fd, const char *line)
{
	if (fd < 0)
		return;
	(void)!write(fd, line, strlen(line));
	close(fd);
}

static int parse_group(const char *hex, uint8_t *token)
{
	if (strlen(hex) != 2 * UHMM_TOKEN_BYTES)
		return -EINVAL;
	for (size_t i = 0; i < UHMM_TOKEN_BYTES; i++) {
		char byte[3] = { hex[2 * i], hex[2 * i + 1], '\0' }, *end;

		token[i] = (uint8_t)strtoul(byte, &end, 16);
		if (*end)
			return -EINVAL;
	}
	return 0;
}

static int parse_fd(const char *text)
{
	char *end;
	long fd = strtol(text, &end, 10);

	return *end || end == text || fd < 0 || fd > 1 << 20 ? -1 : (int)fd;
}

/* The options that override the file. Called twice: before it is read, for -c and -v, and
 * after. */
static int parse_options(int argc, char **argv, struct options *options, struct config *config)
{
	int opt, verbose = 0, err = 0;

	optind = 1;
	while (err == 0 && (opt = getopt_long(argc, argv, "c:nvh", long_options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			options->config_path = optarg;
			break;
		case 'n':
			options->check_only = true;
			break;
		case 'v':
			verbose++;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		case 'V':
			puts("uhmmd " UHMM_VERSION);
			exit(0);
		case OPT_SOCKET:
			err = config_set(config->socket, sizeof(config->socket), optarg);
			break;
		case OPT_BACKEND:
			err = config_set(config->backend, sizeof(config->backend), optarg);
			break;
		case OPT_PRIVATE:
			options->control.private_daemon = true;
			break;
		case OPT_STATE_DIR:
			err = config_set(config->state_dir, sizeof(config->state_dir), optarg);
			break;
		case OPT_PAGES_DIR:
			err = config_set(config->pages_dir, sizeof(config->pages_dir), optarg);
			break;
		case OPT_PLUGIN_DIR:
			err = config_set(config->plugin_dir, sizeof(config->plugin_dir), optarg);
			break;
		case OPT_GROUP:
			if (parse_group(optarg, config->group) < 0) {
				log_err("--group: not %u hexadecimal digits", 2 * UHMM_TOKEN_BYTES);
				return -EINVAL;
			}
			break;
		case OPT_READY_FD:
			options->ready_fd = parse_fd(optarg);
			break;
		case OPT_LIFELINE_FD:
			options->control.lifeline_fd = parse_fd(optarg);
			break;
		default:
			return -EINVAL; /* getopt has said why */
		}
	}
	if (err < 0)
		return err;
	if (optind < argc) {
		log_err("unexpected argument '%s'", argv[optind]);
		return -EINVAL;
	}
	if (verbose)
		config->log_level = verbose > 1 ? LOG_DEBUG : LOG_INFO;
	return 0;
}

/* What the kernel must have; each missing thing by its name. */
static int check_kernel(void)
{
	uint64_t features, missing;
	int err = uffd_probe(&features, &missing);

	if (err < 0) {
		log_err("no userfaultfd: %s (needs root and CONFIG_USERFAULTFD; see uhmm doctor)",
			strerror(-err));
		return err;
	}
	for (uint64_t bit = 1; missing; bit <<= 1) {
		if (!(missing & bit))
			continue;
		log_err("this kernel's userfaultfd lacks %s (Linux 6.8 or later has it)",
			uffd_feature_name(bit));
		missing &= ~bit;
		err = -ENOTSUP;
	}
	return err;
}

/* A socket's directory is for everybody. */
static void make_socket_dir(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];

	snprintf(dir, sizeof(dir), "%s", path);
	if (mkdir(dirname(dir), 0755) == 0)
		(void)chmod(dir, 0755);
}

static bool answers(const struct sockaddr_un *addr)
{
	int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool yes = probe >= 0 && connect(probe, (const struct sockaddr *)addr, sizeof(*addr)) == 0;

	if (probe >= 0)
		close(probe);
	return yes;
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	unsigned int waited_ms = 0;
	bool taken;
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		log_err("socket %s: the path is too long", path);
		return -ENAMETOOLONG;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	/* One that answers is another daemon's; one that does not is a leftover. */
	do
		taken = answers(&addr);
	while (taken && guard_may_be_ending(&waited_ms));
	if (taken) {
		log_err("socket %s: another daemon serves it", path);
		return -EADDRINUSE;
	}
	make_socket_dir(path);
	(void)unlink(path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(path, 0666) < 0 || listen(fd, SOMAXCONN) < 0) {
		int err = -errno;

		log_err("socket %s: %s", path, strerror(-err));
		if (fd >= 0)
			close(fd);
		return err;
	}
	return fd;
}

/* The socket unit's, which outlives us, or our own. */
static int get_listener(struct config *config, bool *ret_own)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int fd, err = service_take_listener(&fd);

	*ret_own = err == -ENOENT;
	if (*ret_own)
		return listen_at(config->socket);
	if (err < 0)
		return err;
	if (getsockname(fd, (struct sockaddr *)&addr, &len) == 0 &&
	    len > offsetof(struct sockaddr_un, sun_path) && addr.sun_path[0] == '/')
		snprintf(config->socket, sizeof(config->socket), "%.*s",
			 (int)(len - offsetof(struct sockaddr_un, sun_path)), addr.sun_path);
	return fd;
}

static void prepare_process(void)
{
	struct rlimit files = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	umask(077);
	/* What serves faults must not itself wait for memory. */
	if (mlockall(MCL_CURRENT) < 0)
		log_warn("cannot lock the daemon in memory: %s", strerror(errno));
}

static int run(struct options *options, struct config *config)
{
	static struct daemon_env env;
	bool own_socket;
	int err;

	err = guard_start();
	if (err < 0)
		log_warn("no guard: a child that is forked as the daemon dies may be lost: %s",
			 strerror(-err));
	env.config = config;
	env.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	options->control.env = &env;
	/* The socket first: of two daemons with the same one, the later says so. */
	options->control.listen_fd = get_listener(config, &own_socket);
	if (options->control.listen_fd < 0)
		return options->control.listen_fd;
	err = dirs_make(config);
	if (err == 0)
		err = tier_open(config, config->backend, &env.tier);
	if (err < 0)
		return err;
	prepare_process();
	adopt_all(&env);
	err = keeper_start(&env);
	if (err == 0)
		err = object_thread_start(&env);
	if (err < 0)
		return err;
	tell_ready(options->ready_fd, "ready\n");
	options->ready_fd = -1;
	announce_ready();
	log_info("serving at %s, pages go to %s", config->socket, env.tier->name);
	err = control_run(&options->control);
	if (own_socket)
		(void)unlink(config->socket);
	if (!adopt_has_refused())
		dirs_remove(config, options->control.private_daemon);
	return err;
}

/* 0, or the exit status; each reason has been logged. */
static int configure(int argc, char **argv, struct options *options, struct config *config)
{
	config_init(config);
	if (parse_options(argc, argv, options, config) < 0)
		return EXIT_CONFIG;
	if (options->config_path && config_load(options->config_path, config) < 0)
		return EXIT_CONFIG;
	if (parse_options(argc, argv, options, config) < 0)
		return EXIT_CONFIG;
	log_set_level(config->log_level);
	return tier_check_spec(config, config->backend) < 0 ? EXIT_CONFIG : 0;
}

/* Nobody will start us again for these: who waits at the socket would wait for ever. */
static void turn_away(int status)
{
	int fd;

	if (service_take_listener(&fd) == 0)
		decline_all(fd, status == EXIT_CONFIG ?
					"the daemon's configuration is bad: its log says where" :
					"the daemon cannot work on this machine: its log says why");
}

int main(int argc, char **argv)
{
	static struct config config;
	struct options options = { .ready_fd = -1, .control = { .lifeline_fd = -1 } };
	int err, status = configure(argc, argv, &options, &config);

	if (status == 0 && options.check_only)
		return 0;
	if (status == 0 && check_kernel() < 0)
		status = EXIT_MACHINE;
	if (status) {
		turn_away(status);
		tell_ready(options.ready_fd, "see the log\n");
		return status;
	}
	err = run(&options, &config);
	if (err < 0) {
		log_err("cannot go on: %s", strerror(-err));
		tell_ready(options.ready_fd, "see the log\n");
		return EXIT_FAILED;
	}
	return 0;
}
