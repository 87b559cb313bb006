/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The calls of uhmm.h: a handle is one admin connection to the daemon. Runs on the program's
 * threads, one at a time for each handle. Prints nothing and leaves errno alone.
 */
#include <uhmm/uhmm.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "enrol.h"
#include "journey.h"
#include "link.h"
#include "preload.h"
#include "spawn.h"
#include "sys.h"

/* NULL unless the preload library is in this process. */
extern __typeof__(uhmm_preload_enrol) uhmm_preload_enrol __attribute__((weak));

#define CONNECT_MS 5000
#define EXPORT __attribute__((visibility("default")))

struct uhmm {
	int sock; /* -1: the connection is over */
	union {
		struct uhmm_msg h;
		struct uhmm_msg_done done;
		struct uhmm_msg_refuse refuse;
		unsigned char room[UHMM_MSG_MAX];
	} packet;
};

static int enrol_once(const char *path)
{
	struct enrol_why why;

	return uhmm_preload_enrol ? uhmm_preload_enrol(path) : enrol_process(path, &why);
}

static int open_handle(const char *path, struct uhmm **ret_handle)
{
	struct uhmm *handle = malloc(sizeof(*handle));
	int err;

	if (!handle)
		return -ENOMEM;
	handle->sock = link_connect(path, CONNECT_MS);
	if (handle->sock < 0) {
		err = handle->sock;
		free(handle);
		return err;
	}
	err = journey_send_hello(handle->sock, UHMM_ROLE_ADMIN, NULL);
	if (err) {
		uhmm_close(handle);
		return err;
	}
	*ret_handle = handle;
	return 0;
}

EXPORT int uhmm_open(const char *socket_path, struct uhmm **ret_handle)
{
	const char *path = socket_path ? socket_path : enrol_default_path();
	int saved_errno = errno;
	int err = enrol_once(path);

	if (!err)
		err = open_handle(path, ret_handle);
	errno = saved_errno;
	return err;
}

EXPORT void uhmm_close(struct uhmm *handle)
{
	int saved_errno = errno;

	if (!handle)
		return;
	if (handle->sock >= 0)
		sys_close(handle->sock);
	free(handle);
	errno = saved_errno;
}

/* A connection that broke once is over: an answer that comes late must not be taken for the
 * next question's. */
static int hang_up(struct uhmm *handle, int err)
{
	sys_close(handle->sock);
	handle->sock = -1;
	return err;
}

static int send_request(struct uhmm *handle, enum uhmm_request what, uint32_t flags, uint64_t addr,
			uint64_t bytes)
{
	struct uhmm_msg_request request = {
		.request = (uint32_t)what,
		.flags = flags,
		.pid = (int32_t)sys_call0(SYS_getpid),
		.addr = addr,
		.bytes = bytes,
	};
	int err;

	if (handle->sock < 0)
		return -ENOTCONN;
	err = link_send(handle->sock, UHMM_MSG_REQUEST, &request, sizeof(request), -1);
	return err ? hang_up(handle, err) : 0;
}

/* The next packet of the answer: its length, or a negative errno with the connection over. */
static long next_packet(struct uhmm *handle)
{
	int fds[UHMM_MSG_FDS_MAX];
	struct enrol_why why;
	unsigned int n_fds;
	long n = link_recv(handle->sock, &handle->packet, sizeof(handle->packet), fds, &n_fds,
			   LINK_FOREVER);

	if (n < 0)
		return hang_up(handle, (int)n);
	for (unsigned int i = 0; i < n_fds; i++)
		sys_close(fds[i]);
	if (n_fds == 0 && handle->packet.h.type == UHMM_MSG_TEXT)
		return n;
	if (n_fds == 0 && handle->packet.h.type == UHMM_MSG_DONE &&
	    (size_t)n == sizeof(handle->packet.done))
		return n;
	if (n_fds == 0 && handle->packet.h.type == UHMM_MSG_REFUSE &&
	    (size_t)n == sizeof(handle->packet.refuse))
		return hang_up(handle, journey_why_refused(&why, &handle->packet.refuse));
	return hang_up(handle, -EPROTO);
}

/* The whole pages that [addr, addr + len) touches. */
static int widen(const void *addr, size_t len, uint64_t *ret_first, uint64_t *ret_bytes)
{
	uint64_t page = spawn_page_bytes();
	uint64_t start = (uintptr_t)addr;
	uint64_t first = start - start % page;
	uint64_t bytes;

	if (len == 0 || start + len < start || start + len > UINT64_MAX - page)
		return -EINVAL;
	bytes = start + len - first;
	*ret_first = first;
	*ret_bytes = (bytes + page - 1) / page * page;
	return 0;
}

EXPORT long uhmm_migrate(struct uhmm *handle, const void *addr, size_t len,
			 enum uhmm_destination destination)
{
	uint32_t flags = destination == UHMM_TO_HOME ? UHMM_REQ_FLAG_HOME : 0;
	uint64_t first, bytes;
	int err = widen(addr, len, &first, &bytes);
	long n;

	if (destination != UHMM_TO_HOME && destination != UHMM_TO_TIER)
		return -EINVAL;
	if (!err)
		err = send_request(handle, UHMM_REQ_MIGRATE, flags, first, bytes);
	if (err)
		return err;
	do {
		n = next_packet(handle);
	} while (n >= 0 && handle->packet.h.type == UHMM_MSG_TEXT);
	if (n < 0)
		return n;
	return handle->packet.done.error ? handle->packet.done.error :
					   (long)handle->packet.done.pages;
}

EXPORT int uhmm_query(struct uhmm *handle, const void *addr, size_t len, unsigned char *vec)
{
	uint64_t first, bytes;
	int err = widen(addr, len, &first, &bytes);
	size_t want, got = 0;

	if (!err)
		err = send_request(handle, UHMM_REQ_QUERY, 0, first, bytes);
	if (err)
		return err;
	want = bytes / spawn_page_bytes();
	for (;;) {
		long n = next_packet(handle);
		size_t here;

		if (n < 0)
			return (int)n;
		if (handle->packet.h.type == UHMM_MSG_DONE)
			break;
		here = (size_t)n - sizeof(handle->packet.h);
		if (here > want - got)
			return hang_up(handle, -EPROTO);
		memcpy(vec + got, handle->packet.room + sizeof(handle->packet.h), here);
		got += here;
	}
	if (handle->packet.done.error)
		return handle->packet.done.error;
	return got == want ? 0 : hang_up(handle, -EPROTO);
}
