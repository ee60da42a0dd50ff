//! The path MTU of a client behind a router with a smaller one: the router's word (ICMP) is addressed to the VIP, and
//! has to reach the node and pod that the packet came from.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::Capture;
use lightship_e2e::scene::Wish;
use lightship_e2e::vip;
use lightship_lab::substrate::{CLIENT_NETNS, LAB_NETNS, LAN_BRIDGE};
use lightship_lab::{Lab, sh};

use crate::common::Served;

/// Namespace of a host behind a router: the client, whose link to it has a small MTU.
const FAR: &str = "ls-far";
const FAR_V4: &str = "203.0.113.250";
const FAR_V6: &str = "2001:db8:fa::2";
/// Bytes of an answer that a frame on the LAN carries, and the link of the far host does not.
const DATAGRAM: usize = 1400;

/// A reply that is too long for the way to the client is sent again in smaller pieces. TCP's connections have an
/// entry in the director; datagrams have none, and a word about one follows its flow's hash.
pub(crate) fn path_mtu(lab: &mut Lab) -> Result<()> {
    far_begin(lab)?;
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("path-mtu")
    };
    let outcome = Served::during(lab, &wish, |lab, vips| {
        for address in vips {
            let of_tcp = sent_on(lab, *address, downloads)?;
            let of_udp = sent_on(lab, *address, datagrams)?;
            eprintln!(
                "    {address}: {of_tcp} of the router's messages sent on by the director for TCP, {of_udp} for UDP"
            );
        }
        Ok(())
    });
    outcome.and(far_end(lab))
}

/// How many of the router's messages to an address its director sent on meanwhile: at least one, as the owner's own share,
/// which nobody else sees, is a third of the flows.
fn sent_on(
    lab: &Lab,
    address: IpAddr,
    during: impl FnOnce(&Lab, IpAddr) -> Result<()>,
) -> Result<usize> {
    let found = vip::find(lab, address)?.context("no VirtualIP")?;
    let kind = match address {
        IpAddr::V4(_) => "icmp[0] = 3 and icmp[1] = 4",
        IpAddr::V6(_) => "icmp6 and ip6[40] = 2",
    };
    let filter = format!("dst host {address} and {kind}");
    let capture = Capture::start(LAB_NETNS, LAN_BRIDGE, &filter)?;
    let outcome = during(lab, address);
    let frames = capture.end()?;
    outcome.with_context(|| format!("what the router said: {frames:#?}"))?;
    let by_director = frames.iter().filter(|f| f.starts_with(&found.mac)).count();
    ensure!(by_director > 0, "none was sent on: {frames:#?}");
    Ok(by_director)
}

/// Eight downloads, each of which starts with pieces that are too long.
fn downloads(lab: &Lab, address: IpAddr) -> Result<()> {
    let url = match address {
        IpAddr::V4(v4) => format!("http://{v4}:80/bytes/200000"),
        IpAddr::V6(v6) => format!("http://[{v6}]:80/bytes/200000"),
    };
    let mut got = Vec::new();
    for _ in 0..8 {
        let mut curl = sh::command(&["ip", "netns", "exec", FAR, "curl", "-s", "-g"]);
        curl.args(["-m", "8", "-o", "/dev/null", "-w", "%{size_download}", &url]);
        let output = sh::output(curl, None)?;
        got.push(String::from_utf8_lossy(&output.stdout).into_owned());
        forget(lab)?;
    }
    ensure!(got.iter().all(|bytes| bytes == "200000"), "{got:?}");
    Ok(())
}

/// From each of eight ports, answers that are too long until their sender knows. The first is lost, and no later one
/// of the same flow: the pod, by then, cuts them.
fn datagrams(lab: &Lab, address: IpAddr) -> Result<()> {
    for _ in 0..8 {
        forget(lab)?;
        let script = format!(
            "exec 3<>/dev/udp/{address}/80; for i in 1 2 3; do echo {DATAGRAM} >&3; \
             timeout 0.7 dd bs=9000 count=1 <&3 2>/dev/null | wc -c; done"
        );
        let mut ask = sh::command(&["ip", "netns", "exec", FAR, "bash", "-c"]);
        ask.arg(&script);
        let output = sh::output(ask, None)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let got: Vec<&str> = said.split_whitespace().collect();
        let whole = DATAGRAM.to_string();
        ensure!(
            got == ["0", &*whole, &*whole],
            "bytes of three answers: {got:?}"
        );
    }
    Ok(())
}

/// What nodes and pods learnt would spare them the next message.
fn forget(lab: &Lab) -> Result<()> {
    const SCRIPT: &str = "for n in '' $(ls /run/netns); do \
        ip ${n:+-n $n} route flush cache; ip ${n:+-n $n} -6 route flush cache; done";
    for node in lab.node_names() {
        lab.exec(&node, &["sh", "-c", SCRIPT])?;
    }
    Ok(())
}

/// Routes on the nodes: the far host is behind the client.
fn far_routes(lab: &Lab, what: &str) -> Result<()> {
    for node in lab.node_names() {
        let line = format!(
            "ip route {what} {FAR_V4}/32 via 192.0.2.100; ip -6 route {what} {FAR_V6}/128 via 2001:db8:2::100"
        );
        lab.exec(&node, &["sh", "-c", &line])?;
    }
    Ok(())
}

fn far_begin(lab: &Lab) -> Result<()> {
    let _ = far_end(lab);
    for line in [
        format!("netns add {FAR}"),
        format!("-n {CLIENT_NETNS} link add far0 type veth peer name eth0 netns {FAR}"),
        format!("-n {CLIENT_NETNS} link set far0 mtu 1300 up"),
        format!("-n {CLIENT_NETNS} address add 203.0.113.249/30 dev far0"),
        format!("-n {CLIENT_NETNS} address add 2001:db8:fa::1/64 dev far0 nodad"),
        format!("-n {FAR} link set lo up"),
        format!("-n {FAR} link set eth0 up"),
        format!("-n {FAR} address add {FAR_V4}/30 dev eth0"),
        format!("-n {FAR} address add {FAR_V6}/64 dev eth0 nodad"),
        format!("-n {FAR} route add default via 203.0.113.249"),
        format!("-n {FAR} -6 route add default via 2001:db8:fa::1"),
    ] {
        sh::ip(&line)?;
    }
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    lab.client(&["sh", "-c", forward])?;
    far_routes(lab, "replace")
}

fn far_end(lab: &Lab) -> Result<()> {
    far_routes(lab, "del")?;
    let stop = "echo 0 > /proc/sys/net/ipv4/ip_forward; \
        echo 0 > /proc/sys/net/ipv6/conf/all/forwarding; ip link del far0 2>/dev/null";
    lab.client(&["sh", "-c", stop])?;
    let mut delete = sh::command(&["ip", "netns", "delete", FAR]);
    delete.env("LC_ALL", "C");
    sh::output(delete, None).map(drop)
}
