/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a successor finds in an arena, and what it refuses. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_tier.h"
#include "fixture.h"
#include "leaf_refs.h"
#include "pagemap.h"
#include "pagemap_check.h"
#include "pagemap_tree.h"
#include "recover.h"
#include "space.h"

#define LEAF PAGEMAP_LEAF_PAGES
#define UNITS 400u
#define SLOTS 64u

static struct family *family;
static struct pagemap maps[2];
static struct space_unit *spaces[2];
static struct recovered recovered;
static char why[RECOVER_WHY_BYTES];
static char path[256];

/* Space 1 fills store 1, and space 2 is its child: they share one leaf, and each has its own. */
static void setup(void)
{
	family = check_family(UNITS, SLOTS);
	family_store(family, 1)->unit->space_id = 1;
	(void)family_name_store(family_store(family, 1)->unit->name, 64, family->id, 1, 1);
	strcpy(path, family->arena.path);
	ck_assert_int_eq(pagemap_init(&maps[0], family), 0);
	for (uint64_t i = 0; i < 4; i++) {
		ck_assert_int_eq(pagemap_set(&maps[0], 5 + i, check_stored(family)), 0);
		ck_assert_int_eq(pagemap_set(&maps[0], LEAF + i, check_stored(family)), 0);
	}
	ck_assert_int_eq(pagemap_set(&maps[0], 9, (struct page_rec){ PAGE_POISONED }), 0);
	ck_assert_int_eq(pagemap_fork(&maps[0], &maps[1]), 0);
	ck_assert_int_eq(pagemap_set(&maps[1], LEAF + 8, check_stored(family)), 0);
	ck_assert_int_eq(pagemap_remove(&maps[1], 7 * LEAF * LEAF, LEAF * LEAF), 0);
	for (unsigned int i = 0; i < 2; i++)
		spaces[i] = check_publish(family, i + 1, &maps[i]);
}

static void teardown(void)
{
	fake_tier.fail_reopen = 0;
	recovered_deinit(&recovered);
	family_unref(family);
	ck_assert_int_eq(fake_tier.n_open, 0);
}

static struct tier *find_tier(void *arg, const char *name)
{
	ck_assert_ptr_null(arg);
	return strcmp(name, fake_tier_handle.name) == 0 ? &fake_tier_handle : NULL;
}

/* The daemon ends, and another one comes. */
static int succeed(void)
{
	int err;

	if (family != NULL)
		family_leave(family);
	family = NULL;
	recovered_deinit(&recovered);
	err = family_open(path, UNITS * ARENA_UNIT, find_tier, NULL, &recovered, why);
	if (err == 0)
		family = recovered.family;
	return err;
}

static void succeed_well(void)
{
	struct pagemap all[8];
	unsigned int n = 0;

	fixture_must(succeed() == 0, "%s", why);
	for (uint32_t i = 0; i < recovered.n_spaces; i++) {
		all[n++] = recovered.spaces[i].map;
		if (recovered.spaces[i].past.family)
			all[n++] = recovered.spaces[i].past;
	}
	if (recovered.has_object)
		all[n++] = recovered.object.map;
	check_books(family, all, n);
}

static uint64_t sum_of_file(void)
{
	uint64_t sum = 14695981039346656037u;
	FILE *file = fopen(path, "re");
	int byte;

	ck_assert_ptr_nonnull(file);
	while ((byte = fgetc(file)) != EOF)
		sum = (sum ^ (uint64_t)byte) * 1099511628211u;
	fclose(file);
	return sum;
}

static void succeed_not(int expected, const char *reason)
{
	struct arena *arena = &family->arena;
	uint64_t sum = sum_of_file();

	ck_assert_int_eq(fsync(arena->fd), 0);
	ck_assert_int_eq(succeed(), expected);
	fixture_must(strstr(why, reason) != NULL, "it says: %s", why);
	ck_assert_uint_eq(sum_of_file(), sum);
	ck_assert_int_eq(fake_tier.n_open, 0);
	(void)unlink(path);
}

