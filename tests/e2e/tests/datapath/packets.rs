//! What happens to single packets: who answers a ping, TTL, fragments.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::Capture;
use lightship_e2e::scene::Wish;
use lightship_e2e::{director, vip};
use lightship_lab::substrate::{LAB_NETNS, LAN_BRIDGE};
use lightship_lab::{Lab, sh};

use crate::beside::off_lan::CLIENT;
use crate::common::Served;

fn dual(name: &str) -> Wish<'_> {
    Wish {
        dual_stack: true,
        ..Wish::local(name)
    }
}

/// The MAC addresses in the first column of a capture: the senders.
fn senders(frames: &[String]) -> BTreeSet<&str> {
    let first = frames.iter().filter_map(|f| f.split_whitespace().next());
    first.collect()
}

/// The owner's director itself answers, small and in fragments; and its speaker answers who asks by ARP
/// without an address of its own.
pub(crate) fn ping(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &dual("ping"), |lab, vips| {
        arp_probe(
            vips[0],
            &vip::find(lab, vips[0])?.context("no VirtualIP")?.mac,
        )?;
        nameless_question(lab, vips[0])?;
        for address in vips {
            let mac = vip::find(lab, *address)?.context("no VirtualIP")?.mac;
            let filter = match address {
                IpAddr::V4(_) => format!("src host {address} and ip proto 1"),
                // Fragments, or ICMPv6 itself.
                IpAddr::V6(_) => format!("src host {address} and (icmp6 or ip6[6] = 44)"),
            };
            for size in ["56", "3000"] {
                let capture = Capture::start(LAB_NETNS, LAN_BRIDGE, &filter)?;
                let text = address.to_string();
                let output = lab.client(&[
                    "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, &text,
                ])?;
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                ensure!(
                    said.contains("3 received"),
                    "{address}, {size} bytes: {said}"
                );
                thread::sleep(Duration::from_millis(200));
                let frames = capture.end()?;
                ensure!(
                    senders(&frames) == BTreeSet::from([&*mac]),
                    "not {mac} alone answered: {frames:#?}"
                );
            }
        }
        Ok(())
    })
}

/// A director that has to find a client asks by ARP without a sender: one that named a VIP would take it away from
/// its owner in the caches of all who hear it.
fn nameless_question(lab: &Lab, address: IpAddr) -> Result<()> {
    let found = vip::find(lab, address)?.context("no VirtualIP")?;
    let owner = found.owner.context("no owner")?;
    let forget = ["ip", "neigh", "flush", "to", CLIENT];
    director::run(lab, &owner, &forget)?;
    let filter = format!("arp and ether src {}", found.mac);
    let capture = Capture::start(LAB_NETNS, LAN_BRIDGE, &filter)?;
    lab.client(&["ping", "-n", "-c", "1", "-W", "2", &address.to_string()])?;
    thread::sleep(Duration::from_millis(200));
    let frames = capture.end()?;
    let asked = format!("who-has {CLIENT} ");
    let mut questions = frames.iter().filter(|frame| frame.contains(&asked));
    let nameless = |frame: &String| frame.contains(&format!("{asked}tell 0.0.0.0"));
    ensure!(
        questions.clone().count() > 0 && questions.all(nameless),
        "not asked without a sender: {frames:#?}"
    );
    Ok(())
}

/// Namespace of a host on the LAN that has no address.
const NAMELESS: &str = "ls-nameless";

