# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# What the test scripts share; sourced by each. It sets UHMM, UHMMD, HERE (this
# folder), PROGS (the compiled programs) and WORK (removed at the end), and ends what
# a test started. A test ends by `fail` (1), `skip` (77) or by reaching its end.
set -euo pipefail
export LC_ALL=C

: "${UHMM_BIN:?set it to the folder of the built programs, as ctest does}"
UHMM_BIN=$(cd "$UHMM_BIN" && pwd)
UHMM=$UHMM_BIN/uhmm
UHMMD=$UHMM_BIN/uhmmd
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROGS=${UHMM_PROGS:-$UHMM_BIN/../tests/integration}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/uhmm-test.XXXXXX")
SHM=$(mktemp -d /dev/shm/uhmm-test.XXXXXX) # what a daemon keeps must lie on a tmpfs
STARTED=()
unset UHMM_SOCKET UHMM_QUIET UHMM_OPTIONAL LD_PRELOAD

finish() {
	local status=$?

	for pid in "${STARTED[@]}"; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
	done
	rm -rf "$WORK" "$SHM"
	exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT

fail() {
	echo "FAIL: $*" >&2
	for file in "$WORK"/*.err "$WORK"/*.log; do
		[ -s "$file" ] && sed "s|^|${file##*/}: |" <(tail -n 20 "$file") >&2
	done
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

need_uffd() {
	[ "$(id -u)" = 0 ] || skip "needs root: run the tests with sudo"
	[ -r /dev/userfaultfd ] ||
		skip "no /dev/userfaultfd: needs Linux 6.1 or later with CONFIG_USERFAULTFD"
}

need_program() {
	command -v "$1" >/dev/null || skip "no $1: apt-get install $2"
}

# report FIELD: of the last managed run.
report() {
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
		"$WORK/report.json" "$1"
}

# check_report EXPRESSION...: each a Python expression over the report's fields.
check_report() {
	python3 - "$WORK/report.json" "$@" <<'PYTHON' || fail "the report is not as it must be"
import json, sys
report = json.load(open(sys.argv[1]))
for expression in sys.argv[2:]:
    if not eval(expression, {}, report):
        print("not so:", expression, "in", report, file=sys.stderr)
        sys.exit(1)
PYTHON
}

# managed CMD ARGS...: under a daemon of its own; HOST_RAM is the target.
managed() {
	"$UHMM" run --private --host-ram "${HOST_RAM:-16M}" --report "$WORK/report.json" -- "$@"
}

# The preload says in one line when it leaves a program unmanaged.
check_was_managed() {
	if grep '^uhmm: ' "$WORK/managed.err" >&2; then
		fail "something was not managed"
	fi
}

# same_managed STATUS CMD ARGS...: managed, it ends with STATUS and prints what is in plain.out;
# and no page is lost.
same_managed() {
	local plain=$1 managed=0

	shift
	managed "$@" >"$WORK/managed.out" 2>"$WORK/managed.err" </dev/null || managed=$?
	[ "$plain" = "$managed" ] || fail "status $plain without uhmm, $managed with it: $*"
	cmp "$WORK/plain.out" "$WORK/managed.out" >&2 || fail "other output than without uhmm: $*"
	check_was_managed
	check_report "lost_pages == 0" "exit_status == $plain"
}

# same_as_plain CMD ARGS...: the same status and the same bytes on stdout, with and
# without uhmm; and no page lost.
same_as_plain() {
	local plain=0

	"$@" >"$WORK/plain.out" 2>"$WORK/plain.err" </dev/null || plain=$?
	same_managed "$plain" "$@"
}

# listens: does somebody listen at $SOCKET? (its name is there a moment before)
listens() {
	grep -q " 00010000 .* $SOCKET\$" /proc/net/unix
}

# start_daemon ARGS...: on $SOCKET, log in $WORK/daemon.log.
start_daemon() {
	SOCKET=$WORK/uhmm.sock
	mkdir -p -m 700 "$SHM/state" "$SHM/pages"
	"$UHMMD" --socket "$SOCKET" --state-dir "$SHM/state" --pages-dir "$SHM/pages" "$@" 2>"$WORK/daemon.log" &
	DAEMON=$!
	STARTED+=("$DAEMON")
	for _ in $(seq 100); do
		listens && return
		kill -0 "$DAEMON" 2>/dev/null || fail "uhmmd ended at its start"
		sleep 0.05
	done
	fail "uhmmd does not listen"
}
