#!/bin/sh
# Prints the netlink messages that ipvsadm and the kernel exchange, in the
# format of tests/fixtures/ipvsadm.txt. To write that file anew:
#
#   tests/uml/run.sh tests/uml/capture.sh > tests/fixtures/ipvsadm.txt
#
# Each ipvsadm command is followed by one line of hex per datagram, in order;
# requests carry the request flag. nlmon sees both directions.
set -eu

cap=$dir/tmpfs/cap.pcap
log=$dir/tmpfs/tcpdump.log
commands=$dir/tmpfs/commands

ip link add nlmon0 type nlmon
ip link set nlmon0 up
tcpdump -Z root -B 16384 --immediate-mode -q -U -i nlmon0 -w "$cap" 2>"$log" &
capture=$!
until grep -qs listening "$log"; do
    kill -0 "$capture" || { cat "$log"; exit 1; }
    sleep 0.05
done

# Notes the process id, which libnl makes the lower bits of its netlink ports.
run() {
    ipvsadm "$@" >/dev/null 2>&1 &
    pid=$!
    status=0
    wait "$pid" || status=$?
    echo "$pid $status $*" >>"$commands"
}

run -A -t 192.0.2.200:443 -s mh -b mh-fallback,mh-port
run -a -t 192.0.2.200:443 -r 192.0.2.11:443 -g -w 1
run -a -t 192.0.2.200:443 -r 192.0.2.12:443 -g -w 1
run -a -t 192.0.2.200:443 -r 192.0.2.13:443 -g -w 1
run -e -t 192.0.2.200:443 -r 192.0.2.12:443 -g -w 0
run -E -t 192.0.2.200:443 -s mh -b mh-fallback

run -A -t '[2001:db8:2::200]:443' -s mh -b mh-fallback,mh-port
run -a -t '[2001:db8:2::200]:443' -r '[2001:db8:2::11]:443' -g -w 1

run -A -u 192.0.2.200:53 -s mh -b mh-fallback,mh-port -o
run -a -u 192.0.2.200:53 -r 192.0.2.11:53 -m -w 3 -x 100 -y 50

run -A --sctp-service 192.0.2.200:132 -s rr
run -a --sctp-service 192.0.2.200:132 -r 192.0.2.11:132 -i -w 1
run -a --sctp-service 192.0.2.200:132 -r 192.0.2.12:132 -i --tun-type gue --tun-port 6080 -w 1
run -a --sctp-service 192.0.2.200:132 -r 192.0.2.13:132 -i --tun-type gre --tun-csum -w 1

run -A -f 7 -s mh -b mh-fallback
run -a -f 7 -r 192.0.2.11:0 -g -w 1
run -A -f 8 -6 -s mh -b mh-fallback
run -a -f 8 -6 -r '[2001:db8:2::11]:0' -g -w 1

run -A -t 192.0.2.201:80 -s wlc -p 600 -M 255.255.255.0
run -A -t '[2001:db8:2::201]:80' -s wlc -p 600 -M 64
run -A -u 192.0.2.201:5060 -s wlc -p 60 --pe sip -o

run -L -n
run -L --timeout
run --set 3600 61 62
run -Z -t 192.0.2.200:443
run -Z
run -d -t 192.0.2.200:443 -r 192.0.2.13:443
run -d -t '[2001:db8:2::200]:443' -r '[2001:db8:2::11]:443'
run -D -t '[2001:db8:2::200]:443'
run -D -f 8 -6
run -C

# Refusals.
run -A -t 192.0.2.200:443 -s nonesuch
run -D -t 192.0.2.200:443
run -a -t 192.0.2.200:443 -r 192.0.2.11:443 -g -w 1

sleep 1
kill -INT "$capture"
wait "$capture" || true
grep -q "^0 packets dropped" "$log" || { cat "$log"; exit 1; }

echo "# Captured by tests/uml/capture.sh on Linux $(uname -r),"
echo "# $(ipvsadm --version | head -n 1)"
# What every command begins with, asking nlctrl (type 16) for the family and
# IPVS for its version (command 15), is shown for the first command only. A
# packet of the capture is a 16-byte record header, a 16-byte cooked link
# header, and the datagram.
perl -e '
    use strict;
    my ($commands, $cap) = @ARGV;
    open my $file, "<:raw", $cap or die; local $/; my $rest = substr <$file>, 24;
    my (%datagrams, %preamble);
    while (length $rest) {
        my $len = unpack "x8 V", $rest;
        my $datagram = substr $rest, 32, $len - 16;
        $rest = substr $rest, 16 + $len;
        my ($type, $flags, $request, $cmd) = unpack "x4 v v a8 C", $datagram;
        my $pid = unpack("x4 V", $request) & 0x3fffff;
        $preamble{$request} = ($type == 16 || $cmd == 15) if $flags & 1;
        push @{$datagrams{$pid}}, [$preamble{$request}, unpack "H*", $datagram];
    }
    $/ = "\n"; open $file, "<", $commands or die;
    my $first = 1;
    while (<$file>) {
        chomp; my ($pid, $status, $command) = split / /, $_, 3;
        print "\n\$ ipvsadm $command\n";
        print "# exit status $status\n" if $status;
        for (@{$datagrams{$pid}}) { print "$_->[1]\n" if $first or not $_->[0] }
        $first = 0;
    }' "$commands" "$cap"