START_TEST(a_family_comes_back_whole)
{
	uint64_t away[2] = { maps[0].n_away, maps[1].n_away };
	uint64_t rec = pagemap_get(&maps[1], LEAF + 8).v;

	succeed_well();
	ck_assert_uint_eq(recovered.n_spaces, 2);
	for (unsigned int i = 0; i < 2; i++) {
		ck_assert_uint_eq(recovered.spaces[i].unit->space_id, i + 1);
		ck_assert_uint_eq(recovered.spaces[i].map.n_away, away[i]);
		ck_assert_uint_eq(recovered.spaces[i].map.n_poisoned, 1);
	}
	ck_assert_uint_eq(pagemap_get(&recovered.spaces[1].map, LEAF + 8).v, rec);
	ck_assert_uint_eq(pagemap_get(&recovered.spaces[1].map, 7 * LEAF * LEAF).v, PAGE_RESIDENT);
	ck_assert_ptr_eq(recovered.spaces[0].store, family_store(family, 1));
	ck_assert_ptr_null(recovered.spaces[1].store);
	ck_assert_uint_eq(fake_tier.last_n_slots, SLOTS);
	ck_assert_uint_eq(fake_tier.n_added, family_store(family, 1)->unit->slots.n_used);
	ck_assert_uint_eq(recovered.last_id, family->id > 2 ? family->id : 2);
	ck_assert(!recovered.has_object);
}
END_TEST

START_TEST(what_comes_back_can_be_used_and_comes_back_again)
{
	struct pagemap *map;

	succeed_well();
	map = &recovered.spaces[0].map;
	ck_assert_int_eq(pagemap_set(map, 6, check_stored(family)), 0);
	ck_assert_int_eq(pagemap_move(map, 0, 4 * LEAF + 3, 2 * LEAF), 0);
	succeed_well();
	ck_assert_uint_eq(recovered.n_spaces, 2);
	ck_assert_int_eq(page_rec_state(pagemap_get(&recovered.spaces[0].map, 4 * LEAF + 9)),
			 PAGE_STORED);
}
END_TEST

/* What a set with a fork in it has taken away from space 1 so far. */
static struct page_rec take_away(void)
{
	struct page_rec rec = check_stored(family);
	struct pagemap past;

	ck_assert_int_eq(pagemap_init(&past, family), 0);
	ck_assert_int_eq(pagemap_set(&past, 3 * LEAF + 1, rec), 0);
	spaces[0]->past = past.root;
	return rec;
}

START_TEST(what_was_taken_from_children_to_be_born_is_there_still)
{
	struct page_rec rec = take_away();

	succeed_well();
	ck_assert_uint_eq(pagemap_get(&recovered.spaces[0].past, 3 * LEAF + 1).v, rec.v);
	ck_assert_uint_eq(check_slot_count(family, page_rec_slot(rec)), 1);
	ck_assert_uint_eq(recovered.spaces[0].map.n_away, maps[0].n_away);
	ck_assert_ptr_null(recovered.spaces[1].past.family);
}
END_TEST

START_TEST(records_in_flight_stay_and_batches_give_their_slots_back)
{
	static const enum page_state states[] = { PAGE_LEAVING, PAGE_STAGED, PAGE_COMING };
	struct page_rec rec;

	for (uint64_t i = 0; i < 3; i++) {
		rec = check_stored(family);
		rec = page_rec_make(states[i], 1, page_rec_slot(rec));
		/* The batch's reference, too. */
		ck_assert_int_eq(family_slot_ref(family, 1, page_rec_slot(rec)), 0);
		rec.v |= states[i] == PAGE_STAGED ? PAGE_REC_UNMARKED : 0;
		ck_assert_int_eq(pagemap_set(&maps[0], 3 * LEAF + i, rec), 0);
	}
	(void)check_stored(family); /* of a page that came home meanwhile */
	spaces[0]->batches[0].state = BATCH_MOVING;
	spaces[0]->batches[0].n_pages = 4;
	succeed_well();
	for (uint64_t i = 0; i < 3; i++)
		ck_assert_int_eq(page_rec_state(pagemap_get(&recovered.spaces[0].map, 3 * LEAF + i)),
				 states[i]);
	ck_assert_uint_eq(recovered.spaces[0].n_unmarked, 1);
	ck_assert_uint_eq(recovered.spaces[0].unit->batches[0].n_pages, 4);
}
END_TEST

