/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages in a tmpfs file that the program fills and only the daemon reads; and PAGEMAP_SCAN,
 * the kernel's word on what is where.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel_facts.h"

#define NOBODY 65534

/* The root-only file of one space's slots: opened for writing, and its mapping to read. */
struct slot_file {
	int fd;
	const volatile unsigned char *map;
};

/* -ENOTSUP: no tmpfs here. */
static int slot_file_make(struct slot_file *ret_file)
{
	char path[] = "/dev/shm/uhmm-facts-XXXXXX";
	struct statfs statfs;
	int both = mkstemp(path);
	int reader;

	if (both < 0)
		return -ENOTSUP;
	reader = open(path, O_RDONLY | O_CLOEXEC);
	ret_file->fd = open(path, O_WRONLY | O_CLOEXEC);
	(void)unlink(path);
	ck_assert_int_eq(fstatfs(both, &statfs), 0);
	if (statfs.f_type != TMPFS_MAGIC)
		return -ENOTSUP;
	ck_assert_int_eq(ftruncate(both, (off_t)(4 * kf_page)), 0);
	ret_file->map = mmap(NULL, 4 * kf_page, PROT_READ, MAP_SHARED, reader, 0);
	ck_assert_ptr_ne((const void *)ret_file->map, MAP_FAILED);
	(void)close(both);
	(void)close(reader);
	return 0;
}

/* 0, or which of its two doings went another way than it should. */
static int writer_run(void *arg)
{
	struct slot_file *file = arg;
	char path[64];

	if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
		return 1;
	if (pwrite(file->fd, "here", 4, (off_t)kf_page) != 4)
		return 2;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	if (open(path, O_RDONLY) >= 0)
		return 3;
	if (errno != EACCES)
		return 4;
	if (open(path, O_RDWR) >= 0)
		return 5;
	if (mmap(NULL, kf_page, PROT_READ, MAP_SHARED, file->fd, 0) != MAP_FAILED)
		return 6;
	return 0;
}

START_TEST(tmpfs_page_that_another_wrote_is_seen_through_a_readonly_mapping)
{
	struct slot_file file;
	char bytes[4];

	if (slot_file_make(&file)) {
		kf_skip("tmpfs_page_that_another_wrote_is_seen_through_a_readonly_mapping",
			"/dev/shm is no tmpfs");
		return;
	}
	ck_assert_uint_eq(file.map[kf_page], 0);
	ck_assert_int_eq(pwrite(file.fd, "home", 4, (off_t)kf_page), 4);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)file.map[kf_page + i];
	ck_assert_mem_eq(bytes, "home", 4);
}
END_TEST

START_TEST(write_only_fd_cannot_be_reopened_for_reading)
{
	struct slot_file file;

	if (slot_file_make(&file)) {
		kf_skip("write_only_fd_cannot_be_reopened_for_reading", "/dev/shm is no tmpfs");
		return;
	}
	ck_assert_int_eq(kf_wait_ok(kf_child(writer_run, &file)), 0);
	ck_assert_uint_eq(file.map[kf_page], 'h');
}
END_TEST

START_TEST(copy_out_of_a_tmpfs_mapping_works)
{
	int uffd = kf_open_ok(0);
	unsigned char *map = kf_map_ok(1);
	struct slot_file file;
	struct uffdio_copy copy = { .dst = (uintptr_t)map, .len = kf_page };

	if (slot_file_make(&file)) {
		kf_skip("copy_out_of_a_tmpfs_mapping_works", "/dev/shm is no tmpfs");
		return;
	}
	ck_assert_int_eq(pwrite(file.fd, "home", 4, (off_t)kf_page), 4);
	copy.src = (uintptr_t)file.map + kf_page;
	kf_register_ok(uffd, map, kf_page, UFFDIO_REGISTER_MODE_MISSING);
	ck_assert_int_eq(ioctl(uffd, UFFDIO_COPY, &copy), 0);
	ck_assert_mem_eq(map, "home", 4);
}
END_TEST

START_TEST(pagemap_scan_sees_present_pages)
{
	unsigned char *map = kf_map_ok(8);
	struct page_region regions[4];
	struct pm_scan_arg arg = { .size = sizeof(arg),
				   .start = (uintptr_t)map,
				   .end = (uintptr_t)map + 8 * kf_page,
				   .vec = (uintptr_t)regions,
				   .vec_len = 4,
				   .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int n_regions;

	map[2 * kf_page] = map[3 * kf_page] = map[6 * kf_page] = 7;
	ck_assert_int_ge(pagemap, 0);
	n_regions = ioctl(pagemap, PAGEMAP_SCAN, &arg);
	ck_assert_msg(n_regions >= 0, "this kernel has no PAGEMAP_SCAN: %s", strerror(errno));
	ck_assert_int_eq(n_regions, 2);
	ck_assert_uint_eq(regions[0].start, (uintptr_t)map + 2 * kf_page);
	ck_assert_uint_eq(regions[0].end, (uintptr_t)map + 4 * kf_page);
	ck_assert_uint_eq(regions[1].start, (uintptr_t)map + 6 * kf_page);
	ck_assert_uint_eq(regions[1].end, (uintptr_t)map + 7 * kf_page);
	ck_assert_uint_eq(arg.walk_end, arg.end);
}
END_TEST

TCase *kf_tcase_files(void)
{
	TCase *tcase = tcase_create("files");

	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, tmpfs_page_that_another_wrote_is_seen_through_a_readonly_mapping);
	tcase_add_test(tcase, write_only_fd_cannot_be_reopened_for_reading);
	tcase_add_test(tcase, copy_out_of_a_tmpfs_mapping_works);
	tcase_add_test(tcase, pagemap_scan_sees_present_pages);
	return tcase;
}
