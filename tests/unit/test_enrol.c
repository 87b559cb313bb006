/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may take a space that is there: a forked child, and an agent that comes back. */
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "conn.h"
#include "fixture.h"
#include "uffd.h"

#define PID 4711
#define UID 1000

static struct config config;
static struct daemon_env env;
static struct control control;
static struct space space;
static struct space_unit unit;
static struct conn conn;
static unsigned int n_refused;

struct space *__wrap_space_find_token(const uint8_t token[UHMM_TOKEN_BYTES]);
struct space *__wrap_space_find_token(const uint8_t token[UHMM_TOKEN_BYTES])
{
	(void)token;
	return &space;
}

void __wrap_conn_refuse(struct control *of, struct conn *whom, enum uhmm_reason reason,
			const char *text);
void __wrap_conn_refuse(struct control *of, struct conn *whom, enum uhmm_reason reason,
			const char *text)
{
	(void)of;
	(void)whom;
	(void)reason;
	(void)text;
	n_refused++;
}

int __wrap_conn_send(struct conn *to, const void *msg, size_t len, const int *fds, size_t n_fds);
int __wrap_conn_send(struct conn *to, const void *msg, size_t len, const int *fds, size_t n_fds)
{
	(void)to;
	(void)msg;
	(void)len;
	(void)fds;
	(void)n_fds;
	return 0;
}

bool __wrap_uffd_is_used(int fd);
bool __wrap_uffd_is_used(int fd)
{
	(void)fd;
	return true;
}

static void setup(void)
{
	n_refused = 0;
	env = (struct daemon_env){ .config = &config, .page_size = 4096 };
	control = (struct control){ .params = { .env = &env, .private_daemon = true } };
	list_init(&control.conns);
	space = (struct space){ .page_size = 4096, .state = SPACE_SERVING, .unit = &unit,
				.sock = -1, .agent_reason = UHMM_REASON_NO_AGENT };
	conn = (struct conn){ .pid = PID, .uid = UID, .ring_fd = -1, .uffd = -1 };
	list_add_tail(&control.conns, &conn.link);
}

/* Was it let in? */
static bool may(enum uhmm_role role)
{
	const struct uhmm_msg_hello hello = { .role = role };
	int uffd = 0;

	conn.role = role;
	if (role == UHMM_ROLE_AGENT)
		enrol_return(&control, &conn, &hello, &uffd);
	else
		enrol_hello(&control, &conn, &hello);
	ck_assert_int_eq(n_refused == 0, conn.state != CONN_NEW);
	return n_refused == 0;
}

static void make_orphan(void)
{
	space.state = SPACE_ENROLLING;
	space.orphan = true;
	space.pid = PID;
	space.uid = UID;
	space.uffd = -1;
}

START_TEST(a_child_takes_its_own_space)
{
	ck_assert(may(UHMM_ROLE_CHILD));
}
END_TEST

/* Its parent's agent knows the token before the space is complete. */
START_TEST(a_child_that_is_not_served_yet_is_not_taken)
{
	space.state = SPACE_ENROLLING;
	ck_assert(!may(UHMM_ROLE_CHILD));
}
END_TEST

START_TEST(nor_by_an_agent)
{
	space.state = SPACE_ENROLLING;
	ck_assert(!may(UHMM_ROLE_AGENT));
}
END_TEST

START_TEST(an_orphan_is_not_taken_without_its_userfaultfd)
{
	make_orphan();
	ck_assert(!may(UHMM_ROLE_CHILD));
}
END_TEST

START_TEST(an_orphan_is_its_agents)
{
	make_orphan();
	ck_assert(may(UHMM_ROLE_AGENT));
}
END_TEST

/* The process has ended, and its number is another user's. */
START_TEST(an_orphan_is_no_other_users)
{
	make_orphan();
	space.uid++;
	ck_assert(!may(UHMM_ROLE_AGENT));
}
END_TEST

/* Its pages must come home. */
START_TEST(an_orphan_may_return_while_the_daemon_stops)
{
	make_orphan();
	control.stopping = true;
	ck_assert(may(UHMM_ROLE_AGENT));
}
END_TEST

START_TEST(another_may_not)
{
	control.stopping = true;
	ck_assert(!may(UHMM_ROLE_AGENT));
}
END_TEST

START_TEST(one_connection_at_a_time_returns)
{
	struct comeback comeback = { .n_children = 0 };
	struct conn other = { .space = &space, .comeback = &comeback };

	make_orphan();
	list_add_tail(&control.conns, &other.link);
	ck_assert(!may(UHMM_ROLE_AGENT));
}
END_TEST

START_TEST(one_that_was_given_up_meanwhile_is_gone)
{
	const struct uhmm_msg_enrol msg = { .agent_tid = 1 };
	int uffd = -1;

	space.state = SPACE_ENROLLING;
	conn.role = UHMM_ROLE_AGENT;
	conn.state = CONN_WELCOMED;
	conn.space = &space;
	enrol_program(&control, &conn, &msg, &uffd);
	ck_assert_uint_eq(n_refused, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("enrol");
	TCase *tcase = tcase_create("take");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_child_takes_its_own_space);
	tcase_add_test(tcase, a_child_that_is_not_served_yet_is_not_taken);
	tcase_add_test(tcase, nor_by_an_agent);
	tcase_add_test(tcase, an_orphan_is_not_taken_without_its_userfaultfd);
	tcase_add_test(tcase, an_orphan_is_its_agents);
	tcase_add_test(tcase, an_orphan_is_no_other_users);
	tcase_add_test(tcase, an_orphan_may_return_while_the_daemon_stops);
	tcase_add_test(tcase, another_may_not);
	tcase_add_test(tcase, one_connection_at_a_time_returns);
	tcase_add_test(tcase, one_that_was_given_up_meanwhile_is_gone);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