START_TEST(what_a_crash_lost_is_free_again)
{
	uint64_t n_free = family->arena.header->n_free;
	struct pagemap before;
	arena_off off;

	/* A fork that was not published, units, and slots that nobody has. */
	ck_assert_int_eq(pagemap_fork(&maps[0], &before), 0);
	ck_assert_int_eq(arena_alloc(&family->arena, &off), 0);
	(void)check_stored(family);
	family_store(family, 1)->unit->slots.next = UINT64_MAX;
	succeed_well();
	ck_assert_uint_eq(family->arena.header->n_free, n_free);
	ck_assert_uint_eq(leaf_refs_count(&family->arena,
					  entry_off(*tree_find(&recovered.spaces[0].map, 5,
							       &(unsigned int){ 0 }))), 2);
}
END_TEST

START_TEST(a_space_that_was_not_published_is_not_there)
{
	arena_list_remove(&family->arena, &family->arena.header->spaces,
			  (arena_off)((char *)spaces[1] - (char *)family->arena.header));
	succeed_well();
	ck_assert_uint_eq(recovered.n_spaces, 1);
	ck_assert_uint_eq(recovered.spaces[0].unit->space_id, 1);
}
END_TEST

START_TEST(a_store_outlives_its_space_until_its_last_slot)
{
	arena_list_remove(&family->arena, &family->arena.header->spaces,
			  (arena_off)((char *)spaces[0] - (char *)family->arena.header));
	succeed_well();
	ck_assert_uint_eq(family_store(family, 1)->unit->closed, 1);
	ck_assert_ptr_null(recovered.spaces[0].store);
	recovered_forget_space(&recovered, 0);
	ck_assert_ptr_null(family_store(family, 1));
	ck_assert_int_eq(fake_tier.n_open, 0);
	check_books(family, NULL, 0);
}
END_TEST

START_TEST(a_store_that_nobody_needs_ends)
{
	struct store *store;

	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 77, &store), 0);
	ck_assert_int_eq(slots_grow(&family->arena, &store->unit->slots, 8), 0);
	succeed_well();
	ck_assert_ptr_null(family_store(family, 2));
	ck_assert_int_eq(fake_tier.n_open, 1);
}
END_TEST

START_TEST(a_space_keeps_one_store)
{
	struct store *store;

	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 2, &store), 0);
	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 2, &store), 0);
	succeed_well();
	ck_assert_ptr_eq(recovered.spaces[1].store, family_store(family, 2));
	ck_assert_ptr_null(family_store(family, 3));
}
END_TEST

static void drop_all(void)
{
	ck_assert_int_eq(pagemap_drop(&maps[0], 0, TREE_PAGES), 0);
	ck_assert_int_eq(pagemap_drop(&maps[1], 0, TREE_PAGES), 0);
}

START_TEST(a_store_that_was_never_opened_is_forgotten)
{
	drop_all();
	fake_tier.fail_reopen = ENOENT;
	succeed_well();
	ck_assert_ptr_null(family_store(family, 1));
	ck_assert_ptr_null(recovered.spaces[0].store);
	ck_assert_uint_eq(family->arena.header->stores, 0);
}
END_TEST

START_TEST(a_store_that_is_needed_and_gone_is_refused)
{
	fake_tier.fail_reopen = ENOENT;
	succeed_not(-ENOENT, "s1-1 of tier fake");
}
END_TEST

