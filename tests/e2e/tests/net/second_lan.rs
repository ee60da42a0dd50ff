//! VIPs of a second LAN, on further uplinks of the nodes.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::{Capture, who_answers_on};
use lightship_e2e::probe::{self, Probe, Stream};
use lightship_e2e::scene;
use lightship_e2e::second_lan::{self, ADDRESSES, POOL, SecondLan};
use lightship_e2e::vip::{self, Vip};
use lightship_lab::substrate::CLIENT_NETNS;
use lightship_lab::{How, Lab, sh};

const NAME: &str = "second-lan";
const LIMIT: Duration = Duration::from_secs(20);

/// Longest time without answers that is let pass when a carrier is lost, in milliseconds, on a machine
/// that has other work.
const OUTAGE: f64 = 2000.0;

/// VIPs of both families are announced on the LAN that they are addresses of, and nowhere else; another
/// node takes them over when the owner loses its carrier there, is asked to hand them over, or crashes.
pub(crate) fn announced(lab: &mut Lab) -> Result<()> {
    let second = SecondLan::create(lab)?;
    // Nothing of them is ever said on the nodes' own LAN.
    let filter = format!(
        "(arp and host {}) or (icmp6 and ip6[40] = 136 and not src net 2001:db8:2::/64)",
        ADDRESSES[0]
    );
    let outcome = second_lan::service(lab, NAME).and_then(|()| {
        let quiet = Capture::start(CLIENT_NETNS, "eth0", &filter)?;
        all(lab, &second)?;
        let said = quiet.end()?;
        let said: Vec<_> = said.iter().filter(|f| names(f)).collect();
        ensure!(said.is_empty(), "said on the nodes' own LAN: {said:#?}");
        crash(lab)
    });
    drop(second);
    let healed = scene::heal(lab);
    scene::delete_service(lab, NAME)?;
    lab.kubectl(&["delete", "addresspool", POOL])?;
    outcome.and(healed)
}

fn names(frame: &str) -> bool {
    ADDRESSES.iter().any(|address| frame.contains(address))
}

fn on_second(lab: &Lab, address: IpAddr, what: &str, wanted: impl Fn(&Vip) -> bool) -> Result<Vip> {
    let limit = lab.within(LIMIT);
    vip::wait(lab, address, what, limit, |vip| {
        vip.ready && vip.interface == "eth1" && vip.owner.is_some() && wanted(vip)
    })
}

fn all(lab: &Lab, second: &SecondLan) -> Result<()> {
    for node in lab.node_names() {
        let path = "jsonpath={.status.uplinks[*].interface}";
        let what = format!("{node}'s Speaker lists both uplinks");
        sh::wait_for(&what, LIMIT, Duration::from_millis(200), || {
            let uplinks = lab.kubectl(&["get", "speaker", &node, "-o", path])?;
            Ok((uplinks.trim() == "eth0 eth1").then_some(()))
        })?;
    }
    for address in ADDRESSES {
        on_second(lab, address.parse()?, "is announced on eth1", |_| true)?;
    }
    for node in lab.node_names() {
        // All are ready to take over: they listen for solicitations, and the loop guard is there.
        let groups = lab.shell(&node, "ip -6 maddr show dev eth1")?;
        ensure!(groups.contains("ff02::1:ff00:240"), "{node}: {groups}");
        let rules = lab.shell(&node, "ip rule; ip -6 rule")?;
        let guards = rules.matches("iif eth1").count();
        ensure!(guards == 2, "{node}: {rules}");
    }
    for address in ADDRESSES {
        let address: IpAddr = address.parse()?;
        let found = on_second(lab, address, "is announced on eth1", |_| true)?;
        scene::wait_proxies(lab, NAME)?;
        let owner = found.owner.context("no owner")?;
        let macs = who_answers_on(lab, "eth1", address)?;
        ensure!(macs.iter().eq([&found.mac]), "{macs:?}, not {}", found.mac);
        let own = lab.shell(&owner, "cat /sys/class/net/eth1/address")?;
        ensure!(
            found.mode != "Announce" || own.trim() == found.mac,
            "{owner}'s eth1 has {own}, announced is {}",
            found.mac
        );
        let announces = found.mode == "Announce";
        let serving = if announces { 1 } else { lab.node_names().len() };
        scene::wait_served(lab, address, serving)?;

        // The owner's cable on that LAN is pulled.
        let mut stream = Probe::stream(lab, address, 5, false)?;
        second.set_carrier(&owner, false)?;
        let moved = on_second(lab, address, "has left", |vip| {
            vip.owner.as_deref() != Some(&*owner)
        });
        std::thread::sleep(Duration::from_millis(500));
        let seen: Stream = stream.end()?;
        second.set_carrier(&owner, true)?;
        let next = moved?.owner.context("no owner")?;
        eprintln!(
            "    {address}: {owner} lost its carrier, {next} took over after {:.0} ms",
            seen.longest_gap_ms
        );
        ensure!(seen.longest_gap_ms < OUTAGE, "{seen:?}");

        // And back, as somebody asks.
        std::thread::sleep(Duration::from_secs(1));
        vip::move_to(lab, address, &owner)?;
        on_second(lab, address, "is back", |vip| {
            vip.owner.as_deref() == Some(&*owner)
        })?;
        let seen = probe::stream_for(lab, address, 5, Duration::from_secs(1), false)?;
        ensure!(seen.failures == 0, "{seen:?}");
    }
    Ok(())
}

/// The owner's kernel is killed.
fn crash(lab: &mut Lab) -> Result<()> {
    let address: IpAddr = ADDRESSES[0].parse()?;
    let owner = vip::owner(lab, address)?;
    lab.fail(&owner, How::Crash)?;
    let found = on_second(lab, address, "is taken over", |vip| {
        vip.owner.as_deref() != Some(&*owner)
    })?;
    let macs = who_answers_on(lab, "eth1", address)?;
    ensure!(macs.iter().eq([&found.mac]), "{macs:?}, not {}", found.mac);
    let seen = probe::stream_for(lab, address, 5, Duration::from_secs(1), false)?;
    ensure!(seen.failures == 0, "{seen:?}");
    Ok(())
}