/// A host that has no address yet asks for the VIP with the sender 0.0.0.0 (RFC 5227, section 2.1.1), as one
/// does that wants to take it. The answer is what keeps it off.
fn arp_probe(address: IpAddr, mac: &str) -> Result<()> {
    let nobody = "192.0.2.181";
    let _ = nameless_end();
    let outcome = (|| -> Result<()> {
        for line in [
            format!("netns add {NAMELESS}"),
            format!("-n {LAB_NETNS} link add nameless type veth peer name eth0 netns {NAMELESS}"),
            format!("-n {LAB_NETNS} link set nameless master {LAN_BRIDGE} up"),
            format!("-n {NAMELESS} link set eth0 up"),
            format!("-n {NAMELESS} link set lo up"),
            format!("-n {NAMELESS} route add local {nobody} dev lo table local"),
            format!("-n {NAMELESS} route add {address}/32 dev eth0 src {nobody}"),
        ] {
            sh::ip(&line)?;
        }
        let capture = Capture::start(NAMELESS, "eth0", &format!("arp and host {address}"))?;
        // It has a source for packets, and on the interface no address that it could name as the sender.
        let script = format!(
            "echo 2 > /proc/sys/net/ipv4/conf/eth0/arp_announce; echo > /dev/udp/{address}/9"
        );
        sh::output(
            sh::command(&["ip", "netns", "exec", NAMELESS, "bash", "-c", &script]),
            None,
        )?;
        thread::sleep(Duration::from_millis(500));
        let frames = capture.end()?;
        let asked = format!("who-has {address} tell 0.0.0.0");
        let answered = format!("{address} is-at {mac}");
        ensure!(
            frames.iter().any(|frame| frame.contains(&asked)),
            "nobody asked {asked:?}: {frames:#?}"
        );
        ensure!(
            frames
                .iter()
                .any(|frame| frame.starts_with(mac) && frame.contains(&answered)),
            "{mac} did not answer: {frames:#?}"
        );
        Ok(())
    })();
    outcome.and(nameless_end())
}

fn nameless_end() -> Result<()> {
    sh::ip(&format!("netns delete {NAMELESS}"))
}

/// A director sends a packet on with a TTL one lower, and puts fragments together to see the ports.
pub(crate) fn forwarded(lab: &mut Lab) -> Result<()> {
    const DATAGRAMS: usize = 12;
    Served::during(lab, &dual("forwarded"), |lab, vips| {
        for address in vips {
            let found = vip::find(lab, *address)?.context("no VirtualIP")?;
            let (ttl, fragment) = match address {
                IpAddr::V4(_) => ("ip[8]", "ip[6:2] & 0x3fff != 0"),
                IpAddr::V6(_) => ("ip6[7]", "ip6[6] = 44"),
            };
            // Not the client's ICMP errors, whose socket is closed when the answer comes.
            let kind = match address {
                IpAddr::V4(_) => "ip proto 17",
                IpAddr::V6(_) => fragment,
            };
            let sent_on = format!("ether src {} and dst host {address} and {kind}", found.mac);
            let lower =
                Capture::start(LAB_NETNS, LAN_BRIDGE, &format!("{sent_on} and {ttl} = 63"))?;
            let other =
                Capture::start(LAB_NETNS, LAN_BRIDGE, &format!("{sent_on} and {ttl} != 63"))?;
            let parts =
                Capture::start(LAB_NETNS, LAN_BRIDGE, &format!("{sent_on} and {fragment}"))?;
            let from = format!("src host {address} and udp");
            let answers = Capture::start(LAB_NETNS, LAN_BRIDGE, &from)?;
            // Each from a port of its own, and longer than two frames.
            let script = format!(
                "for i in $(seq {DATAGRAMS}); do \
                 head -c 3500 /dev/zero | tr '\\0' x > /dev/udp/{address}/80; sleep 0.05; done"
            );
            lab.client(&["bash", "-c", &script])?;
            thread::sleep(Duration::from_millis(500));
            let (lower, other) = (lower.end()?, other.end()?);
            let (parts, answers) = (parts.end()?, answers.end()?);
            eprintln!(
                "    {address}: {} frames sent on, {} of them fragments; {} answers by {} nodes",
                lower.len(),
                parts.len(),
                answers.len(),
                senders(&answers).len()
            );
            ensure!(other.is_empty(), "another TTL than 63: {other:#?}");
            // The owner's own share goes by the veth pair and is not seen here.
            ensure!(!parts.is_empty() && parts.len() % 3 == 0, "{parts:#?}");
            ensure!(parts.len() == lower.len(), "{lower:#?}");
            ensure!(
                answers.len() == DATAGRAMS,
                "{} of {DATAGRAMS} were answered: {answers:#?}",
                answers.len()
            );
        }
        Ok(())
    })
}
