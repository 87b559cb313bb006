/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plug-in ABI of backends: things that hold pages.
 *
 * A plug-in is a shared object <name>.so that exports
 *     const struct uhmm_backend_ops *uhmm_backend_entry(void);
 * uhmmd looks for it in its plug-in directory, calls the entry once and checks
 * `abi` and `size`. Members that are NULL where the text says optional are
 * filled with defaults, so nobody tests for NULL later.
 *
 * Words: a *tier* is an opened backend with a capacity. A *store* is one
 * space's area in a tier: an array of slots of one page each, numbered from 0.
 * The daemon decides which slot is used for what; the backend only keeps bytes.
 *
 * Errors are negative errno values. -ENOSPC from store_resize or write means
 * "no room", an answer and not a failure. A short transfer is -EIO.
 *
 * Threads: tier_open and tier_close run on one thread. The other calls may run
 * on several threads at once, for different stores, and for one store `read`
 * may run beside anything else; the daemon never reads a slot while it writes
 * that slot.
 */
#ifndef UHMM_BACKEND_H
#define UHMM_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UHMM_BACKEND_ABI 1u

/* The bytes are ordinary memory of this machine; store_map and store_fd work. */
#define UHMM_BACKEND_HOST_MEMORY (1u << 0)
/* What the agent writes is charged to the program's cgroup by the kernel. */
#define UHMM_BACKEND_NATIVE_CHARGE (1u << 1)

struct uhmm_tier;  /* the backend's own */
struct uhmm_store; /* the backend's own */

struct uhmm_backend_param {
	const char *key;
	const char *value;
};

struct uhmm_backend_env {
	uint32_t size;		  /* of this struct, bytes */
	uint32_t page_size;	  /* bytes */
	const char *tier_name;	  /* for messages */
	const char *pages_dir;	  /* a root-only directory on a tmpfs, for host memory */
	/* Say something on the daemon's log; priority as in <syslog.h>. Any thread. */
	void (*log)(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
};

struct uhmm_backend_ops {
	uint32_t abi;  /* UHMM_BACKEND_ABI */
	uint32_t size; /* sizeof(struct uhmm_backend_ops) as the plug-in knew it */
	const char *name;
	uint32_t flags; /* UHMM_BACKEND_* */
	uint32_t reserved;

	/* Open a tier. Unknown keys: -EINVAL, with one log line that names the key.
	 * `params` ends with a NULL key and is valid during the call only.
	 * `capacity` is not among the keys: the daemon keeps to it by itself. */
	int (*tier_open)(const struct uhmm_backend_env *env,
			 const struct uhmm_backend_param *params, struct uhmm_tier **ret_tier);
	/* All stores are closed before. */
	void (*tier_close)(struct uhmm_tier *tier);

	/* Open a store; `name` is unique in the tier, [a-z0-9-], at most 63 bytes. */
	int (*store_open)(struct uhmm_tier *tier, const char *name, struct uhmm_store **ret_store);
	/* Close it and forget its bytes. */
	void (*store_close)(struct uhmm_store *store);
	/* Make room for n_slots; grows only. */
	int (*store_resize)(struct uhmm_store *store, uint64_t n_slots);

	/* Read or write n_pages whole pages from slot on. buf is page-aligned. */
	int (*read)(struct uhmm_store *store, uint64_t slot, uint32_t n_pages, void *buf);
	int (*write)(struct uhmm_store *store, uint64_t slot, uint32_t n_pages, const void *buf);
	/* The bytes of these slots are not wanted any more; the memory may go. */
	void (*free)(struct uhmm_store *store, uint64_t slot, uint32_t n_pages);

	/* Optional, host memory only: the address at which slot 0 lies in the daemon,
	 * valid up to what store_resize granted, for the store's whole life. */
	const void *(*store_map)(struct uhmm_store *store);
	/* Optional, host memory only: a new write-only descriptor for the agent, that
	 * cannot be reopened for reading by the program. The caller owns it. */
	int (*store_fd)(struct uhmm_store *store);

	/* Optional, both or none, for stores whose bytes outlive the daemon's process.
	 * Open a store that an earlier process had open when it ended. That process had
	 * made room for n_slots at least; their bytes are as they were last written, or
	 * the answer is an error: -ENOENT when there is no store of this name, -EPERM
	 * when what is there cannot have been made by store_open, -EPROTO when it has
	 * fewer slots. Default: -EOPNOTSUPP. */
	int (*store_reopen)(struct uhmm_tier *tier, const char *name, uint64_t n_slots,
			    struct uhmm_store **ret_store);
	/* Let go of a store as store_close does, but leave its bytes for store_reopen. */
	void (*store_leave)(struct uhmm_store *store);
};

typedef const struct uhmm_backend_ops *(*uhmm_backend_entry_fn)(void);
const struct uhmm_backend_ops *uhmm_backend_entry(void);

#ifdef __cplusplus
}
#endif
#endif