START_TEST(a_store_that_cannot_be_opened_is_refused)
{
	drop_all();
	fake_tier.fail_reopen = EIO;
	succeed_not(-EIO, "s1-1 of tier fake");
}
END_TEST

START_TEST(a_tier_that_is_no_more_is_refused)
{
	strcpy(family_store(family, 1)->unit->tier, "tape");
	succeed_not(-ENODEV, "tier tape");
}
END_TEST

START_TEST(an_unused_store_of_no_tier_is_forgotten)
{
	drop_all();
	strcpy(family_store(family, 1)->unit->tier, "tape");
	succeed_well();
	ck_assert_ptr_null(family_store(family, 1));
}
END_TEST

START_TEST(stores_that_were_opened_are_left_when_another_fails)
{
	struct store *store;

	ck_assert_int_eq(family_add_store(family, &fake_tier_handle, 2, &store), 0);
	ck_assert_int_eq(slots_grow(&family->arena, &store->unit->slots, 8), 0);
	strcpy(store->unit->tier, "tape");
	*(uint16_t *)arena_ptr(&family->arena,
			       *(arena_off *)arena_ptr(&family->arena,
						       store->unit->slots.dirs[0])) = 1;
	ck_assert_int_eq(pagemap_set(&maps[1], 9 * LEAF, page_rec_make(PAGE_STORED, 2, 0)), 0);
	fake_tier.n_left = 0;
	succeed_not(-ENODEV, "tier tape");
	ck_assert_uint_eq(fake_tier.n_left, 2 + 1); /* both of the first daemon, and one again */
}
END_TEST

START_TEST(forgetting_all_spaces_leaves_nothing)
{
	(void)take_away();
	succeed_well();
	recovered_forget_space(&recovered, 1);
	check_books(family, (struct pagemap[]){ recovered.spaces[0].map, recovered.spaces[0].past },
		    2);
	recovered_forget_space(&recovered, 0);
	ck_assert_uint_eq(family->arena.header->n_free + 1 +
				  (family->arena.header->leaf_refs != 0 ? 3 : 0),
			  family->arena.header->n_units);
	ck_assert_int_eq(fake_tier.n_open, 0);
	recovered_deinit(&recovered);
}
END_TEST

START_TEST(a_log_of_several_units_is_kept_and_can_be_forgotten)
{
	struct log_unit *log = arena_ptr(&family->arena, spaces[1]->log);

	ck_assert_int_eq(arena_alloc(&family->arena, &log->next), 0);
	log->msgs[0].event = UFFD_EVENT_UNMAP;
	succeed_well();
	log = arena_ptr(&family->arena, recovered.spaces[1].unit->log);
	ck_assert_uint_ne(log->next, 0);
	ck_assert_uint_eq(log->msgs[0].event, UFFD_EVENT_UNMAP);
	recovered_forget_space(&recovered, 1);
	check_books(family, &recovered.spaces[0].map, 1);
}
END_TEST

START_TEST(a_shared_object_comes_back)
{
	struct arena_object *unit = &family->arena.header->object;

	family->arena.header->spaces = 0;
	*unit = (struct arena_object){
		.dev = 11, .ino = 12, .number = 1, .store = 1, .root = maps[0].root
	};
	succeed_well();
	ck_assert(recovered.has_object);
	ck_assert_uint_eq(recovered.n_spaces, 0);
	ck_assert_uint_eq(recovered.object.dev, 11);
	ck_assert_uint_eq(recovered.object.ino, 12);
	ck_assert_uint_eq(recovered.object.number, 1);
	ck_assert_uint_eq(recovered.object.map.n_away, 8);
	ck_assert_ptr_eq(recovered.object.store, family_store(family, 1));
}
END_TEST

