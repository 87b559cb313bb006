/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_AGENT_SUITES_H
#define TEST_AGENT_SUITES_H

#include <check.h>

Suite *agent_suite(void);
Suite *enrol_suite(void);
Suite *rejoin_suite(void);
Suite *api_suite(void);

#endif
