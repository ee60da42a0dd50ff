#!/bin/sh
# Builds tests/live.rs and runs it in a kernel that has ip_vs; see run.sh.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary=$(cargo test --package lightship-ipvs --test live --no-run 2>&1 |
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -n "$binary" ] || { echo "live.sh: the test does not build" >&2; exit 1; }
exec "$here/run.sh" "$here/live-guest.sh" "$(realpath "$binary")"
