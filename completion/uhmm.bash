# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Completion of `uhmm` for bash. It stands on nothing but bash; with the package
# bash-completion installed, it is loaded at the first `uhmm <TAB>`.

# Words that may follow, of those given.
_uhmm_offer() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

# Process ids that the daemon manages.
_uhmm_pids() {
	uhmm status 2>/dev/null </dev/null | awk '$1 ~ /^[0-9]+$/ { print $1 }'
}

# Services, and for `disable` those that were enabled.
_uhmm_units() {
	local file

	if [ "$1" = disable ]; then
		for file in {/etc,/run}/systemd/system/*.d/50-uhmm.conf; do
			[ -e "$file" ] || continue
			file=${file%.d/50-uhmm.conf}
			echo "${file##*/}"
		done
	else
		systemctl list-unit-files --type=service --no-legend --no-pager 2>/dev/null |
			awk '{ print $1 }'
	fi
}

# The command after the options of `uhmm run`, completed as if it stood alone.
_uhmm_command() {
	local at=$1

	if [ "$COMP_CWORD" -gt "$at" ] && declare -F _command_offset >/dev/null; then
		_command_offset "$at"
	elif [ "$COMP_CWORD" -gt "$at" ]; then
		mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
	else
		mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
	fi
}

# Where the command of `uhmm run` is or will be; empty: an option, or its value, is being typed.
_uhmm_command_at() {
	local i

	for ((i = 2; i <= COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--)
			[ $i -lt "$COMP_CWORD" ] && echo $((i + 1))
			return
			;;
		--host-ram | --backend | --socket | --report) i=$((i + 1)) ;;
		-*) ;;
		*)
			echo $i
			return
			;;
		esac
	done
}

_uhmm_run() {
	local current=$1 at

	at=$(_uhmm_command_at)
	if [ -n "$at" ]; then
		_uhmm_command "$at"
	else
		_uhmm_offer "--host-ram --backend --socket --private --report --progress --verbose
			--help --" "$current"
	fi
}

_uhmm() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]}

	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		_uhmm_offer "run status evict restore core tiers enable disable doctor version help" \
			"$current"
		return
	fi
	case $previous in
	--socket | --report)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--root)
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	--host-ram)
		_uhmm_offer "64M 256M 512M 1G 2G 4G" "$current"
		return
		;;
	--backend)
		_uhmm_offer "ram" "$current"
		return
		;;
	esac
	case $command in
	run) _uhmm_run "$current" ;;
	status) _uhmm_offer "$(_uhmm_pids) --maps --json --socket --help" "$current" ;;
	tiers | doctor) _uhmm_offer "--json --socket --help" "$current" ;;
	evict)
		if [ "$COMP_CWORD" = 3 ]; then
			_uhmm_offer "all --json --socket" "$current"
		else
			_uhmm_offer "$(_uhmm_pids) --json --socket --help" "$current"
		fi
		;;
	core)
		_uhmm_offer "$(_uhmm_pids) --socket --help" "$current"
		[ "$COMP_CWORD" != 3 ] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
		;;
	restore) _uhmm_offer "$(_uhmm_pids) --hold --release --json --socket --help" "$current" ;;
	enable)
		_uhmm_offer "$(_uhmm_units enable) --host-ram --socket --runtime --root --help" \
			"$current"
		;;
	disable) _uhmm_offer "$(_uhmm_units disable) --runtime --root --help" "$current" ;;
	help)
		_uhmm_offer "run status evict restore core tiers enable disable doctor version help" \
			"$current"
		;;
	esac
}

complete -F _uhmm uhmm
