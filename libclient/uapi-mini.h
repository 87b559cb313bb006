/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few kernel constants that the client needs and that a distribution's headers may be
 * too old to have. All are stable kernel ABI. Presence on the running kernel is found out
 * by the call itself, never from here.
 */
#ifndef UHMM_LIBCLIENT_UAPI_MINI_H
#define UHMM_LIBCLIENT_UAPI_MINI_H

#include <linux/ioctl.h>
#include <stdint.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* <linux/userfaultfd.h> has these from 6.8 on; own names, so that both can be included. */
struct uhmm_uffdio_move {
	uint64_t dst;
	uint64_t src;
	uint64_t len;
	uint64_t mode;
	int64_t move; /* out: bytes moved, or a negative errno; untouched if refused early */
};
#define UHMM_UFFDIO_MOVE _IOWR(0xAA, 0x05, struct uhmm_uffdio_move)
#define UHMM_UFFDIO_MOVE_ALLOW_SRC_HOLES (1u << 1)

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* Landlock: access bits by ABI version, from its documentation. */
struct uhmm_landlock_attr {
	uint64_t access_fs;
	uint64_t access_net; /* ABI 4 */
	uint64_t scoped;     /* ABI 6 */
};
#define UHMM_LANDLOCK_QUERY_VERSION 1u

#endif
