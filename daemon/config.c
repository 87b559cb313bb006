/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The configuration: owns the table of keys and the policy on users. config_load is
 * called once, by main; config_policy_allows by control.
 *
 * Each error is logged here and nowhere else, once: the first one of a file. Never here:
 * a value that is taken half, or a key that is ignored.
 */
#include "config.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "util/spec.h"

#define PARAMS_MAX 32

/* What is said of a file: the line in hand, and the first error. */
struct config_file {
	struct config *config;
	FILE *stream;
	unsigned int line;
	unsigned int error_line; /* 0: none yet */
	char error[512];
	uint64_t seen; /* a bit for each key of the table */
};

struct config_key {
	const char *section, *name;
	/* Returns NULL or what is wrong with the value. */
	const char *(*parse)(void *member, const struct config_key *key, const char *value);
	size_t offset, bytes; /* of the member */
	uint64_t min, max;    /* numbers and sizes */
};

static const char *parse_path(void *member, const struct config_key *key, const char *value)
{
	if (value[0] != '/')
		return "is not an absolute path";
	if (strlen(value) >= key->bytes)
		return "is too long";
	strcpy(member, value);
	return NULL;
}

static const char *parse_backend(void *member, const struct config_key *key, const char *value)
{
	struct uhmm_backend_param params[PARAMS_MAX + 1];
	char buf[CONFIG_PATH_MAX], *name;

	if (strlen(value) >= key->bytes)
		return "is too long";
	if (spec_parse(value, buf, sizeof(buf), &name, params, PARAMS_MAX) < 0)
		return "is not of the form NAME or NAME:key=value,...";
	strcpy(member, value);
	return NULL;
}

static const char *parse_level(void *member, const struct config_key *key, const char *value)
{
	static const struct {
		const char *name;
		int level;
	} levels[] = {
		{ "error", LOG_ERR },	{ "warning", LOG_WARNING }, { "notice", LOG_NOTICE },
		{ "info", LOG_INFO },	{ "debug", LOG_DEBUG },
	};
	size_t i;

	(void)key;
	for (i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (strcmp(value, levels[i].name) == 0) {
			*(int *)member = levels[i].level;
			return NULL;
		}
	}
	return "is not error, warning, notice, info or debug";
}

static const char *parse_decimal(const char *value, uint64_t *ret_number)
{
	uint64_t number;

	/* A size without a unit is a number. */
	if (value[strspn(value, "0123456789")] != '\0' || size_parse(value, &number) < 0)
		return "is not a number";
	*ret_number = number;
	return NULL;
}

static const char *parse_u32(void *member, const struct config_key *key, const char *value)
{
	uint64_t number;
	const char *why = parse_decimal(value, &number);

	if (why != NULL)
		return why;
	if (number < key->min || number > key->max)
		return "is out of range";
	*(uint32_t *)member = (uint32_t)number;
	return NULL;
}

static const char *parse_bytes(void *member, const struct config_key *key, const char *value)
{
	uint64_t bytes;
	int r = size_parse(value, &bytes);

	if (r == -EINVAL)
		return "is not a size (a number and at most one of K, M, G, T)";
	if (r < 0 || bytes < key->min || bytes > key->max)
		return "is out of range";
	*(uint64_t *)member = bytes;
	return NULL;
}

/* "*" or "0,1000, 1001". */
static const char *parse_ids(void *member, const struct config_key *key, const char *value)
{
	struct config_ids ids = { .is_set = true, .everyone = strcmp(value, "*") == 0 };
	const char *at = value;

	(void)key;
	while (!ids.everyone) {
		char word[16] = "";
		int used = 0;
		uint64_t id;

		if (sscanf(at, " %15[0-9] %n", word, &used) != 1 || used == 0 ||
		    (at[used] != ',' && at[used] != '\0') || parse_decimal(word, &id) != NULL ||
		    id >= UINT32_MAX)
			return "is not * or a list of ids, as in 0,1000";
		if (ids.n == CONFIG_IDS_MAX)
			return "has too many ids";
		ids.ids[ids.n++] = (uint32_t)id;
		at += used;
		if (*at == '\0')
			break;
		at++;
	}
	*(struct config_ids *)member = ids;
	return NULL;
}

#define MEMBER(m) offsetof(struct config, m), sizeof(((struct config *)NULL)->m)

static const struct config_key keys[] = {
	{ "daemon", "socket", parse_path, MEMBER(socket), 0, 0 },
	{ "daemon", "state-dir", parse_path, MEMBER(state_dir), 0, 0 },
	{ "daemon", "pages-dir", parse_path, MEMBER(pages_dir), 0, 0 },
	{ "daemon", "plugin-dir", parse_path, MEMBER(plugin_dir), 0, 0 },
	{ "daemon", "log-level", parse_level, MEMBER(log_level), 0, 0 },
	{ "tier", "backend", parse_backend, MEMBER(backend), 0, 0 },
	{ "eviction", "host-ram", parse_bytes, MEMBER(host_ram), 0, UINT64_MAX },
	{ "eviction", "sample-usec", parse_u32, MEMBER(sample_usec), 100, 500000 },
	{ "eviction", "staging-chunks", parse_u32, MEMBER(n_staging_chunks), 1, UHMM_RING_BOXES },
	{ "limits", "spaces", parse_u32, MEMBER(max_spaces), 1, 1u << 20 },
	{ "limits", "spaces-per-uid", parse_u32, MEMBER(max_spaces_per_uid), 1, 1u << 20 },
	{ "limits", "arena", parse_bytes, MEMBER(max_arena_bytes), 1u << 20, 1ull << 40 },
	{ "policy", "allow-uids", parse_ids, MEMBER(allow_uids), 0, 0 },
	{ "policy", "deny-uids", parse_ids, MEMBER(deny_uids), 0, 0 },
	{ "policy", "allow-gids", parse_ids, MEMBER(allow_gids), 0, 0 },
};

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

