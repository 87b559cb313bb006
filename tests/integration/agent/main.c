/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suites.h"
#include "util/uapi.h"

#define SKIP 77

int main(void)
{
	int device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	SRunner *runner;
	int failed;

	if (geteuid() != 0 || device < 0) {
		printf("skipped: needs root and %s (%s)\n", UHMM_USERFAULTFD_DEVICE,
		       device < 0 ? strerror(errno) : "not root");
		return SKIP;
	}
	close(device);
	runner = srunner_create(agent_suite());
	srunner_add_suite(runner, enrol_suite());
	srunner_add_suite(runner, rejoin_suite());
	srunner_add_suite(runner, api_suite());
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
