/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The configuration: what uhmmd.conf and the command line say. Filled by main before
 * any other thread runs, read-only from then on. daemon/uhmmd.conf is the commented
 * sample; every key is in it.
 */
#ifndef UHMMD_CONFIG_H
#define UHMMD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "uhmm/wire.h"
#include "util/size.h"

#define CONFIG_PATH_MAX 256
#define CONFIG_IDS_MAX 64u

/* User or group ids; `everyone` is "*". */
struct config_ids {
	bool is_set; /* the file has the key */
	bool everyone;
	unsigned int n;
	uint32_t ids[CONFIG_IDS_MAX];
};

struct config {
	/* [daemon] */
	char socket[108]; /* as sun_path */
	char state_dir[CONFIG_PATH_MAX];
	char pages_dir[CONFIG_PATH_MAX];
	char plugin_dir[CONFIG_PATH_MAX];
	int log_level; /* as in <syslog.h> */
	/* [tier] */
	char backend[CONFIG_PATH_MAX];
	/* [eviction] */
	uint64_t host_ram; /* bytes, for groups that name no target; 0: none */
	uint32_t sample_usec;
	uint32_t n_staging_chunks;
	/* [limits] */
	uint32_t max_spaces;
	uint32_t max_spaces_per_uid;
	uint64_t max_arena_bytes; /* of a fork family */
	/* [policy] */
	struct config_ids allow_uids, deny_uids, allow_gids;
	/* Not in the file: the one group of a private daemon. */
	uint8_t group[UHMM_TOKEN_BYTES];
};

/* The defaults. */
void config_init(struct config *config);

/*
 * Read a file on top of what is there. -EINVAL: the first thing that is wrong is on the
 * log, in one line with file, line, section and key; the configuration is then of no use.
 */
int config_load(const char *path, struct config *config);

/* Copy a string into a member. -ENAMETOOLONG: on the log; the member is unchanged. */
int config_set(char *member, size_t member_bytes, const char *value);

/* May this user enrol? If not, `ret_why` (why_bytes long) gets one line. */
bool config_policy_allows(const struct config *config, uid_t uid, gid_t gid, char *ret_why,
			  size_t why_bytes);

#endif
