#!/bin/sh
# Runs a script inside a kernel that has ip_vs: one User Mode Linux process over
# this machine's own files. Needs Debian's user-mode-linux, kmod, iproute2,
# ipvsadm; root is not needed by UML itself, but its files must be writable.
#
#   run.sh SCRIPT [ARG]      prints what the script prints; exits as it exits
#
# Nothing outside a temporary directory is written, and the script is told it
# as $dir. On a CPU with AMX, UML 6.1 cannot restore registers unless ptrace is
# wrapped: name such a library in UML_PRELOAD.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
job=$(realpath "$1")
dir=$(mktemp -d "${TMPDIR:-/tmp}/ipvs-uml.XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tmpfs"

# Words of the form name=value that the kernel does not know reach init's
# environment. A guest that hangs is ended after five minutes.
LD_PRELOAD=${UML_PRELOAD:-} timeout "${UML_TIMEOUT:-300}" linux.uml "mem=${UML_MEM:-1G}" \
    "uml_dir=$dir" umid=guest rootfstype=hostfs rootflags=/ rw \
    "init=$here/init.sh" "dir=$dir" "job=$job" "arg=${2:-}" \
    con=null con0=fd:0,fd:1 quiet </dev/null >"$dir/console" 2>&1 || true

if [ ! -e "$dir/exit" ]; then
    cat "$dir/console" >&2
    echo "run.sh: the guest did not finish" >&2
    exit 1
fi
cat "$dir/output"
exit "$(cat "$dir/exit")"
