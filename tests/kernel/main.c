/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs the kernel facts, or one group of them (CK_RUN_CASE=move ...).
 *
 * Exit status: 0 all true; 1 a fact is false; 77 nothing could be tried, the reason is
 * printed. Facts are printed by name either way, so that one run tells what a kernel has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel_facts.h"
#include "uffd.h"

#define EXIT_SKIP 77

/* Shared with the processes that Check makes for the tests. */
static unsigned int *kf_n_skipped;

void kf_skip(const char *fact, const char *reason)
{
	__atomic_add_fetch(kf_n_skipped, 1, __ATOMIC_RELAXED);
	printf("skip: %s: %s\n", fact, reason);
	(void)fflush(stdout);
}

static int kf_cannot_run(void)
{
	uint64_t features;
	uint64_t missing;
	int error;

	if (geteuid() != 0) {
		printf("skip: the kernel facts need root. Remedy: run them as root\n");
		return 1;
	}
	error = uffd_probe(&features, &missing);
	if (error) {
		printf("skip: no userfaultfd here: %s. Remedy: a kernel with "
		       "CONFIG_USERFAULTFD, and no seccomp filter that forbids it\n",
		       strerror(-error));
		return 1;
	}
	for (uint64_t bit = 1; bit; bit <<= 1)
		if (missing & bit)
			printf("note: this kernel has no userfaultfd feature %s\n",
			       uffd_feature_name(bit));
	return 0;
}

static Suite *kf_suite(void)
{
	Suite *suite = suite_create("kernel-facts");

	suite_add_tcase(suite, kf_tcase_move());
	suite_add_tcase(suite, kf_tcase_gate());
	suite_add_tcase(suite, kf_tcase_huge());
	suite_add_tcase(suite, kf_tcase_marker());
	suite_add_tcase(suite, kf_tcase_event());
	suite_add_tcase(suite, kf_tcase_fork());
	suite_add_tcase(suite, kf_tcase_fault());
	suite_add_tcase(suite, kf_tcase_guard());
	suite_add_tcase(suite, kf_tcase_remote());
	suite_add_tcase(suite, kf_tcase_files());
	suite_add_tcase(suite, kf_tcase_shared());
	suite_add_tcase(suite, kf_tcase_adopt());
	return suite;
}

int main(void)
{
	SRunner *runner;
	unsigned int n_failed;
	unsigned int n_run;

	kf_page = (size_t)sysconf(_SC_PAGESIZE);
	if (kf_cannot_run())
		return EXIT_SKIP;
	kf_n_skipped =
		mmap(NULL, kf_page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (kf_n_skipped == MAP_FAILED)
		return EXIT_FAILURE;
	/* Check counts on one buffer a process. */
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	runner = srunner_create(kf_suite());
	srunner_run_all(runner, CK_VERBOSE);
	n_failed = (unsigned int)srunner_ntests_failed(runner);
	n_run = (unsigned int)srunner_ntests_run(runner);
	srunner_free(runner);
	printf("kernel-facts: %u true, %u false, %u skipped\n", n_run - n_failed - *kf_n_skipped,
	       n_failed, *kf_n_skipped);
	if (n_failed)
		return EXIT_FAILURE;
	return *kf_n_skipped == n_run ? EXIT_SKIP : EXIT_SUCCESS;
}
