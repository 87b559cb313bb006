/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A FORK that was read: what a successor finds of it. */
#include <string.h>

#include "agent.h"
#include "fixture.h"
#include "fork.h"

#define CHILD_UFFD 7

static struct uffd_msg msg;
static unsigned int n_kept;
static bool can_keep;

bool __wrap_agent_keep_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES], int uffd);
bool __wrap_agent_keep_child(struct space *space, const uint8_t token[UHMM_TOKEN_BYTES], int uffd)
{
	(void)space;
	/* With what the agent has now nobody could find it otherwise. */
	ck_assert_mem_eq(event_log_token(&msg), token, UHMM_TOKEN_BYTES);
	ck_assert_int_eq(uffd, CHILD_UFFD);
	n_kept++;
	return can_keep;
}

START_TEST(the_log_names_a_child_before_its_agent_has_it)
{
	static struct space space = { .beacon_out = true };

	msg.event = UFFD_EVENT_FORK;
	msg.arg.fork.ufd = CHILD_UFFD;
	fork_note(&space, &msg);
	ck_assert_uint_eq(n_kept, 1);
	ck_assert_uint_eq(msg.arg.fork.ufd, CHILD_UFFD);
	ck_assert(msg.LOG_FLAGS & LOG_UNKEPT);
	can_keep = true;
	msg.LOG_FLAGS = 0;
	fork_note(&space, &msg);
	ck_assert_uint_eq(n_kept, 2);
	ck_assert(!(msg.LOG_FLAGS & LOG_UNKEPT));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fork");
	TCase *tcase = tcase_create("note");

	tcase_add_test(tcase, the_log_names_a_child_before_its_agent_has_it);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
