# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# What the tests of real programs share beside the integration tests' lib.sh: run something
# without uhmm and see how much memory it takes, then with uhmm in a quarter of that.
. "$(dirname "${BASH_SOURCE[0]}")/../integration/lib.sh"

# measure CMD ARGS...: without uhmm. Its output is in plain.out, its status in PLAIN; PEAK is
# what it and its children had in host RAM together, bytes.
measure() {
	local command

	(
		status=0
		"$@" >"$WORK/plain.out" 2>"$WORK/plain.err" </dev/null || status=$?
		exit "$status"
	) &
	command=$!
	STARTED+=("$command")
	python3 "$HERE/sample_tree.py" "$command" >"$WORK/peak" || fail "nothing was measured"
	PLAIN=0
	wait "$command" || PLAIN=$?
	PEAK=$(cat "$WORK/peak")
}

# same_in_a_quarter MIN_EVICTED CMD ARGS...: the same status and the same bytes on stdout in a
# quarter of the memory that it took without uhmm; at least MIN_EVICTED pages left for it, and
# half as many came home, so that the test cannot pass by doing nothing.
same_in_a_quarter() {
	local min_evicted=$1 began=$SECONDS plain_sec

	shift
	measure "$@"
	plain_sec=$((SECONDS - began))
	began=$SECONDS
	HOST_RAM=$((PEAK / 4)) same_managed "$PLAIN" "$@"
	tell_figures "$plain_sec" $((SECONDS - began))
	check_report "pages_evicted >= $min_evicted" "pages_returned >= $min_evicted / 2"
}

# tell_figures PLAIN_SEC MANAGED_SEC: of the last managed run.
tell_figures() {
	python3 - "$WORK/report.json" "$PEAK" "$@" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
peak, plain_sec, managed_sec = map(int, sys.argv[2:])
print(f"host RAM {peak >> 20} MiB in {plain_sec} s without uhmm;"
      f" {report['host_bytes_peak'] >> 20} MiB in {managed_sec} s with it,"
      f" target {report['host_bytes_target'] >> 20} MiB;"
      f" {report['pages_evicted']} pages out, {report['pages_returned']} home,"
      f" {report['faults']} faults, {report['lost_pages']} lost")
PYTHON
}
