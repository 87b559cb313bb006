/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the daemon tells about itself, as JSON. On the control thread. */
#ifndef UHMMD_STATUS_H
#define UHMMD_STATUS_H

#include "space.h"

/* Heap strings; NULL without memory. Spaces of other users are left out unless uid is 0. */
char *status_json(const struct daemon_env *env, uid_t uid);
char *status_tiers_json(const struct daemon_env *env);
char *status_maps_json(const struct daemon_env *env, const struct survey *survey);
char *status_report_json(const struct daemon_env *env, const struct group *group);

#endif
