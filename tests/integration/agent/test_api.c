/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The calls of uhmm.h against the mock daemon, in a program that has the preload library as
 * well and in one that has not.
 */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mock.h"
#include "suites.h"

#define GOOD 7

static struct mock mock;
static struct victim victim;
static struct space space;

static void setup(void)
{
	mock_open(&mock);
}

static void teardown(void)
{
	mock_close(&mock);
}

static void take_request(const struct space *admin, enum uhmm_request what,
			 struct uhmm_msg_request *request)
{
	size_t n_fds;
	int fds[8];

	ck_assert_uint_eq(mock_recv(admin->sock, request, sizeof(*request), fds, &n_fds),
			  sizeof(*request));
	ck_assert_uint_eq(request->h.type, UHMM_MSG_REQUEST);
	ck_assert_uint_eq(request->request, what);
	ck_assert_int_eq(request->pid, victim.pid);
	ck_assert_uint_eq(request->addr % (uint64_t)getpagesize(), 0);
}

static void answer(const struct space *admin, int error, uint64_t pages)
{
	struct uhmm_msg_done done = { .error = error, .pages = pages };

	mock_send(admin->sock, UHMM_MSG_DONE, &done, sizeof(done), NULL, 0);
}

static void answer_text(const struct space *admin, uint8_t first, uint8_t second)
{
	struct {
		struct uhmm_msg h;
		uint8_t where[8];
	} text = { .where = { first, second } };

	mock_send(admin->sock, UHMM_MSG_TEXT, &text, sizeof(text.h) + 2, NULL, 0);
}

/* The other half of victim_api.c. */
static void serve_api(void)
{
	uint64_t page = (uint64_t)getpagesize();
	struct uhmm_msg_request request;
	struct space admin, second;

	mock_accept(&mock, &admin, UHMM_ROLE_ADMIN);
	mock_accept(&mock, &second, UHMM_ROLE_ADMIN);
	ck_assert(mock_sees_eof(second.sock));
	take_request(&admin, UHMM_REQ_MIGRATE, &request);
	ck_assert_uint_eq(request.bytes, 4 * page);
	ck_assert_uint_eq(request.flags, 0);
	answer(&admin, 0, 3);
	take_request(&admin, UHMM_REQ_MIGRATE, &request);
	ck_assert_uint_eq(request.flags, UHMM_REQ_FLAG_HOME);
	answer(&admin, -ENOSPC, 1);
	take_request(&admin, UHMM_REQ_QUERY, &request);
	ck_assert_uint_eq(request.bytes, 4 * page);
	answer_text(&admin, 0, 2);
	answer_text(&admin, 1, 3);
	answer(&admin, 0, 0);
	take_request(&admin, UHMM_REQ_QUERY, &request);
	close(admin.sock);
}

static void expect_good_end(void)
{
	int status = victim_wait(&victim);

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == GOOD, "status %#x", status);
	ck_assert(!mock_has_client(&mock, 0));
}

START_TEST(library_enrols_on_the_first_open)
{
	victim_start_program(&mock, &victim, VICTIM_API, NULL, "", NULL);
	mock_enrol(&mock, &space);
	serve_api();
	expect_good_end();
}
END_TEST

START_TEST(library_leaves_enrolment_to_the_preload)
{
	struct space first;

	victim_start_program(&mock, &victim, VICTIM_API, PRELOAD, "", NULL);
	mock_enrol(&mock, &first);
	/* It names a socket that is not there to a process that is enrolled: only the
	 * connection fails. */
	serve_api();
	expect_good_end();
}
END_TEST

Suite *api_suite(void)
{
	Suite *suite = suite_create("api");
	TCase *tcase = tcase_create("api");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, library_enrols_on_the_first_open);
	tcase_add_test(tcase, library_leaves_enrolment_to_the_preload);
	suite_add_tcase(suite, tcase);
	return suite;
}
