/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm doctor`: the parts of uhmm itself. Called by doctor.c on the only thread. It
 * looks for them as `uhmm run` does, through paths.c, so that both find the same.
 */
#include "doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "paths.h"

static void check_daemon(struct doctor *doctor)
{
	switch (-doctor->daemon_error) {
	case 0:
		doctor_note(doctor, DOCTOR_OK, "daemon", NULL, "one listens at %s", doctor->socket);
		break;
	case ENOENT:
	case ECONNREFUSED:
		if (doctor->root)
			doctor_note(doctor, DOCTOR_OK, "daemon", NULL,
				    "none at %s; `uhmm run` starts its own", doctor->socket);
		else
			doctor_note(doctor, DOCTOR_FAIL, "daemon",
				    "systemctl start uhmmd, or name its socket with --socket",
				    "none at %s, and only root can start one", doctor->socket);
		break;
	case EHOSTDOWN:
		doctor_note(doctor, DOCTOR_FAIL, "daemon",
			    "journalctl -u uhmmd, or the log of whoever started it",
			    "at %s: %s", doctor->socket, doctor->daemon_refusal);
		break;
	case ETIMEDOUT:
	case ECONNRESET:
		doctor_note(doctor, DOCTOR_FAIL, "daemon",
			    "journalctl -u uhmmd, or the log of whoever started it",
			    "%s is there, but nobody answers", doctor->socket);
		break;
	default:
		doctor_note(doctor, DOCTOR_FAIL, "daemon",
			    "ask for access to the socket, or use `uhmm run --private` as root",
			    "%s: %s", doctor->socket, strerror(-doctor->daemon_error));
	}
}

static void check_part(struct doctor *doctor, enum doctor_level missing, const char *name,
		       int (*find)(char out[static PATH_MAX]), const char *file)
{
	char path[PATH_MAX];
	int error = find(path);
	size_t length = strlen(path);

	if (!error && file) {
		snprintf(path + length, sizeof(path) - length, "/%s", file);
		error = access(path, R_OK) ? -errno : 0;
	}
	if (!error)
		doctor_note(doctor, DOCTOR_OK, name, NULL, "%s", path);
	else
		doctor_note(doctor, missing, name, "build or install all of uhmm", "%s: %s", path,
			    strerror(-error));
}

void doctor_check_parts(struct doctor *doctor)
{
	check_daemon(doctor);
	check_part(doctor, DOCTOR_FAIL, "preload", paths_find_preload, NULL);
	check_part(doctor, doctor_level_for_daemon(doctor), "uhmmd", paths_find_daemon, NULL);
	check_part(doctor, doctor_level_for_daemon(doctor), "ram-backend", paths_find_backends,
		   "ram.so");
}
