/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libuhmm asks of libuhmm-preload when a program has both, so that the process enrols
 * once: the preload owns the enrolment, and libuhmm finds this by a weak reference.
 */
#ifndef UHMM_LIBCLIENT_PRELOAD_H
#define UHMM_LIBCLIENT_PRELOAD_H

/* Enrol unless that is done: 0 or a negative errno. */
__attribute__((visibility("default"))) int uhmm_preload_enrol(const char *path);

#endif
