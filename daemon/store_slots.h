/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Slots of a store for pages that are to leave. By the one thread that fills the store. */
#ifndef UHMMD_STORE_SLOTS_H
#define UHMMD_STORE_SLOTS_H

#include <stdint.h>

#include "family.h"

/*
 * Take up to n slots, as long runs as can be had, each with one reference that is the
 * caller's, and their room in the tier; the backend and the table grow if need be. Returns
 * how many there were. Takes the family's lock; may wait for the backend.
 */
uint32_t store_take_slots(struct family *family, struct store *store, uint32_t n, uint64_t *ret_slots);

#endif
