/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's side of include/uhmm/wire.h: packets in and out, and the test that each
 * one from a client must pass before anything in it is believed.
 */
#ifndef UHMMD_WIRE_H
#define UHMMD_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "uhmm/wire.h"

/* No program has memory at or above this: the largest user address space there is. */
#define WIRE_ADDR_MAX (1ull << 56)

/*
 * Is this packet a well-formed message of type `expected` (HELLO, ENROL, CHILD or REQUEST;
 * of others a client sends none), with as many descriptors as it must have? Reads nothing
 * outside buf[0, len), whose alignment may be any. 0, or -EPROTO, or -EPROTONOSUPPORT for a
 * HELLO of another version: refuse that with UHMM_REASON_VERSION. On an error *ret_why is a
 * constant that names the reason.
 * ENROL needs wire_check_enrol too.
 */
int wire_check(const void *buf, size_t len, size_t n_fds, enum uhmm_msg_type expected,
	       const char **ret_why);

/* What WELCOME said. */
struct wire_terms {
	enum uhmm_role role;
	uint64_t page_bytes;
	uint64_t ring_bytes;
	uint64_t staging_bytes; /* of all chunks together */
};

/* Do the areas that an ENROL names exist in a sane way: aligned, within user addresses,
 * apart from one another, with one descriptor for a program and none for the others? The
 * message has passed wire_check. */
int wire_check_enrol(const struct uhmm_msg_enrol *msg, size_t n_fds,
		     const struct wire_terms *terms, const char **ret_why);

/*
 * One packet; never waits. 0 with *ret_len = 0 at the end of the connection. `fds` has
 * room for UHMM_MSG_FDS_MAX; the caller owns what is in it, close-on-exec. -EAGAIN:
 * nothing there; -EMSGSIZE: longer than cap; -ETOOMANYREFS: more descriptors than a
 * message may have, or than this process can take. On an error no descriptor is left
 * open.
 */
int wire_recv(int sock, void *buf, size_t cap, size_t *ret_len, int *fds, size_t *ret_n_fds);

/* One packet, with up to UHMM_MSG_FDS_MAX descriptors, which stay the caller's. `flags`
 * as in send(2); SIGPIPE is never raised. */
int wire_send(int sock, const void *msg, size_t len, const int *fds, size_t n_fds, int flags);

#endif
