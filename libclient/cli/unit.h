/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Units of the service manager: what it says of them, and the drop-in that manages one. */
#ifndef UHMM_CLI_UNIT_H
#define UHMM_CLI_UNIT_H

#include <stdbool.h>
#include <stddef.h>

#define UNIT_NAME_BYTES 256u
#define UNIT_TEXT_BYTES 16384u

/* Does systemd run here, as process 1? */
bool unit_manager_runs(void);

/*
 * Run systemctl with these arguments (NULL at the end; without the program's own name). Returns
 * its exit status, or a negative errno; its output goes to `out`, cut to fit; NULL: it is
 * dropped. What it says of errors goes to stderr.
 */
int unit_systemctl(const char *const *arguments, char *out, size_t out_bytes);
/* The value of a line "Key=value" of `systemctl show`, copied; "" if there is none. */
const char *unit_property(const char *text, const char *key, char *out, size_t out_bytes);

/* A unit's full name: ".service" is added where no suffix is. -EINVAL: no service can have it. */
int unit_name(const char *given, char ret_name[static UNIT_NAME_BYTES]);

struct unit_place {
	const char *root; /* "" or the directory of a system that does not run */
	bool runtime;	  /* until the next boot */
};

/*
 * Is there such a unit, and can its programs be managed? The name becomes the unit's own if it
 * is an alias. Prints what stands in the way.
 */
int unit_check(const struct unit_place *place, char name[static UNIT_NAME_BYTES]);

/* Make an alias the unit's own name, if the manager knows it; else it stays. */
void unit_resolve(char name[static UNIT_NAME_BYTES]);

/* The drop-in's path. -ENAMETOOLONG. */
int unit_dropin_path(const struct unit_place *place, const char *name, char *out,
		     size_t out_bytes);
/* Put it there as a whole; makes directories. Says nothing. */
int unit_dropin_write(const char *path, const char *text);
/* -ENOENT: there was none. Removes its directory if that is empty. Says nothing. */
int unit_dropin_remove(const char *path);

#endif
