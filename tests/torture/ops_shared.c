/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared memory. Regions of it that one actor owns are exact, as private ones are; they begin
 * here. The common memory, a world's own and one of all worlds, is stored into by threads and
 * processes at once: there each word only ever grows, and what a load may find is a range.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fail.h"
#include "ops.h"
#include "shadow.h"

/* ---- regions --------------------------------------------------------------------------------- */

static struct region *region_map_shared(struct actor *a, uint32_t n_pages, int fd)
{
	struct region *region = region_take(a, n_pages);
	char *got;

	if (!region)
		return NULL;
	got = mmap(NULL, n_pages * ctl->page_size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	MUST(a, got != MAP_FAILED);
	region->kind = REGION_SHARED;
	region->addr = got;
	for (uint32_t i = 0; i < n_pages; i++) {
		shadow_fresh(a, &region->pages[i]);
		page_store(a, region, i, 0xff);
	}
	return region;
}

static void op_map_shared(struct actor *a, const struct op *op)
{
	(void)region_map_shared(a, 1 + op->r[0] % 64, -1);
}

/* Nothing can be read beyond the end of the object, by whatever way. */
static void check_beyond_end(struct actor *a, const struct region *region, uint32_t page)
{
	struct iovec local = { .iov_base = a->bounce, .iov_len = 8 };
	struct iovec remote = { .iov_base = page_addr(region, page), .iov_len = 8 };

	if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) > 0)
		fail_page(a, region, page, 0, page_addr(region, page),
			  "a read beyond the end of a memfd");
}

static void check_through_fd(struct actor *a, struct region *region, int fd)
{
	for (uint32_t i = 0; i < region->n_pages; i++) {
		MUST(a, pread(fd, a->bounce, ctl->page_size, (off_t)(i * ctl->page_size)) ==
				(ssize_t)ctl->page_size);
		shadow_check(a, region, i, a->bounce, "a read of a memfd");
	}
}

/* A memfd that shrinks and grows while it is mapped; then its descriptor is closed. */
static void op_memfd(struct actor *a, const struct op *op)
{
	uint32_t n_pages = 2 + op->r[0] % 32, kept = 1 + op->r[1] % (n_pages - 1);
	int fd = memfd_create("uhmm-torture-region", MFD_CLOEXEC);
	struct region *region;

	if (fd < 0)
		return;
	MUST(a, ftruncate(fd, (off_t)(n_pages * ctl->page_size)) == 0);
	region = region_map_shared(a, n_pages, fd);
	if (region) {
		if (op->r[2] & 2)
			pages_out(a, region->addr, n_pages * ctl->page_size);
		check_through_fd(a, region, fd);
		MUST(a, ftruncate(fd, (off_t)(kept * ctl->page_size)) == 0);
		check_beyond_end(a, region, kept);
		if (op->r[2] & 4)
			pages_out(a, region->addr, n_pages * ctl->page_size);
		MUST(a, ftruncate(fd, (off_t)(n_pages * ctl->page_size)) == 0);
		for (uint32_t i = kept; i < n_pages; i++)
			shadow_zero(a, &region->pages[i]);
		if (op->r[2] & 1)
			check_through_fd(a, region, fd);
		region_check(a, region, "a load after ftruncate");
	}
	(void)close(fd);
}

/* ---- common memory ------------------------------------------------------------------------------ */

enum { COMMON_WORLD, COMMON_ALL, N_COMMONS };

/* This process's; children inherit them. */
static struct {
	char *addr; /* NULL: not mapped here */
	struct common *common;
	uint32_t key; /* of its words */
} commons[N_COMMONS];

static bool is_wanted(void)
{
	bool wanted = false;

	for (uint32_t i = 0; i < ops_count(); i++)
		wanted |= ctl->enabled[i] && strcmp(op_kind(i)->group, "common") == 0;
	return wanted;
}

