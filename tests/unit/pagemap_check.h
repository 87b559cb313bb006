/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The books of page maps, audited: every slot count against the records of all distinct
 * leaves, every sharing count against the entries, the maps' own counters against their
 * trees, and every unit of the arena accounted for.
 */
#ifndef TEST_PAGEMAP_CHECK_H
#define TEST_PAGEMAP_CHECK_H

#include "family.h"
#include "pagemap.h"

/* A family of its own for this test's process, with one store (index 1) of n_slots. */
struct family *check_family(uint64_t n_units, uint64_t n_slots);

/* A STORED record on a free slot of store 1; the caller holds its reference. */
struct page_rec check_stored(struct family *family);
uint32_t check_slot_count(struct family *family, uint64_t slot);
/* Give back the reference of a record that found no place. */
void check_forget(struct family *family, struct page_rec rec);

/* A space's unit in the arena, with a log and one batch, in the list of spaces. */
struct space_unit *check_publish(struct family *family, uint64_t id, const struct pagemap *map);

/* `maps` are all maps of the family. Fails the test on any disagreement. */
void check_books(struct family *family, const struct pagemap *maps, unsigned int n_maps);

#endif
