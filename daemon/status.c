/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Renders status and reports with json-c. Reads atomics only; what it shows is a snapshot. */
#include "status.h"

#include <json-c/json.h>
#include <string.h>

#include "survey.h"
#include "tier.h"

#define STATUS_VERSION 1

static void add_u64(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static void add_str(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, json_object_new_string(value));
}

/* Takes over the object. */
static char *render(struct json_object *object)
{
	char *text = strdup(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));

	json_object_put(object);
	return text;
}

static void add_stats(struct json_object *object, const struct stats *stats)
{
	add_u64(object, "faults", stats_get(&stats->faults));
	add_u64(object, "first_touch", stats_get(&stats->first_touch));
	add_u64(object, "pages_evicted", stats_get(&stats->evicted));
	add_u64(object, "pages_returned", stats_get(&stats->returned));
	add_u64(object, "second_chance", stats_get(&stats->second_chance));
	add_u64(object, "lost_pages", stats_get(&stats->lost));
	add_u64(object, "fault_ns_p50", histogram_quantile(&stats->fault_ns, 0.50));
	add_u64(object, "fault_ns_p99", histogram_quantile(&stats->fault_ns, 0.99));
}

static struct json_object *tier_object(const struct daemon_env *env, const struct tier *tier)
{
	struct json_object *object = json_object_new_object();
	uint64_t capacity = tier->capacity_pages;

	add_str(object, "name", tier->name);
	add_str(object, "backend", tier->ops->name);
	add_u64(object, "capacity_bytes", capacity == UINT64_MAX ? 0 : capacity * env->page_size);
	add_u64(object, "used_bytes", stats_get(&tier->n_used) * env->page_size);
	add_u64(object, "pages_in", stats_get(&tier->n_in));
	add_u64(object, "pages_out", stats_get(&tier->n_out));
	add_u64(object, "errors", stats_get(&tier->n_errors));
	return object;
}

/* Can anything of the process leave? `reason` is that of its agent. */
static void add_managed(struct json_object *object, uint32_t reason, bool held)
{
	json_object_object_add(object, "managed",
			       json_object_new_boolean(reason == UHMM_REASON_NONE));
	add_str(object, "reason", reason ? uhmm_reason_name(reason) : "");
	json_object_object_add(object, "held", json_object_new_boolean(held));
}

static struct json_object *space_object(const struct daemon_env *env, struct space *space)
{
	struct json_object *object = json_object_new_object();
	struct json_object *tiers = json_object_new_object();
	struct json_object *why_not = json_object_new_object();
	uint32_t reason = __atomic_load_n(&space->agent_reason, __ATOMIC_RELAXED);

	json_object_object_add(object, "pid", json_object_new_int(space_pid(space)));
	pthread_mutex_lock(&space->agent_lock);
	add_str(object, "command", space->command);
	pthread_mutex_unlock(&space->agent_lock);
	json_object_object_add(object, "uid", json_object_new_int64(space_uid(space)));
	add_u64(object, "host_bytes", (stats_get(&space->host_pages) + stats_get(&space->shmem_pages)) *
			env->page_size);
	add_u64(tiers, env->tier->name, stats_get(&space->tier_pages) * env->page_size);
	json_object_object_add(object, "tier_bytes", tiers);
	add_stats(object, &space->stats);
	add_u64(object, "registered_bytes", stats_get(&space->registered_bytes));
	add_managed(object, reason, __atomic_load_n(&space->hold, __ATOMIC_RELAXED));
	for (unsigned int i = 1; i < UHMM_REASON_MAX; i++) {
		uint64_t bytes = stats_get(&space->why_not_bytes[i]);

		if (i == UHMM_REASON_NO_ROOM && __atomic_load_n(&space->no_room, __ATOMIC_RELAXED))
			bytes += stats_get(&space->host_pages) * env->page_size;

		if (bytes)
			add_u64(why_not, uhmm_reason_name(i), bytes);
	}
	json_object_object_add(object, "why_not", why_not);
	return object;
}

char *status_json(const struct daemon_env *env, uid_t uid)
{
	struct json_object *object = json_object_new_object();
	struct json_object *spaces = json_object_new_array();
	struct json_object *tiers = json_object_new_array();
	struct list *pos;

	json_object_object_add(object, "version", json_object_new_int(STATUS_VERSION));
	registry_lock();
	list_for_each(pos, &registry_spaces) {
		struct space *space = list_entry(pos, struct space, link);
		enum space_state state = space_get_state(space);

		if ((state == SPACE_SERVING || state == SPACE_DRAINING) &&
		    (uid == 0 || space_uid(space) == uid))
			json_object_array_add(spaces, space_object(env, space));
	}
	registry_unlock();
	json_object_object_add(object, "spaces", spaces);
	json_object_array_add(tiers, tier_object(env, env->tier));
	json_object_object_add(object, "tiers", tiers);
	return render(object);
}

char *status_tiers_json(const struct daemon_env *env)
{
	struct json_object *object = json_object_new_object();
	struct json_object *tiers = json_object_new_array();

	json_object_object_add(object, "version", json_object_new_int(STATUS_VERSION));
	json_object_array_add(tiers, tier_object(env, env->tier));
	json_object_object_add(object, "tiers", tiers);
	return render(object);
}

static struct json_object *row_object(const struct daemon_env *env, const struct survey_row *row)
{
	struct json_object *object = json_object_new_object();
	struct json_object *tiers = json_object_new_object();

	add_u64(object, "start", row->start);
	add_u64(object, "end", row->end);
	add_u64(object, "host_bytes", row->host_pages * env->page_size);
	add_u64(tiers, env->tier->name, row->away_pages * env->page_size);
	json_object_object_add(object, "tier_bytes", tiers);
	add_u64(object, "lost_bytes", row->lost_pages * env->page_size);
	add_str(object, "reason", row->reason ? uhmm_reason_name(row->reason) : "");
	add_str(object, "name", row->name);
	return object;
}

char *status_maps_json(const struct daemon_env *env, const struct survey *survey)
{
	struct json_object *object = json_object_new_object();
	struct json_object *maps = json_object_new_array();

	json_object_object_add(object, "version", json_object_new_int(STATUS_VERSION));
	json_object_object_add(object, "pid", json_object_new_int(survey->pid));
	add_str(object, "command", survey->command);
	add_managed(object, survey->agent_reason, survey->held);
	for (size_t i = 0; i < survey->n_rows; i++)
		json_object_array_add(maps, row_object(env, &survey->rows[i]));
	json_object_object_add(object, "maps", maps);
	return render(object);
}

char *status_report_json(const struct daemon_env *env, const struct group *group)
{
	struct json_object *object = json_object_new_object();
	int64_t tier_pages = __atomic_load_n(&group->tier_pages, __ATOMIC_RELAXED);

	add_stats(object, &group->stats);
	add_u64(object, "host_bytes_now", stats_get(&group->sampled_pages) * env->page_size);
	add_u64(object, "host_bytes_peak", stats_get(&group->peak_pages) * env->page_size);
	add_u64(object, "host_bytes_target", stats_get(&group->target_pages) * env->page_size);
	add_u64(object, "device_bytes_now",
		tier_pages > 0 ? (uint64_t)tier_pages * env->page_size : 0);
	add_u64(object, "device_bytes_peak", stats_get(&group->tier_peak_pages) * env->page_size);
	return render(object);
}
