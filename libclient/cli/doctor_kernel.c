/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm doctor`: what the kernel can do. Called by doctor.c on the only thread. Features
 * are tried on throw-away descriptors; version numbers are never compared.
 */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd.h"
#include "util/uapi.h"

#include "cli.h"

static void check_device(struct doctor *doctor)
{
	int fd = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		(void)close(fd);
		doctor_note(doctor, DOCTOR_OK, "device", NULL,
			    UHMM_USERFAULTFD_DEVICE " can be opened");
	} else if (errno == EACCES || errno == EPERM) {
		/* Users get their userfaultfd from the daemon. */
		doctor_note(doctor, doctor->root ? doctor_level_for_daemon(doctor) : DOCTOR_OK,
			    "device", "allow the device for this container or unit (DeviceAllow=)",
			    UHMM_USERFAULTFD_DEVICE " is there, for the daemon");
	} else {
		doctor_note(doctor, doctor_level_for_daemon(doctor), "device",
			    "a kernel from 6.1 on with CONFIG_USERFAULTFD=y; in a container, pass "
			    "the device in",
			    UHMM_USERFAULTFD_DEVICE ": %s", strerror(errno));
	}
}

static void note_missing_features(struct doctor *doctor, uint64_t missing)
{
	char names[256] = "";
	size_t used = 0;

	for (unsigned int i = 0; i < 64 && used < sizeof(names); i++)
		if (missing & (1ull << i))
			used += (size_t)snprintf(names + used, sizeof(names) - used, " %s",
						 uffd_feature_name(1ull << i));
	doctor_note(doctor, doctor_level_for_daemon(doctor), "userfaultfd",
		    "a newer kernel: POISON came with 6.6, MOVE with 6.8", "this kernel lacks%s",
		    names);
}

static void check_features(struct doctor *doctor)
{
	uint64_t features;
	uint64_t missing;
	int error = uffd_probe(&features, &missing);

	if (error == -EPERM || error == -EACCES)
		doctor_note(doctor, doctor_level_for_daemon(doctor), "userfaultfd",
			    "run `uhmm doctor` as root", "features can be looked at by root only");
	else if (error)
		doctor_note(doctor, doctor_level_for_daemon(doctor), "userfaultfd",
			    "a kernel with CONFIG_USERFAULTFD=y", "no userfaultfd: %s",
			    strerror(-error));
	else if (missing)
		note_missing_features(doctor, missing);
	else
		doctor_note(doctor, DOCTOR_OK, "userfaultfd", NULL,
			    "MOVE, POISON, WP_UNPOPULATED and all events");
}

static void check_pagemap_scan(struct doctor *doctor)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct page_region region;
	uintptr_t here = (uintptr_t)&region & ~(page - 1);
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = here,
		.end = here + page,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int n = fd < 0 ? -1 : ioctl(fd, PAGEMAP_SCAN, &arg);
	int error = errno;

	if (fd >= 0)
		(void)close(fd);
	if (n == 1)
		doctor_note(doctor, DOCTOR_OK, "pagemap-scan", NULL,
			    "PAGEMAP_SCAN tells which pages are present");
	else
		doctor_note(doctor, doctor_level_for_daemon(doctor), "pagemap-scan",
			    "a kernel from 6.7 on with CONFIG_PROC_PAGE_MONITOR=y",
			    "PAGEMAP_SCAN: %s", n < 0 ? strerror(error) : "a wrong answer");
}

static void check_io_uring(struct doctor *doctor)
{
	struct io_uring_params params = { 0 };
	uint64_t disabled = 0;
	int fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	int error = errno;

	if (fd >= 0) {
		(void)close(fd);
		doctor_note(doctor, DOCTOR_OK, "io_uring", NULL, "available");
		return;
	}
	(void)doctor_read_number("/proc/sys/kernel/io_uring_disabled", &disabled);
	/* 1 is for users without CAP_SYS_ADMIN; the daemon has it. */
	if (disabled == 1 && !doctor->root)
		doctor_note(doctor, DOCTOR_OK, "io_uring", NULL, "available, for root");
	else
		doctor_note(doctor, doctor_level_for_daemon(doctor), "io_uring",
			    disabled ? "sysctl kernel.io_uring_disabled=0"
				     : "a kernel with CONFIG_IO_URING=y; in a container, allow "
				       "io_uring_setup in its seccomp profile",
			    "not available: %s", strerror(error));
}

static void check_capabilities(struct doctor *doctor)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} needed[] = {
		{ CAP_SYS_PTRACE, "CAP_SYS_PTRACE" },
		{ CAP_SYS_ADMIN, "CAP_SYS_ADMIN" },
		{ CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE" },
		{ CAP_IPC_LOCK, "CAP_IPC_LOCK" },
	};
	char names[128] = "";
	size_t used = 0;
	uint64_t effective = 0;

	if (!doctor->root)
		return;
	(void)doctor_read_status("CapEff", 16, &effective);
	for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++)
		if (!(effective & (1ull << needed[i].bit)))
			used += (size_t)snprintf(names + used, sizeof(names) - used, " %s",
						 needed[i].name);
	if (used)
		doctor_note(doctor, doctor_level_for_daemon(doctor), "capabilities",
			    "give them to this container or unit, or use a daemon outside of it",
			    "root lacks%s", names);
	else
		doctor_note(doctor, DOCTOR_OK, "capabilities", NULL,
			    "root has what a daemon needs");
}

static void check_seccomp(struct doctor *doctor)
{
	uint64_t mode = 0;

	(void)doctor_read_status("Seccomp", 10, &mode);
	if (mode)
		doctor_note(doctor, DOCTOR_FAIL, "seccomp",
			    "run outside of the sandbox, or start the container without a seccomp "
			    "profile",
			    "a filter is in force here, and sandboxed programs are not managed");
	else
		doctor_note(doctor, DOCTOR_OK, "seccomp", NULL, "no filter is in force");
}

void doctor_check_kernel(struct doctor *doctor)
{
	check_device(doctor);
	check_features(doctor);
	check_pagemap_scan(doctor);
	check_io_uring(doctor);
	check_capabilities(doctor);
	check_seccomp(doctor);
}
