/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shared memory that an AF_XDP socket sends from and receives to is pinned for as long as the
 * socket lives, or a mapping of one of its rings: until then nothing of it leaves.
 */
#include <linux/if_xdp.h>
#include <sys/socket.h>

#include "prog.h"

/* Within the target, so that nothing leaves before it is pinned. */
#define LEN (8 * MIB)
#define ENTRIES 64

static int socket_on(char *mem)
{
	struct xdp_umem_reg reg = {
		.addr = (uintptr_t)mem,
		.len = LEN,
		.chunk_size = (uint32_t)page_bytes(),
	};
	int xsk = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0), err;

	if (xsk < 0)
		prog_skip("no AF_XDP here");
	err = setsockopt(xsk, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg));
	if (err < 0 && errno == ENOBUFS)
		prog_skip("so much memory cannot be locked here");
	CHECK(err == 0);
	return xsk;
}

static char *map_ring(int xsk, size_t *ret_len)
{
	const int entries = ENTRIES;
	struct xdp_mmap_offsets offsets;
	socklen_t len = sizeof(offsets);
	char *ring;

	CHECK(setsockopt(xsk, SOL_XDP, XDP_TX_RING, &entries, sizeof(entries)) == 0);
	CHECK(getsockopt(xsk, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &len) == 0);
	*ret_len = offsets.tx.desc + ENTRIES * sizeof(struct xdp_desc);
	ring = mmap(NULL, *ret_len, PROT_READ | PROT_WRITE, MAP_SHARED, xsk, XDP_PGOFF_TX_RING);
	CHECK(ring != MAP_FAILED);
	return ring;
}

static void stays(const char *mem, const char *what)
{
	for (int i = 0; i < 5; i++)
		ask_away(mem, LEN);
	if (present_pages(mem, LEN) != LEN / page_bytes())
		prog_fail("%s: some of it has left", what);
}

int main(void)
{
	char *mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	size_t ring_len;
	char *ring;
	int xsk;

	CHECK(mem != MAP_FAILED);
	pattern_fill(mem, LEN, 1);
	xsk = socket_on(mem);
	stays(mem, "with a socket");
	ring = map_ring(xsk, &ring_len);
	CHECK(close(xsk) == 0);
	stays(mem, "with a ring");
	CHECK(munmap(ring, ring_len) == 0);
	send_away(mem, LEN);
	pattern_check(mem, LEN, 1);
	return 0;
}
