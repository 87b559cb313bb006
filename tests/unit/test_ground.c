/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registering private memory, whatever the program does in between. The mappings are this
 * process's own. Registered are those that a core dump leaves out: like registered and not,
 * dumped and not are never one mapping. Before and after the n-th REGISTER, and before the n-th
 * question whether something is registered, the program may do something.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "ground.h"
#include "home.h"
#include "object.h"
#include "uffd.h"

/* Pages of the hole in which all plays; beside it nothing can be mapped. */
#define PAGES 8192u
#define HOOKS 4u
#define LOW_ADDR 0x10000000ull

static struct space space;
static uint64_t hole; /* its first address */
static enum uffd_result settled;
static void (*before_register[HOOKS])(void), (*after_register[HOOKS])(void);
static void (*before_question[HOOKS])(void);
static uint32_t n_registers, n_questions;
static struct range asked[HOOKS]; /* to be registered, one after the other */
static struct range foreign;  /* another's: cannot be registered */

static uint64_t page_at(uint32_t i)
{
	return hole + i * space.page_size;
}

static uint64_t bytes_of(uint32_t n)
{
	return n * space.page_size;
}

static void map(uint32_t first, uint32_t n)
{
	void *addr = (void *)page_at(first);

	ck_assert_ptr_eq(mmap(addr, bytes_of(n), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 addr);
}

/* Alike, and touching another, but not one with it. */
static void map_apart(uint32_t first, uint32_t n)
{
	map(first, n);
	ck_assert_int_eq(madvise((void *)page_at(first), bytes_of(n), MADV_SEQUENTIAL), 0);
}

static void unmap(uint32_t first, uint32_t n)
{
	ck_assert_int_eq(munmap((void *)page_at(first), bytes_of(n)), 0);
}

static int map_memfd(uint32_t first, uint32_t n, int flags)
{
	void *addr = (void *)page_at(first);
	int fd = memfd_create("ground", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes_of(n)), 0);
	ck_assert_ptr_eq(mmap(addr, bytes_of(n), PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0),
			 addr);
	return fd;
}

static void mark_registered(uint64_t addr, uint64_t bytes)
{
	/* Like REGISTER this passes over holes, but says so afterwards. */
	if (madvise((void *)addr, bytes, MADV_DONTDUMP) < 0)
		ck_assert_int_eq(errno, ENOMEM);
}

static bool is_marked_registered(uint64_t addr)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long from, to;
	bool at = false, is = false;
	char line[512];

	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			at = from <= addr && addr < to;
		else if (at && strncmp(line, "VmFlags:", 8) == 0)
			is = strstr(line, " dd") != NULL;
	}
	(void)fclose(file);
	return is;
}

enum uffd_result __wrap_uffd_settled(int uffd);
enum uffd_result __wrap_uffd_settled(int uffd)
{
	(void)uffd;
	return settled;
}

static bool is_hole(const struct range *range)
{
	for (uint64_t addr = range->start; addr < range->end; addr += space.page_size)
		if (msync((void *)addr, space.page_size, MS_ASYNC) == 0)
			return false;
	return true;
}

static enum uffd_result do_mark(const struct range *range)
{
	if (ranges_meet(*range, foreign)) {
		errno = EBUSY;
		return UFFD_ERROR;
	}
	if (is_hole(range))
		return UFFD_NO_VMA;
	mark_registered(range->start, range->end - range->start);
	return UFFD_OK;
}

enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode);
enum uffd_result __wrap_uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode)
{
	struct range range = { addr, addr + bytes, 0 };
	enum uffd_result result;

	(void)uffd;
	ck_assert_uint_eq(mode, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
	if (n_registers < HOOKS) {
		asked[n_registers] = range;
		if (before_register[n_registers])
			before_register[n_registers]();
	}
	result = do_mark(&range);
	if (n_registers < HOOKS && after_register[n_registers])
		after_register[n_registers]();
	n_registers++;
	return result;
}

enum uffd_result __wrap_uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size);
enum uffd_result __wrap_uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size)
{
	(void)uffd;
	ck_assert_uint_eq(page_size, space.page_size);
	if (n_questions < HOOKS && before_question[n_questions])
		before_question[n_questions]();
	n_questions++;
	return is_marked_registered(addr) ? UFFD_OK : UFFD_NO_VMA;
}

static struct range let_go;

int __wrap_home_unregister(struct space *of, uint64_t start, uint64_t end);
int __wrap_home_unregister(struct space *of, uint64_t start, uint64_t end)
{
	ck_assert_ptr_eq(of, &space);
	ck_assert_uint_eq(let_go.end, 0); /* once */
	let_go = (struct range){ start, end, 0 };
	return 0;
}

