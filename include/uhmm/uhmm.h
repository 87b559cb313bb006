/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client library of uhmm.
 *
 * No special allocator: every call takes any memory of the calling process.
 * All functions return 0 (or what they say) on success and a negative errno on
 * failure; they do not set errno and print nothing. A handle may be used by one
 * thread at a time; different handles are independent. After fork the child
 * opens a handle of its own.
 */
#ifndef UHMM_UHMM_H
#define UHMM_UHMM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uhmm;

/* Where a page is, as uhmm_query tells. */
enum uhmm_where {
	UHMM_WHERE_HOST = 0,	 /* in host RAM, or never touched */
	UHMM_WHERE_LEAVING = 1,	 /* on its way out */
	UHMM_WHERE_TIER = 2,	 /* on a tier */
	UHMM_WHERE_POISONED = 3, /* its bytes are lost: a touch raises SIGBUS */
};

enum uhmm_destination {
	UHMM_TO_HOME = 0,
	UHMM_TO_TIER = 1,
};

/*
 * Connect to the daemon and enrol this process if it is not enrolled yet (the
 * preload library enrols before main). `socket_path` NULL: $UHMM_SOCKET, or
 * /run/uhmm/uhmm.sock.
 * -ECONNREFUSED, -ENOENT: no daemon there; -EACCES: refused by policy;
 * -EPROTO: the daemon speaks another version.
 */
int uhmm_open(const char *socket_path, struct uhmm **ret_handle);

/* Disconnect. The process stays enrolled. NULL is fine. */
void uhmm_close(struct uhmm *handle);

/*
 * Move the pages of [addr, addr + len) out to a tier, or home. The range is
 * widened to whole pages. Returns the number of pages moved: pages that cannot
 * move (locked, pinned, shared ...) are left where they are, without an error.
 * Returns when the move is done.
 * -EINVAL: wrong destination or an empty or wrapping range; -ENOTCONN: the
 * daemon went away.
 */
long uhmm_migrate(struct uhmm *handle, const void *addr, size_t len,
		  enum uhmm_destination destination);

/*
 * Where is each page of [addr, addr + len)? One byte a page (enum uhmm_where),
 * as in mincore(2), into vec, which must hold one for each page that the range
 * touches. A snapshot: pages move at any time.
 */
int uhmm_query(struct uhmm *handle, const void *addr, size_t len, unsigned char *vec);

#ifdef __cplusplus
}
#endif
#endif
