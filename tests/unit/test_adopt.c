/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which orphans are given up. None of them was adopted a moment ago. */
#include <unistd.h>

#include "adopt.h"
#include "fixture.h"

static struct group group;
static struct family family, other_family;
static struct space nameless, parent;
static struct comeback comeback;

void __wrap_space_unref(struct space *space);
void __wrap_space_unref(struct space *space)
{
	registry_lock();
	list_del(&space->link);
	registry_unlock();
}

static void enlist(struct space *space)
{
	registry_lock();
	list_add_tail(&registry_spaces, &space->link);
	registry_unlock();
}

static void setup(void)
{
	nameless = (struct space){ .group = &group, .family = &family, .orphan = true };
	parent = (struct space){ .group = &group, .family = &family, .pid = getpid() };
	enlist(&nameless);
	enlist(&parent);
}

static void must_stay(bool stays)
{
	adopt_sweep();
	ck_assert_int_eq(nameless.orphan, stays);
}

START_TEST(a_child_that_nobody_can_bring_back_is_given_up)
{
	must_stay(false);
}
END_TEST

START_TEST(one_whose_parent_has_not_come_back_stays)
{
	parent.orphan = true;
	must_stay(true);
	parent.family = &other_family;
	must_stay(false);
}
END_TEST

/* However long its worker takes to get there. */
START_TEST(one_whose_parent_is_just_back_stays)
{
	parent.comeback = &comeback;
	parent.state = SPACE_SERVING;
	must_stay(true);
	parent.state = SPACE_DEAD;
	must_stay(false);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("adopt");
	TCase *tcase = tcase_create("orphans");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_child_that_nobody_can_bring_back_is_given_up);
	tcase_add_test(tcase, one_whose_parent_has_not_come_back_stays);
	tcase_add_test(tcase, one_whose_parent_is_just_back_stays);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