void common_open(struct actor *a)
{
	size_t bytes = COMMON_PAGES * ctl->page_size;
	char *addr;

	if (!is_wanted()) {
		MUST(a, a->depth > 0 || close(ctl->memfd) == 0);
		return;
	}
	addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(a, addr != MAP_FAILED);
	commons[COMMON_WORLD].addr = addr;
	commons[COMMON_WORLD].common = &ctl->commons[1 + a->slot];
	commons[COMMON_WORLD].key = 0xf000000u | a->slot << 8;
	if (a->depth > 0)
		return; /* executed anew by a child: the memfd was closed long ago */
	addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ctl->memfd, 0);
	MUST(a, addr != MAP_FAILED);
	MUST(a, close(ctl->memfd) == 0);
	commons[COMMON_ALL].addr = addr;
	commons[COMMON_ALL].common = &ctl->commons[0];
	commons[COMMON_ALL].key = 0xe000000u;
}

/* One word of one of them. */
struct spot {
	struct common_page *page;
	struct common_word *word;
	uint64_t *addr;
	uint32_t key, index;
};

static bool spot_choose(const struct op *op, uint32_t turn, struct spot *ret_spot)
{
	uint32_t which = op->r[0] & 1 ? COMMON_ALL : COMMON_WORLD;
	uint32_t page = (op->r[1] + turn) % COMMON_PAGES;
	uint32_t word = (op->r[2] + turn * 3) % COMMON_WORDS;

	if (!commons[which].addr)
		return false;
	ret_spot->page = &commons[which].common->pages[page];
	ret_spot->word = &ret_spot->page->words[word];
	ret_spot->index = word * (uint32_t)(ctl->page_size / COMMON_WORDS / sizeof(uint64_t));
	ret_spot->addr = (uint64_t *)(void *)(commons[which].addr + page * ctl->page_size) +
			 ret_spot->index;
	ret_spot->key = commons[which].key | page;
	return true;
}

static void spot_fail(struct actor *a, const struct spot *spot, uint64_t got, uint32_t lo,
		      uint32_t hi) __attribute__((noreturn));

static void spot_fail(struct actor *a, const struct spot *spot, uint64_t got, uint32_t lo,
		      uint32_t hi)
{
	fail(a, "common memory at %p holds %016llx (version %u); expected %016llx with a version from "
	     "%u to %u%s; removed up to %u, %u removals; again it is %016llx",
	     (void *)spot->addr, (unsigned long long)got, (unsigned int)(got & 0x7ffffff),
	     (unsigned long long)shadow_word(spot->key, spot->index, 1) - 1, lo, hi,
	     lo ? "" : ", or zero", spot->word->floor, spot->page->drops / 2,
	     (unsigned long long)__atomic_load_n(spot->addr, __ATOMIC_SEQ_CST));
}

/* Load, and see whether it may be so. Returns the version that was there. */
static uint32_t spot_load(struct actor *a, const struct spot *spot)
{
	uint32_t drops = __atomic_load_n(&spot->page->drops, __ATOMIC_SEQ_CST);
	uint32_t lo = __atomic_load_n(&spot->word->lo, __ATOMIC_SEQ_CST);
	uint32_t floor = __atomic_load_n(&spot->word->floor, __ATOMIC_SEQ_CST);
	uint64_t got = __atomic_load_n(spot->addr, __ATOMIC_SEQ_CST);
	uint32_t hi = __atomic_load_n(&spot->word->hi, __ATOMIC_SEQ_CST);
	uint32_t version = (uint32_t)(got & 0x7ffffff);
	bool dropped = drops & 1 ||
		       __atomic_load_n(&spot->page->drops, __ATOMIC_SEQ_CST) != drops;

	if (got == 0 && (lo == 0 || dropped))
		return 0;
	if (got == 0 || got != shadow_word(spot->key, spot->index, version) || version > hi ||
	    (!dropped && (version < lo || version <= floor)))
		spot_fail(a, spot, got, dropped ? 0 : lo, hi);
	return version;
}

static void raise_to(uint32_t *at_least, uint32_t version)
{
	uint32_t seen = __atomic_load_n(at_least, __ATOMIC_SEQ_CST);

	while (seen < version &&
	       !__atomic_compare_exchange_n(at_least, &seen, version, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST))
		;
}

