/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of operations and the drawing of the next one. The table is made once in each
 * process, in the same order, before its actors run.
 */
#include "ops.h"

#include <errno.h>
#include <string.h>

#define OPS_MAX 128u

static const struct op_kind *ops[OPS_MAX];
static uint32_t n_ops;

void ops_init(void)
{
	static const struct op_kind *const tables[] = { ops_memory, ops_advise, ops_process,
							  ops_io, ops_thread, ops_shared };

	n_ops = 0;
	for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
		for (const struct op_kind *kind = tables[t]; kind->name && n_ops < OPS_MAX; kind++)
			ops[n_ops++] = kind;
}

uint32_t ops_count(void)
{
	return n_ops;
}

const struct op_kind *op_kind(uint32_t code)
{
	return ops[code];
}

const char *op_name(uint32_t code)
{
	return code < n_ops ? ops[code]->name : "(between operations)";
}

int op_code(const char *name)
{
	for (uint32_t i = 0; i < n_ops; i++)
		if (strcmp(ops[i]->name, name) == 0)
			return (int)i;
	return -ENOENT;
}

/* A name or a group on, or with a '-' before it off. */
static bool enable_one(const char *word, size_t len)
{
	bool on = *word != '-', found = false;

	word += !on;
	len -= !on;
	for (uint32_t i = 0; i < n_ops; i++) {
		bool is_name = strlen(ops[i]->name) == len && !memcmp(ops[i]->name, word, len);
		bool is_group = strlen(ops[i]->group) == len && !memcmp(ops[i]->group, word, len);

		if (is_name || is_group) {
			ctl->enabled[i] = on;
			found = true;
		}
	}
	return found;
}

int ops_enable(const char *list)
{
	memset(ctl->enabled, !list || *list == '-', sizeof(ctl->enabled));
	while (list && *list) {
		size_t len = strcspn(list, ",");

		if (len && !enable_one(list, len))
			return -EINVAL;
		list += len + (list[len] == ',');
	}
	return 0;
}

void op_draw(struct actor *a, struct op *ret_op)
{
	uint32_t total = 0, at;

	for (uint32_t i = 0; i < n_ops; i++)
		total += ctl->enabled[i] ? ops[i]->weight : 0;
	at = total ? (uint32_t)(random_next(&a->rng) % total) : 0;
	*ret_op = (struct op){ .code = 0 };
	for (uint32_t i = 0; i < n_ops; i++) {
		uint32_t weight = ctl->enabled[i] ? ops[i]->weight : 0;

		if (at < weight) {
			ret_op->code = (uint8_t)i;
			break;
		}
		at -= weight;
	}
	for (size_t i = 0; i < sizeof(ret_op->r) / sizeof(*ret_op->r); i++)
		ret_op->r[i] = (uint32_t)(random_next(&a->rng) >> 16);
}
