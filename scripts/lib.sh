# SPDX-License-Identifier: BSD-3-Clause
# Sourced by the scripts beside it: packages and builds.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() {
	printf '[%s] %s\n' "$1" "$2" >&2
}

# packages_of SECTION...: names from packages.txt
packages_of() {
	local section want=" $* "
	while read -r line; do
		case "$line" in
		"" | "#"*) ;;
		"["*"]") section=${line#[} section=${section%]} ;;
		*) case "$want" in *" $section "*) echo "$line" ;; esac ;;
		esac
	done <"$top/scripts/packages.txt"
}

# ensure_packages SECTION...: installs what is missing; needs root for that only.
ensure_packages() {
	local missing=() name
	for name in $(packages_of "$@"); do
		dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q "ok installed" ||
			missing+=("$name")
	done
	[ ${#missing[@]} -eq 0 ] && return 0
	if [ "$(id -u)" -ne 0 ]; then
		say fail "missing packages: ${missing[*]} (run as root, or install them)"
		return 1
	fi
	say .. "installing ${#missing[@]} packages: ${missing[*]}"
	local log
	log=$(mktemp)
	# A package that starts a service (nginx, prometheus) must not do so here: policy-rc.d is the Debian way.
	local policy=/usr/sbin/policy-rc.d made=
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1
	fi
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
		--no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
		[ -n "$made" ] && rm -f $policy
		tail -n 20 "$log" >&2
		rm -f "$log"
		say fail "packages could not be installed"
		return 1
	fi
	[ -n "$made" ] && rm -f $policy
	rm -f "$log"
	say ok "packages installed"
}

# build_into DIR [meson options...]: configures once, builds, prints only what goes wrong.
build_into() {
	local dir=$1 log
	shift
	log=$(mktemp)
	if { [ -f "$dir/build.ninja" ] || meson setup "$dir" "$top" "$@"; } >"$log" 2>&1 &&
		ninja -C "$dir" >>"$log" 2>&1; then
		rm -f "$log"
		return 0
	fi
	grep -E 'error:|FAILED:|ERROR|undefined reference' -A3 "$log" | cut -c1-300 | head -n 60 >&2
	tail -n 5 "$log" >&2
	rm -f "$log"
	say fail "build in $dir failed"
	return 1
}