static void spot_store(struct actor *a, const struct spot *spot)
{
	uint32_t drops, version;
	uint64_t seen;

	__atomic_fetch_add(&spot->page->n_writing, 1, __ATOMIC_SEQ_CST);
	drops = __atomic_load_n(&spot->page->drops, __ATOMIC_SEQ_CST);
	version = __atomic_add_fetch(&spot->word->hi, 1, __ATOMIC_SEQ_CST);
	do {
		(void)spot_load(a, spot);
		seen = __atomic_load_n(spot->addr, __ATOMIC_SEQ_CST);
		/* Somebody was faster with a newer one. */
		if ((seen & 0x7ffffff) > version)
			break;
	} while (!__atomic_compare_exchange_n(spot->addr, &seen,
					      shadow_word(spot->key, spot->index, version), false,
					      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	/* What was stored in the time of a removal may be gone again. */
	if (!(drops & 1) && __atomic_load_n(&spot->page->drops, __ATOMIC_SEQ_CST) == drops)
		raise_to(&spot->word->lo, version);
	__atomic_fetch_sub(&spot->page->n_writing, 1, __ATOMIC_SEQ_CST);
}

static void op_common_store(struct actor *a, const struct op *op)
{
	struct spot spot;

	for (uint32_t i = 0; i < 16 && spot_choose(op, i, &spot); i++)
		spot_store(a, &spot);
}

static void op_common_load(struct actor *a, const struct op *op)
{
	struct spot spot;

	for (uint32_t i = 0; i < 32 && spot_choose(op, i, &spot); i++)
		(void)spot_load(a, &spot);
}

/* All versions up to the newest at the start are gone after this. Not while a store is under way: it could land
 * before or after; a store that begins from here on knows of us. */
static void op_common_remove(struct actor *a, const struct op *op)
{
	uint32_t drops, newest[COMMON_WORDS];
	struct common_page *page;
	struct spot spot;

	if (!spot_choose(op, 0, &spot))
		return;
	page = spot.page;
	for (uint32_t i = 0; i < COMMON_WORDS; i++)
		newest[i] = __atomic_load_n(&page->words[i].hi, __ATOMIC_SEQ_CST);
	drops = __atomic_load_n(&page->drops, __ATOMIC_SEQ_CST);
	if (drops & 1 || !__atomic_compare_exchange_n(&page->drops, &drops, drops + 1, false,
						      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	if (__atomic_load_n(&page->n_writing, __ATOMIC_SEQ_CST) != 0) {
		__atomic_store_n(&page->drops, drops, __ATOMIC_SEQ_CST);
		return;
	}
	for (uint32_t i = 0; i < COMMON_WORDS; i++)
		__atomic_store_n(&page->words[i].lo, 0, __ATOMIC_SEQ_CST);
	MUST(a, madvise((char *)((uintptr_t)spot.addr & ~(ctl->page_size - 1)), ctl->page_size,
			MADV_REMOVE) == 0);
	for (uint32_t i = 0; i < COMMON_WORDS; i++)
		raise_to(&page->words[i].floor, newest[i]);
	__atomic_store_n(&page->drops, drops + 2, __ATOMIC_SEQ_CST);
}

/* The mapping goes, the bytes stay; or it is asked to leave. */
static void op_common_shake(struct actor *a, const struct op *op)
{
	uint32_t which = op->r[0] & 1 ? COMMON_ALL : COMMON_WORLD;
	uint32_t first = op->r[1] % COMMON_PAGES, n = 1 + op->r[2] % (COMMON_PAGES - first);
	char *addr = commons[which].addr;

	if (!addr)
		return;
	addr += first * ctl->page_size;
	if (op->r[0] & 2)
		MUST(a, madvise(addr, n * ctl->page_size, MADV_DONTNEED) == 0);
	else if (op->r[0] & 12)
		pages_out(a, addr, n * ctl->page_size);
	else
		pages_home(a, addr, n * ctl->page_size);
}

const struct op_kind ops_shared[] = {
	{ "map-shared", "shared", 8, op_map_shared },
	{ "memfd", "shared", 1, op_memfd },
	{ "common-store", "common", 40, op_common_store },
	{ "common-load", "common", 40, op_common_load },
	{ "common-remove", "common", 6, op_common_remove },
	{ "common-shake", "common", 5, op_common_shake },
	{ NULL, NULL, 0, NULL },
};
