/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's JSON answers, for the subcommands that print them. */
#ifndef UHMM_CLI_ANSWER_H
#define UHMM_CLI_ANSWER_H

#include <stdint.h>

#include <uhmm/wire.h>

struct cli_args;
struct json_object;

/*
 * Ask as admin, about `pid` where the request is about one, and parse. NULL: *ret_status is the exit status: the answer was printed
 * raw (--json), or one line says what went wrong. The caller puts the object.
 */
struct json_object *answer_ask(const struct cli_args *args, enum uhmm_request request, int32_t pid,
			       int *ret_status);
/* The array of that name, or the answer itself if it is one; NULL: none. Borrowed. */
struct json_object *answer_array(struct json_object *json, const char *key);
/* NULL is an empty table. */
void answer_print_tiers(struct json_object *tiers);

#endif