START_TEST(a_record_at_both_ends_of_a_move_counts_twice)
{
	struct page_rec rec = pagemap_get(&maps[0], LEAF);

	/* Also where its slot has as many references as one can have. */
	ck_assert_int_eq(pagemap_set(&maps[0], 2 * LEAF, (struct page_rec){ PAGE_REMOVED }), 0);
	for (uint64_t i = 0; check_slot_count(family, page_rec_slot(rec)) < SLOTS_REF_MAX; i++) {
		ck_assert_int_eq(family_slot_ref(family, 1, page_rec_slot(rec)), 0);
		ck_assert_int_eq(pagemap_set(&maps[0], 10 * LEAF + i, rec), 0);
	}
	*(tree_leaf(&maps[0], *tree_find(&maps[0], 2 * LEAF, &(unsigned int){ 0 })) + 1) = rec;
	succeed_well();
	ck_assert_uint_eq(check_slot_count(family, page_rec_slot(rec)), SLOTS_REF_MAX + 1);
	ck_assert_int_eq(pagemap_move_onto(&recovered.spaces[0].map, LEAF, 2 * LEAF + 1, 1), 0);
	ck_assert_uint_eq(check_slot_count(family, page_rec_slot(rec)), SLOTS_REF_MAX);
}
END_TEST

START_TEST(an_arena_beyond_a_lower_limit_is_taken_whole)
{
	family_leave(family);
	ck_assert_int_eq(family_open(path, 2 * ARENA_UNIT, find_tier, NULL, &recovered, why), 0);
	family = recovered.family;
	ck_assert_uint_eq(recovered.n_spaces, 2);
}
END_TEST

START_TEST(a_copy_under_another_name_is_refused)
{
	char other[300];

	snprintf(other, sizeof(other), "%s~", path);
	ck_assert_int_eq(rename(path, other), 0);
	strcpy(path, other);
	succeed_not(-EPROTO, "another family's name");
}
END_TEST

START_TEST(what_others_can_reach_is_refused)
{
	ck_assert_int_eq(fchmod(family->arena.fd, 0640), 0);
	succeed_not(-EPERM, "others can reach it");
}
END_TEST

START_TEST(an_arena_that_is_not_there_says_so)
{
	unlink(path);
	ck_assert_int_eq(succeed(), -ENOENT);
}
END_TEST

START_TEST(a_file_with_holes_is_refused)
{
	/* The free units at its end. */
	off_t size = (off_t)(family->arena.header->n_units * ARENA_UNIT);

	ck_assert_int_eq(fallocate(family->arena.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   size - (off_t)ARENA_UNIT, ARENA_UNIT), 0);
	family_leave(family);
	family = NULL;
	ck_assert_int_eq(succeed(), -EPROTO);
	unlink(path);
}
END_TEST

/* ---- what no crash can have left ------------------------------------------------------- */

static uint64_t *entry_of(unsigned int map, uint64_t pgidx)
{
	unsigned int level;

	return tree_find(&maps[map], pgidx, &level);
}

static struct page_rec *rec_of(unsigned int map, uint64_t pgidx)
{
	return tree_leaf(&maps[map], *entry_of(map, pgidx)) + pgidx % LEAF;
}

static struct store_unit *store_unit(void)
{
	return family_store(family, 1)->unit;
}

static void break_free_list(void)
{
	arena_off *head = &family->arena.header->free_head, next = *head;

	*head = entry_off(*entry_of(1, LEAF));
	*rec_of(1, LEAF) = (struct page_rec){ next };
}

static void break_root(void)
{
	spaces[0]->root += 8;
}

static void break_no_root(void)
{
	spaces[0]->root = 0;
}

static void break_same_root(void)
{
	spaces[0]->root = spaces[1]->root;
}

static void break_past(void)
{
	spaces[0]->past = spaces[0]->root;
}

static void break_node_circle(void)
{
	*(uint64_t *)arena_ptr(&family->arena, maps[0].root) = maps[0].root;
}

static void break_beyond_end(void)
{
	*entry_of(0, LEAF) = family->arena.header->n_units * ARENA_UNIT;
}