_Static_assert(N_KEYS <= 64, "one bit a key");

/* Next to the program if it was not installed, else where it would have been. */
static void config_find_plugins(struct config *config)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	char *slash;

	strcpy(config->plugin_dir, UHMM_PLUGIN_DIR);
	if (n < 0)
		return;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (slash == NULL)
		return;
	strcpy(slash, "/../lib/uhmm/backends");
	if (strlen(path) < sizeof(config->plugin_dir) && access(path, X_OK) == 0)
		strcpy(config->plugin_dir, path);
}

void config_init(struct config *config)
{
	*config = (struct config){
		.socket = UHMM_SOCKET_DEFAULT,
		.state_dir = "/run/uhmm/state",
		.pages_dir = "/dev/shm/uhmm",
		.log_level = LOG_NOTICE,
		.backend = "ram",
		.sample_usec = 5000,
		.n_staging_chunks = 2,
		.max_spaces = 4096,
		.max_spaces_per_uid = 1024,
		.max_arena_bytes = 1ull << 30,
	};
	config_find_plugins(config);
}

int config_set(char *member, size_t member_bytes, const char *value)
{
	if (strlen(value) >= member_bytes) {
		log_err("'%.40s...' is too long", value);
		return -ENAMETOOLONG;
	}
	strcpy(member, value);
	return 0;
}

__attribute__((format(printf, 2, 3))) static int file_error(struct config_file *file,
							    const char *fmt, ...)
{
	va_list args;

	if (file->error_line != 0)
		return 0;
	file->error_line = file->line;
	va_start(args, fmt);
	(void)vsnprintf(file->error, sizeof(file->error), fmt, args);
	va_end(args);
	return 0;
}

static bool section_exists(const char *section)
{
	size_t i;

	for (i = 0; i < N_KEYS; i++) {
		if (strcmp(keys[i].section, section) == 0)
			return true;
	}
	return false;
}

static const struct config_key *key_find(const char *section, const char *name)
{
	size_t i;

	for (i = 0; i < N_KEYS; i++) {
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			return &keys[i];
	}
	return NULL;
}

/* inih's callback: 1 is success. It goes on after an error; file_error keeps the first. */
static int file_take(void *data, const char *section, const char *name, const char *value)
{
	struct config_file *file = data;
	const struct config_key *key = key_find(section, name);
	uint64_t bit;
	const char *why;

	if (key == NULL && section[0] == '\0')
		return file_error(file, "%s: this key is in no section", name);
	if (key == NULL)
		return file_error(file, "[%s] %s: %s", section, name,
				  section_exists(section) ? "there is no such key"
							  : "there is no such section");
	bit = 1ull << (key - keys);
	if (file->seen & bit)
		return file_error(file, "[%s] %s: given twice", section, name);
	file->seen |= bit;
	why = key->parse((char *)file->config + key->offset, key, value);
	if (why != NULL)
		return file_error(file, "[%s] %s: '%s' %s", section, name, value, why);
	return 1;
}

/* inih's reader. It would take the rest of a long line for a line of its own. */
static char *file_read_line(char *line, int bytes, void *data)
{
	struct config_file *file = data;
	char *got = fgets(line, bytes, file->stream);
	size_t len;

	if (got == NULL)
		return NULL;
	file->line++;
	len = strlen(line);
	if (len + 1 == (size_t)bytes && line[len - 1] != '\n') {
		(void)file_error(file, "the line is longer than %d bytes", bytes - 2);
		return NULL;
	}
	return line;
}

static int file_parse(struct config_file *file, const char *path)
{
	int syntax_line = ini_parse_stream(file_read_line, file, file_take, file);

	if (ferror(file->stream)) {
		log_err("%s: cannot read: %s", path, strerror(errno));
		return -EINVAL;
	}
	/* A line that inih itself did not understand never came to file_take. */
	if (syntax_line > 0 &&
	    (file->error_line == 0 || (unsigned int)syntax_line < file->error_line)) {
		log_err("%s:%d: neither [section] nor key = value nor a comment", path,
			syntax_line);
		return -EINVAL;
	}
	if (file->error_line > 0) {
		log_err("%s:%u: %s", path, file->error_line, file->error);
		return -EINVAL;
	}
	return syntax_line < 0 ? -EINVAL : 0;
}

int config_load(const char *path, struct config *config)
{
	struct config_file file = { .config = config };
	int r;

	file.stream = fopen(path, "re");
	if (file.stream == NULL) {
		log_err("%s: cannot open: %s", path, strerror(errno));
		return -EINVAL;
	}
	r = file_parse(&file, path);
	(void)fclose(file.stream);
	return r;
}

static bool ids_have(const struct config_ids *ids, uint32_t id)
{
	unsigned int i;

	for (i = 0; i < ids->n; i++) {
		if (ids->ids[i] == id)
			return true;
	}
	return ids->everyone;
}

bool config_policy_allows(const struct config *config, uid_t uid, gid_t gid, char *ret_why,
			  size_t why_bytes)
{
	if (ids_have(&config->deny_uids, uid)) {
		(void)snprintf(ret_why, why_bytes, "uid %u is in deny-uids", uid);
		return false;
	}
	/* Everyone, unless the administrator says who. */
	if (!config->allow_uids.is_set && !config->allow_gids.is_set)
		return true;
	if (ids_have(&config->allow_uids, uid) || ids_have(&config->allow_gids, gid))
		return true;
	(void)snprintf(ret_why, why_bytes, "uid %u is not in allow-uids, and gid %u not in allow-gids",
		       uid, gid);
	return false;
}
