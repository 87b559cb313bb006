/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parses /proc/PID/maps and, only when a process has locked memory, smaps (which walks
 * page tables). Never trusts that a mapping is still there: the kernel's answer to the
 * ioctl that uses it decides.
 */
#define _GNU_SOURCE
#include "maps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "threads.h"
#include "util/uapi.h"

#define MAPS_CHUNK 65536u
/* How often a reading is tried that must be whole. */
#define WHOLE_TRIES 4

void maps_deinit(struct maps *maps)
{
	free(maps->v);
	free(maps->buf);
	*maps = MAPS_NULL;
}

static int maps_slurp(struct maps *maps, int fd, size_t *ret_len)
{
	size_t len = 0;

	for (;;) {
		ssize_t n;

		if (len + MAPS_CHUNK > maps->buf_cap) {
			char *buf = realloc(maps->buf, len + 2 * MAPS_CHUNK);

			if (!buf)
				return -ENOMEM;
			maps->buf = buf;
			maps->buf_cap = len + 2 * MAPS_CHUNK;
		}
		n = pread(fd, maps->buf + len, MAPS_CHUNK, (off_t)len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ESRCH ? 0 : -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return 0;
}

static enum uhmm_reason maps_judge(const char *perms, unsigned long long inode, const char *path)
{
	if (perms[3] == 's')
		return strncmp(path, "/SYSV", 5) == 0 ? UHMM_REASON_SYSV : UHMM_REASON_SHARED;
	if (strncmp(path, "/anon_hugepage", 14) == 0)
		return UHMM_REASON_HUGETLB;
	if (inode != 0 || path[0] == '/')
		return UHMM_REASON_FILE;
	if (path[0] == '[' && strcmp(path, "[heap]") != 0 && strcmp(path, "[stack]") != 0 &&
	    strncmp(path, "[anon", 5) != 0)
		return UHMM_REASON_DEVICE;
	if (perms[2] == 'x')
		return UHMM_REASON_EXEC;
	if (perms[0] != 'r' || perms[1] != 'w')
		return perms[0] == '-' && perms[1] == '-' ? UHMM_REASON_GUARD
							  : UHMM_REASON_READONLY;
	return UHMM_REASON_NONE;
}

static int maps_append(struct maps *maps, struct mapping mapping)
{
	if (maps->n == maps->cap) {
		size_t cap = maps->cap ? 2 * maps->cap : 128;
		struct mapping *v = realloc(maps->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		maps->v = v;
		maps->cap = cap;
	}
	maps->v[maps->n++] = mapping;
	return 0;
}

/* "start-end perms offset dev inode    path"; sscanf alone would be half of the time. */
static bool maps_parse_line(const char *line, size_t len, struct mapping *ret)
{
	char text[512], perms[5], path[256] = "", *rest;
	unsigned long long inode, offset;
	unsigned int major_nr, minor_nr;
	int at = 0;

	if (len >= sizeof(text))
		len = sizeof(text) - 1;
	memcpy(text, line, len);
	text[len] = '\0';
	ret->start = strtoull(text, &rest, 16);
	if (rest == text || *rest != '-')
		return false;
	ret->end = strtoull(rest + 1, &rest, 16);
	if (*rest != ' ' || ret->end <= ret->start)
		return false;
	if (sscanf(rest, " %4[rwxsp-] %llx %x:%x %llu%n", perms, &offset, &major_nr, &minor_nr,
		   &inode, &at) < 5 ||
	    at == 0 || strlen(perms) != 4)
		return false;
	(void)sscanf(rest + at, " %255[^\n]", path);
	ret->dev = makedev(major_nr, minor_nr);
	ret->ino = inode;
	ret->offset = offset;
	ret->shared = perms[3] == 's';
	ret->writable = perms[1] == 'w';
	ret->is_zero_device = ret->shared && strcmp(path, "/dev/zero (deleted)") == 0;
	ret->pins_memory = strcmp(path, "anon_inode:[io_uring]") == 0 ||
			   strncmp(path, "/[aio]", 6) == 0 || strncmp(path, "socket:[", 8) == 0;
	ret->reason = maps_judge(perms, inode, path);
	ret->is_stack = strcmp(path, "[stack]") == 0;
	ret->wiped = ret->not_inherited = ret->registered = false;
	return true;
}

int maps_parse(struct maps *maps, const char *text, size_t len)
{
	const char *end = text + len;

	maps->n = 0;
	while (text < end) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		struct mapping mapping;

		if (!eol)
			eol = end;
		if (!maps_parse_line(text, (size_t)(eol - text), &mapping))
			return -EBADMSG;
		if (maps_append(maps, mapping) < 0)
			return -ENOMEM;
		text = eol + 1;
	}
	return 0;
}

int maps_read(struct maps *maps, int maps_fd)
{
	size_t len = 0;
	int err = maps_slurp(maps, maps_fd, &len);

	maps->n = 0;
	return err < 0 ? err : maps_parse(maps, maps->buf, len);
}

/* Without [vsyscall], which lies in the kernel's half and is not counted. */
static uint64_t maps_pages(const struct maps *maps)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < maps->n; i++)
		if (!(maps->v[i].start >> 63))
			bytes += maps->v[i].end - maps->v[i].start;
	return bytes / (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The kernel goes through the mappings with its lock let go of in between. One that moves from
 * before it to behind it is not in the text, but in the count. */
int maps_read_whole(struct maps *maps, int maps_fd, int task_fd)
{
	for (int i = 0; i < WHOLE_TRIES; i++) {
		uint64_t before = threads_mapped_pages(task_fd);
		int err = maps_read(maps, maps_fd);

		if (err < 0 || maps->n == 0 ||
		    (maps_pages(maps) == before && threads_mapped_pages(task_fd) == before))
			return err;
	}
	return -EAGAIN;
}

const struct mapping *maps_at_or_after(const struct maps *maps, uint64_t addr)
{
	size_t lo = 0, hi = maps->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (maps->v[mid].end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < maps->n ? &maps->v[lo] : NULL;
}

const struct mapping *maps_find(const struct maps *maps, uint64_t addr)
{
	const struct mapping *m = maps_at_or_after(maps, addr);

	return m && m->start <= addr ? m : NULL;
}

/* VmFlags are "rd wr mr mw ...": two letters each; proc(5), smaps. */
static bool has_flag(const char *flags, const char *end, const char *name)
{
	for (; flags + 2 <= end; flags += 3)
		if (strncmp(flags, name, 2) == 0)
			return true;
	return false;
}

/* What they say about moving. */
static enum uhmm_reason maps_judge_vmflags(const char *flags, const char *end)
{
	if (has_flag(flags, end, "lo"))
		return UHMM_REASON_LOCKED;
	if (has_flag(flags, end, "io") || has_flag(flags, end, "pf"))
		return UHMM_REASON_DEVICE;
	return has_flag(flags, end, "ht") ? UHMM_REASON_HUGETLB : UHMM_REASON_NONE;
}

static void maps_note_vmflags(struct mapping *m, const char *flags, const char *end)
{
	enum uhmm_reason reason = maps_judge_vmflags(flags, end);

	m->wiped = has_flag(flags, end, "wf");
	m->not_inherited = has_flag(flags, end, "dc");
	m->registered = has_flag(flags, end, "um") || has_flag(flags, end, "uw") ||
			has_flag(flags, end, "ui");
	if (reason != UHMM_REASON_NONE &&
	    (m->reason == UHMM_REASON_NONE || m->reason == UHMM_REASON_SHARED))
		m->reason = reason;
}

int maps_apply_smaps(struct maps *maps, int smaps_fd)
{
	struct mapping *current = NULL;
	size_t len = 0;
	const char *text, *end;
	int err = maps_slurp(maps, smaps_fd, &len);

	if (err < 0)
		return err;
	text = maps->buf;
	end = text + len;
	while (text < end) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		struct mapping mapping;

		if (!eol)
			eol = end;
		if (strncmp(text, "VmFlags: ", 9) == 0) {
			if (current)
				maps_note_vmflags(current, text + 9, eol);
		} else if (maps_parse_line(text, (size_t)(eol - text), &mapping)) {
			current = (struct mapping *)maps_find(maps, mapping.start);
		}
		text = eol + 1;
	}
	return 0;
}

static int maps_query_text(int maps_fd, uint64_t addr, struct mapping *ret)
{
	struct maps maps = MAPS_NULL;
	int err = maps_read(&maps, maps_fd);
	const struct mapping *m = err < 0 ? NULL : maps_find(&maps, addr);

	if (m)
		*ret = *m;
	else if (err == 0)
		err = -ENOENT;
	maps_deinit(&maps);
	return err;
}

/* The mapping that covers addr, or with PROCMAP_QUERY_COVERING_OR_NEXT_VMA one behind it. */
static int query_mapping(int maps_fd, uint64_t addr, uint64_t flags, struct mapping *ret)
{
	struct procmap_query query = {
		.size = sizeof(query),
		.query_flags = flags,
		.query_addr = addr,
	};
	char perms[] = "---p";

	if (ioctl(maps_fd, PROCMAP_QUERY, &query) < 0)
		return -errno;
	if (query.vma_flags & PROCMAP_QUERY_VMA_READABLE)
		perms[0] = 'r';
	if (query.vma_flags & PROCMAP_QUERY_VMA_WRITABLE)
		perms[1] = 'w';
	if (query.vma_flags & PROCMAP_QUERY_VMA_EXECUTABLE)
		perms[2] = 'x';
	if (query.vma_flags & PROCMAP_QUERY_VMA_SHARED)
		perms[3] = 's';
	*ret = (struct mapping){
		.start = query.vma_start,
		.end = query.vma_end,
		.dev = makedev(query.dev_major, query.dev_minor),
		.ino = query.inode,
		.offset = query.vma_offset,
		.shared = perms[3] == 's',
		.writable = perms[1] == 'w',
		.reason = maps_judge(perms, query.inode, ""),
	};
	return 0;
}

int maps_query(int maps_fd, uint64_t addr, struct mapping *ret)
{
	int err = query_mapping(maps_fd, addr, 0, ret);

	return err == -ENOTTY ? maps_query_text(maps_fd, addr, ret) : err;
}

static int maps_read_text_in(struct maps *maps, int maps_fd, uint64_t from, uint64_t to)
{
	int err = maps_read(maps, maps_fd);
	size_t n = 0;

	for (size_t i = 0; i < maps->n; i++)
		if (maps->v[i].start < to && from < maps->v[i].end)
			maps->v[n++] = maps->v[i];
	maps->n = n;
	return err;
}

int maps_read_in(struct maps *maps, int maps_fd, uint64_t from, uint64_t to)
{
	struct mapping m;
	int err = 0;

	maps->n = 0;
	while (err == 0 && from < to) {
		err = query_mapping(maps_fd, from, PROCMAP_QUERY_COVERING_OR_NEXT_VMA, &m);
		if (err == 0 && m.start >= to)
			break;
		if (err == 0)
			err = maps_append(maps, m);
		if (err == 0)
			from = m.end;
	}
	if (err == -ENOTTY)
		return maps_read_text_in(maps, maps_fd, from, to);
	return err == -ENOENT ? 0 : err;
}