static void break_leaf_flags(void)
{
	*entry_of(0, LEAF) |= PAGEMAP_CHUNK_DEFAULT_REMOVED;
}

static void break_node_flags(void)
{
	*(uint64_t *)arena_ptr(&family->arena, maps[0].root) |= PAGEMAP_CHUNK_CHECK;
}

static void break_empty_flags(void)
{
	*entry_of(0, 5 * LEAF) = PAGEMAP_CHUNK_SHARED;
}

static void break_owner(void)
{
	*entry_of(1, 5) &= ~(uint64_t)PAGEMAP_CHUNK_SHARED;
}

static void break_leaf_count(void)
{
	(void)leaf_refs_unshare(&family->arena, entry_off(*entry_of(0, 5)));
}

static void break_state(void)
{
	rec_of(0, LEAF)->v |= 0xf;
}

static void break_reserved_bits(void)
{
	rec_of(0, LEAF)->v |= 1u << 6;
}

static void break_slot_without_state(void)
{
	rec_of(0, LEAF)->v &= ~0xfull;
}

static void break_store(void)
{
	rec_of(0, LEAF)->v += 1ull << PAGE_REC_STORE_SHIFT;
}

static void break_slot(void)
{
	rec_of(0, LEAF)->v += (uint64_t)SLOTS << PAGE_REC_SLOT_SHIFT;
}

static void break_same_slot(void)
{
	*rec_of(1, LEAF + 8) = *rec_of(0, LEAF);
	*rec_of(1, LEAF + 9) = *rec_of(0, LEAF);
}

static void break_store_name(void)
{
	strcpy(store_unit()->name, "../../etc/shadow");
}

static void break_store_index(void)
{
	store_unit()->index = FAMILY_STORES_MAX + 1;
}

static void break_store_circle(void)
{
	store_unit()->next = family_store(family, 1)->unit_off;
}

static void break_tier_name(void)
{
	memset(store_unit()->tier, 'x', sizeof(store_unit()->tier));
}

static void break_slots_size(void)
{
	store_unit()->slots.n_slots = SLOTS_PER_UNIT + 1;
}

static void break_slots_gap(void)
{
	store_unit()->slots.dirs[2] = store_unit()->slots.dirs[0];
	store_unit()->slots.dirs[0] = 0;
}

static void break_batches(void)
{
	spaces[0]->n_batches = UHMM_RING_BOXES + 1;
}

static void break_batch_unit(void)
{
	spaces[0]->batches[0].units[1] = spaces[0]->batches[0].units[0];
}

static void break_batch_state(void)
{
	spaces[0]->batches[0].state = BATCH_FREEING + 1;
}

static void break_batch_page(void)
{
	struct batch_page *pages = arena_ptr(&family->arena, spaces[0]->batches[0].units[0]);

	spaces[0]->batches[0].state = BATCH_STORING;
	spaces[0]->batches[0].n_pages = 3;
	pages[2].pgidx = TREE_PAGES;
}

static void break_log(void)
{
	((struct log_unit *)arena_ptr(&family->arena, spaces[0]->log))->next = spaces[0]->log;
}

static void break_no_log(void)
{
	spaces[0]->log = 0;
}

static void break_id(void)
{
	spaces[1]->space_id = spaces[0]->space_id;
}

static void break_token(void)
{
	memcpy(spaces[1]->token, spaces[0]->token, UHMM_TOKEN_BYTES);
}

static void break_object(void)
{
	family->arena.header->object.root = maps[0].root;
}

static void break_object_store(void)
{
	family->arena.header->spaces = 0;
	break_object();
	family->arena.header->object.store = 3;
}

static void break_refs_table(void)
{
	family->arena.header->leaf_refs = maps[0].root;
}

static void break_version(void)
{
	family->arena.header->version = 1;
}

