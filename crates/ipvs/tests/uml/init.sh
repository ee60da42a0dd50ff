#!/bin/sh
# First process of the guest that run.sh boots. $dir, $job and $arg come from
# the kernel's command line. hostfs writes to the host's real files, so all
# that is written lies in $dir.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs "$dir/tmpfs"

modules=$dir/tmpfs/root/lib/modules
mkdir -p "$modules"
ln -s "/usr/lib/uml/modules/$(uname -r)" "$modules/"
{
    for module in dummy nlmon ip_vs ip_vs_mh ip_vs_rr ip_vs_wlc ip_vs_pe_sip; do
        modprobe -d "$dir/tmpfs/root" "$module"
    done
    ip link set lo up
    sh "$job" "$arg"
    echo $? >"$dir/tmpfs/exit"
} >"$dir/output" 2>&1
cp "$dir/tmpfs/exit" "$dir/exit"
sync
poweroff -f
