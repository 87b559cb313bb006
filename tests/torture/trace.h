/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the actors of a round did, as text. */
#ifndef UHMM_TORTURE_TRACE_H
#define UHMM_TORTURE_TRACE_H

/* Write the round's operations to a file in the working directory (else in /tmp), whose name
 * is returned in static memory; NULL: nowhere. */
const char *trace_write(void);
/* Read such a file: the control's seed, round and shape, and the scripts. Prints what is wrong;
 * a negative errno. */
int trace_read(const char *path);
/* After each control_reset of a replay. */
int trace_reread(const char *path);

#endif