static const struct {
	void (*make)(void);
	const char *reason;
} breaks[] = {
	{ break_free_list, "two uses" },
	{ break_root, "no page map" },
	{ break_no_root, "no page map" },
	{ break_past, "two uses" },
	{ break_same_root, "two uses" },
	{ break_node_circle, "two uses" },
	{ break_beyond_end, "no unit" },
	{ break_leaf_flags, "unknown flags" },
	{ break_node_flags, "flags and a node" },
	{ break_empty_flags, "without a leaf" },
	{ break_owner, "has an owner" },
	{ break_leaf_count, "sharers without a count" },
	{ break_state, "says nothing" },
	{ break_reserved_bits, "says nothing" },
	{ break_slot_without_state, "says nothing" },
	{ break_store, "says nothing" },
	{ break_slot, "says nothing" },
	{ break_same_slot, "records without a count" },
	{ break_store_name, "not named" },
	{ break_store_index, "index is none" },
	{ break_store_circle, "two uses" },
	{ break_tier_name, "not named" },
	{ break_slots_size, "more slots than counts" },
	{ break_slots_gap, "gap" },
	{ break_batches, "too many batches" },
	{ break_batch_unit, "two uses" },
	{ break_batch_state, "unknown state" },
	{ break_batch_page, "cannot be" },
	{ break_log, "two uses" },
	{ break_no_log, "no unit" },
	{ break_id, "two spaces" },
	{ break_token, "two spaces" },
	{ break_object, "with spaces" },
	{ break_object_store, "without its store" },
	{ break_refs_table, "two uses" },
	{ break_version, "not an arena" },
};

START_TEST(what_no_crash_can_leave_is_refused_and_stays)
{
	breaks[_i].make();
	succeed_not(-EPROTO, breaks[_i].reason);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recover");
	TCase *tcase = tcase_create("recover");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_family_comes_back_whole);
	tcase_add_test(tcase, what_comes_back_can_be_used_and_comes_back_again);
	tcase_add_test(tcase, records_in_flight_stay_and_batches_give_their_slots_back);
	tcase_add_test(tcase, what_a_crash_lost_is_free_again);
	tcase_add_test(tcase, a_space_that_was_not_published_is_not_there);
	tcase_add_test(tcase, a_store_outlives_its_space_until_its_last_slot);
	tcase_add_test(tcase, a_store_that_nobody_needs_ends);
	tcase_add_test(tcase, a_space_keeps_one_store);
	tcase_add_test(tcase, a_store_that_was_never_opened_is_forgotten);
	tcase_add_test(tcase, a_store_that_is_needed_and_gone_is_refused);
	tcase_add_test(tcase, a_store_that_cannot_be_opened_is_refused);
	tcase_add_test(tcase, a_tier_that_is_no_more_is_refused);
	tcase_add_test(tcase, an_unused_store_of_no_tier_is_forgotten);
	tcase_add_test(tcase, stores_that_were_opened_are_left_when_another_fails);
	tcase_add_test(tcase, what_was_taken_from_children_to_be_born_is_there_still);
	tcase_add_test(tcase, forgetting_all_spaces_leaves_nothing);
	tcase_add_test(tcase, a_log_of_several_units_is_kept_and_can_be_forgotten);
	tcase_add_test(tcase, a_shared_object_comes_back);
	tcase_add_test(tcase, a_record_at_both_ends_of_a_move_counts_twice);
	tcase_add_test(tcase, an_arena_beyond_a_lower_limit_is_taken_whole);
	tcase_add_test(tcase, a_copy_under_another_name_is_refused);
	tcase_add_test(tcase, what_others_can_reach_is_refused);
	tcase_add_test(tcase, an_arena_that_is_not_there_says_so);
	tcase_add_test(tcase, a_file_with_holes_is_refused);
	tcase_add_loop_test(tcase, what_no_crash_can_leave_is_refused_and_stays, 0,
			    (int)(sizeof(breaks) / sizeof(breaks[0])));
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
