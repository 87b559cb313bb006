/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `uhmm doctor`: the daemon as a service, where systemd runs and the units are installed.
 * Called by doctor.c on the only thread.
 */
#include "doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "unit.h"

#define STATE_BYTES 128

struct unit_state {
	char load[STATE_BYTES], active[STATE_BYTES], sub[STATE_BYTES], result[STATE_BYTES];
	char enabled[STATE_BYTES], restarts[STATE_BYTES], status[STATE_BYTES];
};

static bool unit_read(const char *name, struct unit_state *ret_state)
{
	const char *const show[] = { "show", "--property=LoadState,ActiveState,SubState,Result,"
					     "UnitFileState,NRestarts,StatusText",
				     "--", name, NULL };
	static char text[UNIT_TEXT_BYTES];

	if (unit_systemctl(show, text, sizeof(text)))
		return false;
	unit_property(text, "LoadState", ret_state->load, STATE_BYTES);
	unit_property(text, "ActiveState", ret_state->active, STATE_BYTES);
	unit_property(text, "SubState", ret_state->sub, STATE_BYTES);
	unit_property(text, "Result", ret_state->result, STATE_BYTES);
	unit_property(text, "UnitFileState", ret_state->enabled, STATE_BYTES);
	unit_property(text, "NRestarts", ret_state->restarts, STATE_BYTES);
	unit_property(text, "StatusText", ret_state->status, STATE_BYTES);
	return strcmp(ret_state->load, "not-found") != 0;
}

static void note_service(struct doctor *doctor, const struct unit_state *service,
			 bool socket_listens)
{
	static const char see[] = "see what `journalctl -u uhmmd` says, mend it, and `systemctl "
				  "restart uhmmd`";
	enum doctor_level level = doctor_level_for_daemon(doctor);

	if (!strcmp(service->load, "masked"))
		doctor_note(doctor, DOCTOR_WARN, "service", "systemctl unmask uhmmd",
			    "uhmmd.service is masked");
	else if (!strcmp(service->active, "failed"))
		doctor_note(doctor, level, "service", see, "uhmmd.service has failed (%s)",
			    service->result);
	else if (!strcmp(service->sub, "auto-restart"))
		doctor_note(doctor, level, "service", see,
			    "uhmmd.service ended (%s) and is being started again, for the %s. time",
			    service->result, service->restarts);
	else if (!strcmp(service->active, "inactive") && !socket_listens)
		doctor_note(doctor, DOCTOR_WARN, "service", "systemctl enable --now uhmmd",
			    "uhmmd.service does not run");
	else if (!strcmp(service->active, "inactive"))
		doctor_note(doctor, DOCTOR_OK, "service", NULL,
			    "uhmmd.service starts with the first program that connects");
	else if (strtoul(service->restarts, NULL, 10) > 0)
		doctor_note(doctor, DOCTOR_WARN, "service", see,
			    "uhmmd.service is %s, and had to be started again %s times",
			    service->active, service->restarts);
	else
		doctor_note(doctor, DOCTOR_OK, "service", NULL, "uhmmd.service is %s%s%s",
			    service->active, *service->status ? ": " : "", service->status);
}

static void note_boot(struct doctor *doctor, const struct unit_state *service)
{
	if (!strcmp(service->enabled, "disabled") && strcmp(service->active, "active") == 0)
		doctor_note(doctor, DOCTOR_WARN, "boot", "systemctl enable uhmmd",
			    "uhmmd.service is not started at boot");
}

void doctor_check_units(struct doctor *doctor)
{
	struct unit_state service = { .load = "" }, socket = { .load = "" };
	bool socket_listens;

	if (!unit_manager_runs() || !unit_read("uhmmd.service", &service))
		return;
	socket_listens = unit_read("uhmmd.socket", &socket) && !strcmp(socket.active, "active");
	note_service(doctor, &service, socket_listens);
	if (!strcmp(socket.active, "failed"))
		doctor_note(doctor, DOCTOR_WARN, "socket",
			    "mend uhmmd.service first, then `systemctl restart uhmmd.socket uhmmd`",
			    "uhmmd.socket was given up (%s)", socket.result);
	note_boot(doctor, &service);
}