static void setup(void)
{
	char *all;

	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(space.maps_fd, 0);
	/* Far below where the kernel maps what may lie anywhere, and below the shadows of sanitizers. */
	all = mmap((void *)LOW_ADDR, bytes_of(PAGES + 2), PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ck_assert_ptr_eq(all, (void *)LOW_ADDR);
	hole = (uintptr_t)all + space.page_size;
	unmap(0, PAGES);
	settled = UFFD_OK;
}

/* As pick.c does, which knows of what was mapped a moment ago. */
static bool do_register(uint32_t first, uint32_t n)
{
	ck_assert_int_eq(maps_read(&space.maps, space.maps_fd), 0);
	return ground_register(&space, page_at(first), page_at(first + n));
}

static bool is_certain(uint32_t first, uint32_t n)
{
	return ranges_cover(&space.certain, page_at(first), page_at(first + n)) &&
	       ranges_cover(&space.occupied, page_at(first), page_at(first + n));
}

static void assert_one_mapping(uint32_t first, uint32_t n)
{
	struct mapping m;

	ck_assert_int_eq(maps_query(space.maps_fd, page_at(first), &m), 0);
	ck_assert_uint_eq(m.start, page_at(first));
	ck_assert_uint_eq(m.end, page_at(first + n));
}

/* ---- where nothing happens -------------------------------------------------------------- */

START_TEST(the_holes_beside_a_mapping_are_its_ground)
{
	map(100, 10);
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(asked[0].start, page_at(0));
	ck_assert_uint_eq(asked[0].end, page_at(PAGES));
	ck_assert(is_certain(100, 10));
	/* What comes there is not registered. */
	ck_assert_uint_eq(ranges_bytes(&space.certain), bytes_of(10));
	ck_assert_uint_eq(ranges_bytes(&space.occupied), bytes_of(10));
	ck_assert_uint_eq(ranges_bytes(&space.registered), bytes_of(10));
}
END_TEST

START_TEST(what_is_alike_is_registered_along)
{
	map(100, 10);
	map_apart(110, 5);
	map(300, 7);
	map_apart(50, 3);
	ck_assert(do_register(100, 10));
	ck_assert(is_certain(100, 10) && is_certain(110, 5) && is_certain(300, 7) &&
		  is_certain(50, 3));
	ck_assert_uint_eq(ranges_bytes(&space.certain), bytes_of(25));
	ck_assert_uint_eq(ranges_bytes(&space.registered), bytes_of(25));
	n_registers = n_questions = 0;
	ck_assert(do_register(300, 7));
	ck_assert_uint_eq(n_registers + n_questions, 0);
}
END_TEST

START_TEST(what_is_not_alike_is_where_it_ends)
{
	map(100, 10);
	(void)map_memfd(90, 2, MAP_SHARED);
	map(95, 1);
	map(120, 1);
	ck_assert_int_eq(mprotect((void *)page_at(120), space.page_size, PROT_READ), 0);
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(asked[0].start, page_at(92));
	ck_assert_uint_eq(asked[0].end, page_at(120));
	ck_assert(is_certain(95, 1));
	ck_assert(!space.has_others);
	ck_assert_uint_eq(let_go.end, 0);
}
END_TEST

START_TEST(what_is_the_agents_is_where_it_ends)
{
	map(100, 10);
	map_apart(110, 4);
	space.layout.private_addr = page_at(110);
	space.layout.private_bytes = bytes_of(4);
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(asked[0].end, page_at(110));
}
END_TEST

START_TEST(with_locked_memory_a_mapping_is_alone)
{
	map(100, 10);
	map_apart(110, 4);
	space.locked_kb = 4;
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(asked[0].start, page_at(100));
	ck_assert_uint_eq(asked[0].end, page_at(110));
	ck_assert_uint_eq(ranges_bytes(&space.registered), bytes_of(10));
}
END_TEST

START_TEST(of_many_mappings_not_all_are_taken)
{
	for (uint32_t i = 0; i < 40; i += 2)
		map(i, 1);
	ck_assert(do_register(20, 1));
	ck_assert(is_certain(12, 1) && is_certain(28, 1));
	ck_assert_uint_eq(ranges_bytes(&space.registered), bytes_of(9));
}
END_TEST

START_TEST(nor_large_ones)
{
	map(100, 10);
	map_apart(110, 5000);
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(asked[0].end, page_at(110));
	ck_assert(do_register(110, 5000));
	ck_assert(is_certain(110, 5000));
}
END_TEST

START_TEST(what_is_registered_already_is_only_proven)
{
	map(100, 10);
	map_apart(110, 5);
	mark_registered(page_at(100), bytes_of(10));
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(n_registers, 1);
	ck_assert_uint_eq(asked[0].start, page_at(100));
	ck_assert_uint_eq(asked[0].end, page_at(110));
	ck_assert(is_certain(100, 10));
}
END_TEST

START_TEST(no_part_of_a_mapping_is_registered)
{
	map(100, 10);
	ck_assert(!do_register(100, 9));
	ck_assert(!do_register(101, 9));
	ck_assert_uint_eq(n_registers, 0);
	ck_assert_uint_eq(space.maps_read_ns, 0);
}
END_TEST

START_TEST(with_an_event_unread_nothing_is_registered)
{
	map(100, 10);
	settled = UFFD_AGAIN;
	ck_assert(!do_register(100, 10));
	ck_assert_uint_eq(n_registers, 0);
}
END_TEST

START_TEST(beside_anothers_it_is_registered_alone)
{
	map(100, 10);
	map_apart(110, 5);
	foreign = (struct range){ page_at(110), page_at(115), 0 };
	ck_assert(do_register(100, 10));
	ck_assert(is_certain(100, 10));
	/* The hole on the other side is taken in. */
	ck_assert_uint_eq(asked[1].start, page_at(0));
	ck_assert_uint_eq(asked[1].end, page_at(110));
	ck_assert_uint_eq(space.unmanaged.n, 0);
}
END_TEST

START_TEST(anothers_is_remembered)
{
	map(100, 10);
	map(200, 10);
	foreign = (struct range){ page_at(100), page_at(110), 0 };
	ck_assert(!do_register(100, 10));
	ck_assert_uint_eq(space.unmanaged.n, 1);
	ck_assert_uint_eq(space.unmanaged.v[0].tag, UHMM_REASON_APP_UFFD);
	/* Registered, by the other: the kernel does not say with whom. */
	ranges_clear(&space.unmanaged);
	mark_registered(page_at(100), bytes_of(10));
	ck_assert(!do_register(100, 10));
	ck_assert_uint_eq(space.unmanaged.n, 1);
	ck_assert_uint_eq(space.certain.n, 0);
	/* It is where the ground of others ends. */
	n_registers = 0;
	ck_assert(do_register(200, 10));
	ck_assert_uint_eq(asked[0].start, page_at(110));
}
END_TEST

/* ---- in the last instant ---------------------------------------------------------------- */

static void by_a_larger_one(void)
{
	unmap(100, 10);
	map(90, 40);
}

START_TEST(a_larger_mapping_in_its_place_is_registered_as_a_whole)
{
	map(100, 10);
	before_register[0] = by_a_larger_one;
	ck_assert(do_register(100, 10));
	assert_one_mapping(90, 40);
	ck_assert(is_certain(90, 40));
}
END_TEST

static void by_one_over_both(void)
{
	map(90, 40);
}

START_TEST(one_in_the_place_of_two_is_registered_as_a_whole)
{
	map(100, 10);
	map_apart(110, 10);
	before_register[0] = by_one_over_both;
	ck_assert(do_register(100, 10));
	assert_one_mapping(90, 40);
	ck_assert(is_certain(90, 40));
}
END_TEST

static void by_one_with_a_neighbour(void)
{
	unmap(100, 10);
	map(95, 105);
}

START_TEST(one_that_joins_what_lies_behind_the_hole_is_registered_as_a_whole)
{
	map(100, 10);
	map(200, 10);
	before_register[0] = by_one_with_a_neighbour;
	ck_assert(do_register(100, 10));
	assert_one_mapping(95, 115);
	ck_assert(is_certain(95, 115));
}
END_TEST

/* Of the mapping that comes: more pages than the one before has to either side. */
static uint32_t more_below, more_above;
static bool event_comes;

/* Over what was no hole. */
static void over_the_edge(void)
{
	map(100 - more_below, more_below + 10 + more_above);
	if (event_comes)
		settled = UFFD_AGAIN;
}

static void between_others(int turn)
{
	more_below = turn & 1 ? 4 : 0;
	more_above = turn & 2 ? 4 : 0;
	map(100, 10);
	(void)map_memfd(96, 4, MAP_SHARED);
	(void)map_memfd(110, 4, MAP_SHARED);
	before_register[0] = over_the_edge;
}

START_TEST(what_was_split_is_one_again)
{
	between_others(_i);
	ck_assert(do_register(100, 10));
	assert_one_mapping(100 - more_below, more_below + 10 + more_above);
	ck_assert(is_certain(100 - more_below, more_below + 10 + more_above));
	ck_assert_uint_eq(let_go.end, 0);
}
END_TEST

/* It would raise events, and not be known as occupied when they are put in order. */
START_TEST(with_an_event_unread_nothing_else_is_registered)
{
	between_others(_i);
	event_comes = true;
	ck_assert(!do_register(100, 10));
	ck_assert(!is_marked_registered(page_at(more_above ? 110 : 99)));
	ck_assert_uint_eq(space.certain.n, 0);
	ck_assert(!ranges_find(&space.occupied, page_at(more_above ? 110 : 99)));
	/* But what is registered is remembered. */
	ck_assert(ranges_cover(&space.registered, page_at(100), page_at(110)));
	ck_assert(ranges_cover(&space.occupied, page_at(100), page_at(110)));
}
END_TEST

static void it_goes(void)
{
	unmap(100, 10);
}

static void it_comes(void)
{
	map(100, 10);
}

/* A page taken from there would read zero. */
START_TEST(what_has_come_into_the_hole_afterwards_is_not_certain)
{
	map(100, 10);
	map(200, 10);
	before_register[0] = it_goes;
	if (_i == 0)
		after_register[1] = it_comes;
	if (_i > 0)
		after_register[0] = it_comes;
	if (_i > 1) {
		before_register[1] = it_goes;
		after_register[1] = it_comes;
	}
	ck_assert(!do_register(100, 10));
	ck_assert(!ranges_find(&space.certain, page_at(100)));
	ck_assert(is_certain(200, 10));
	n_registers = HOOKS;
	ck_assert(do_register(100, 10));
	ck_assert(is_certain(100, 10));
}
END_TEST

static void a_registered_one_grows_there(void)
{
	it_goes();
	map(95, 8);
	mark_registered(page_at(95), bytes_of(8));
}

static void the_rest_comes(void)
{
	map(103, 7);
}

/* What was there has gone without a word, and a neighbour grown into its place, also without. */
START_TEST(a_part_that_is_registered_does_not_speak_for_the_rest)
{
	map(100, 10);
	map(200, 10);
	before_register[0] = it_goes;
	after_register[0] = it_comes;
	before_question[1] = a_registered_one_grows_there;
	after_register[1] = the_rest_comes;
	ck_assert(!do_register(100, 10));
	ck_assert(!ranges_cover(&space.certain, page_at(100), page_at(110)));
}
END_TEST

static void an_event_comes(void)
{
	settled = UFFD_AGAIN;
}

START_TEST(with_an_event_unread_nothing_is_certain)
{
	map(100, 10);
	after_register[_i] = an_event_comes;
	ck_assert(!do_register(100, 10));
	ck_assert_uint_eq(space.certain.n, 0);
	ck_assert(ranges_cover(&space.registered, page_at(100), page_at(110)));
	/* Its events may be among those that are put in order next. */
	ck_assert(ranges_cover(&space.occupied, page_at(100), page_at(110)));
}
END_TEST

static void another_registers_it(void)
{
	foreign = (struct range){ page_at(100), page_at(110), 0 };
}

START_TEST(what_another_has_registered_meanwhile_is_not_certain)
{
	map(100, 10);
	before_register[1] = another_registers_it;
	ck_assert(!do_register(100, 10));
	ck_assert_uint_eq(space.certain.n, 0);
}
END_TEST

static void it_comes_and_another_registers_it(void)
{
	it_comes();
	mark_registered(page_at(100), bytes_of(10));
	another_registers_it();
}

static void it_goes_with_the_other(void)
{
	it_goes();
	foreign = (struct range){ 0 };
}

/* The kernel says of it that it is registered, and then that nothing is there. */
START_TEST(what_was_anothers_for_a_moment_is_not_certain)
{
	map(100, 10);
	map(200, 10);
	before_register[0] = it_goes;
	after_register[0] = it_comes_and_another_registers_it;
	before_register[1] = it_goes_with_the_other;
	after_register[1] = it_comes;
	ck_assert(!do_register(100, 10));
	ck_assert(!ranges_find(&space.certain, page_at(100)));
}
END_TEST

static void shared_memory_comes(void)
{
	(void)map_memfd(150, 4, MAP_SHARED);
}

static void a_private_file_comes(void)
{
	(void)map_memfd(150, 4, MAP_PRIVATE);
}

START_TEST(what_is_not_private_memory_is_let_go)
{
	map(100, 10);
	before_register[0] = _i ? shared_memory_comes : a_private_file_comes;
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(let_go.start, page_at(150));
	ck_assert_uint_eq(let_go.end, page_at(154));
	ck_assert(space.has_others);
	ck_assert_uint_eq(ranges_bytes(&space.certain), bytes_of(10));
	ck_assert_uint_eq(ranges_bytes(&space.registered), bytes_of(10));
}
END_TEST

static void anothers_shared_memory_comes(void)
{
	shared_memory_comes();
	foreign = (struct range){ page_at(150), page_at(154), 0 };
}

/* Older kernels let anybody unregister it. */
START_TEST(what_is_not_registered_with_us_is_not_let_go)
{
	map(100, 10);
	after_register[_i] = _i ? shared_memory_comes : anothers_shared_memory_comes;
	ck_assert(do_register(100, 10));
	ck_assert(!space.has_others);
	ck_assert_uint_eq(let_go.end, 0);
}
END_TEST

static struct object object;
static struct object *objects[] = { &object };

static void our_object_grows(void)
{
	struct stat st;
	int fd = map_memfd(150, 4, MAP_SHARED);

	ck_assert_int_eq(fstat(fd, &st), 0);
	object.dev = st.st_dev;
	object.ino = st.st_ino;
	space.objects = objects;
	space.n_objects = 1;
}

/* Its pages may be away. */
START_TEST(shared_memory_that_is_served_is_not_let_go)
{
	map(100, 10);
	before_register[0] = our_object_grows;
	ck_assert(do_register(100, 10));
	ck_assert_uint_eq(let_go.end, 0);
}
END_TEST

static void shared_memory_in_its_place(void)
{
	(void)map_memfd(100, 10, MAP_SHARED);
}

START_TEST(shared_memory_in_its_place_is_let_go)
{
	map(100, 10);
	before_register[0] = shared_memory_in_its_place;
	ck_assert(!do_register(100, 10));
	ck_assert_uint_eq(let_go.start, page_at(100));
	ck_assert_uint_eq(let_go.end, page_at(110));
	ck_assert_uint_eq(space.certain.n, 0);
	ck_assert_uint_eq(space.maps_read_ns, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ground");
	TCase *tcase = tcase_create("ground");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, the_holes_beside_a_mapping_are_its_ground);
	tcase_add_test(tcase, what_is_alike_is_registered_along);
	tcase_add_test(tcase, what_is_not_alike_is_where_it_ends);
	tcase_add_test(tcase, what_is_the_agents_is_where_it_ends);
	tcase_add_test(tcase, with_locked_memory_a_mapping_is_alone);
	tcase_add_test(tcase, of_many_mappings_not_all_are_taken);
	tcase_add_test(tcase, nor_large_ones);
	tcase_add_test(tcase, what_is_registered_already_is_only_proven);
	tcase_add_test(tcase, no_part_of_a_mapping_is_registered);
	tcase_add_test(tcase, with_an_event_unread_nothing_is_registered);
	tcase_add_test(tcase, beside_anothers_it_is_registered_alone);
	tcase_add_test(tcase, anothers_is_remembered);
	tcase_add_test(tcase, a_larger_mapping_in_its_place_is_registered_as_a_whole);
	tcase_add_test(tcase, one_in_the_place_of_two_is_registered_as_a_whole);
	tcase_add_test(tcase, one_that_joins_what_lies_behind_the_hole_is_registered_as_a_whole);
	tcase_add_loop_test(tcase, what_was_split_is_one_again, 1, 4);
	tcase_add_loop_test(tcase, with_an_event_unread_nothing_else_is_registered, 1, 4);
	tcase_add_loop_test(tcase, what_has_come_into_the_hole_afterwards_is_not_certain, 0, 3);
	tcase_add_test(tcase, a_part_that_is_registered_does_not_speak_for_the_rest);
	tcase_add_loop_test(tcase, with_an_event_unread_nothing_is_certain, 0, 2);
	tcase_add_test(tcase, what_another_has_registered_meanwhile_is_not_certain);
	tcase_add_test(tcase, what_was_anothers_for_a_moment_is_not_certain);
	tcase_add_loop_test(tcase, what_is_not_private_memory_is_let_go, 0, 2);
	tcase_add_loop_test(tcase, what_is_not_registered_with_us_is_not_let_go, 0, 2);
	tcase_add_test(tcase, shared_memory_that_is_served_is_not_let_go);
	tcase_add_test(tcase, shared_memory_in_its_place_is_let_go);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
