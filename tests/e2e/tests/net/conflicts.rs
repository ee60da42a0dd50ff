//! Addresses that another machine of the LAN has as well.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::metrics::counted_by_all;
use lightship_e2e::neighbours::{self, Capture};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{object, vip};
use lightship_lab::substrate::CLIENT_NETNS;
use lightship_lab::{Lab, sh};
use serde_json::Value;

use crate::common::Served;

const SOON: Duration = Duration::from_secs(10);

/// A MAC address of no node, by which the lab's agent claims addresses.
const STRANGER: &str = "02:00:00:00:f1:0d";

/// Addresses of both families that another machine of the LAN has are not announced, and events say so;
/// when the machine gives them up, they are. One that claims them later is reported, and rarely answered.
pub(crate) fn in_use(lab: &mut Lab) -> Result<()> {
    let both = |name| Wish {
        dual_stack: true,
        ..Wish::local(name).fresh()
    };
    // By the time that those in use are free, its first announcements are over.
    Served::during(lab, &both("claimed"), |lab, held| {
        let wish = both("in-use");
        let outcome = refused(lab, &wish);
        scene::delete_service(lab, wish.name)?;
        outcome.and_then(|()| claimed(lab, held))
    })
}

fn refused(lab: &Lab, wish: &Wish) -> Result<()> {
    let object = wish.object();
    let asked = object["metadata"]["annotations"]["lightship.dev/addresses"].as_str();
    let asked = asked.context("no addresses asked for")?.split(',');
    let addresses: Vec<IpAddr> = asked.map(str::parse).collect::<Result<_, _>>()?;
    let before = counted_by_all(lab, "conflicts_total")?;
    // The client's kernel answers for all its addresses.
    let taken = |what: &str| {
        addresses.iter().try_for_each(|address| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let line = format!("addr {what} {address}/{bits} dev eth0");
            sh::ip(&format!("-n {CLIENT_NETNS} {line}"))
        })
    };
    taken("add")?;
    let found = in_use_by_the_client(lab, &object, &addresses);
    taken("del")?;
    found?;
    for address in &addresses {
        // It is asked for again every 10 s.
        vip::wait(lab, *address, "is announced", 3 * SOON, |vip| vip.ready)?;
        let macs = neighbours::who_answers(lab, *address)?;
        ensure!(macs.len() == 1, "{macs:?} answer for {address}");
    }
    let found = counted_by_all(lab, "conflicts_total")? - before;
    ensure!(found >= 2.0, "{found} conflicts were counted");
    Ok(())
}

fn in_use_by_the_client(lab: &Lab, service: &Value, addresses: &[IpAddr]) -> Result<()> {
    // Before it answers, the client's kernel looks whether it is the only one.
    let often = Duration::from_millis(100);
    sh::wait_for("the client to have the addresses", SOON, often, || {
        let tentative = ["ip", "-6", "addr", "show", "dev", "eth0", "tentative"];
        Ok(lab.client(&tentative)?.stdout.is_empty().then_some(()))
    })?;
    lab.apply(&service.to_string())?;
    addresses.iter().try_for_each(|address| {
        vip::wait(lab, *address, "is seen in use", SOON, |vip| {
            vip.owner.is_some() && !vip.ready
        })?;
        conflicting(lab, *address)?;
        let part = "has it already";
        told(lab, *address, "Warning", "AddressConflict", part)
    })
}

/// Another machine claims the VIPs ten times a second for some seconds: each is announced once more, and no
/// oftener; its owner keeps it.
fn claimed(lab: &Lab, addresses: &[IpAddr]) -> Result<()> {
    let before: Vec<_> = addresses
        .iter()
        .map(|address| vip::find(lab, *address)?.context("no VirtualIP"))
        .collect::<Result<_>>()?;
    let filter = "arp or (icmp6 and ip6[40] = 136)";
    let capture = Capture::verbose(CLIENT_NETNS, "eth0", filter)?;
    let agent = &lab.state().nodes[0].spec.agent;
    let mut claims = Vec::new();
    for address in addresses {
        let text = address.to_string();
        let words = [
            "flood",
            "--claim",
            &text,
            "--rate",
            "10",
            "--duration",
            "4s",
        ];
        let mut argv = vec![agent.as_os_str()];
        argv.extend(words.map(std::ffi::OsStr::new));
        let mut claim = lab.client_command(&argv);
        claims.push(claim.stdout(Stdio::null()).spawn()?);
    }
    for mut claim in claims {
        ensure!(claim.wait()?.success(), "the agent could not claim");
    }
    let frames = capture.end()?;
    for vip in &before {
        let address = vip.address;
        let of = |mac: &str, parts: &[&str]| {
            let frames = frames.iter().filter(|frame| frame.starts_with(mac));
            let fits = frames.filter(|frame| parts.iter().all(|part| frame.contains(part)));
            fits.count()
        };
        let target = format!("tgt is {address},");
        let reply = format!("Reply {address} is-at");
        let parts = if address.is_ipv4() {
            ["> ff:ff:ff:ff:ff:ff", &reply]
        } else {
            ["> 33:33:00:00:00:01", &target]
        };
        let (theirs, ours) = (of(STRANGER, &parts), of(&vip.mac, &parts));
        eprintln!("    {address} was claimed {theirs} times, and announced {ours} times");
        let captured = || format!("captured:\n{}", frames.join("\n"));
        ensure!(theirs > 20, "{theirs} claims seen; {}", captured());
        ensure!(
            ours == 1,
            "{address} was announced {ours} times; {}",
            captured()
        );
        conflicting(lab, address)?;
        told(lab, address, "Warning", "AddressConflict", "claims it too")?;
        let now = vip::find(lab, address)?.context("no VirtualIP")?;
        ensure!(now.owner == vip.owner, "{vip:?} became {now:?}");
    }
    let telling = counted_by_all(lab, "vips_conflicting")?;
    ensure!(telling == addresses.len() as f64, "{telling} are counted");
    Ok(())
}

/// Waits until an address's VirtualIP says that another machine has it too.
fn conflicting(lab: &Lab, address: IpAddr) -> Result<()> {
    let name = vip::name(lab, address)?;
    let what = "says that it has a conflict";
    let said = object::wait(lab, ("virtualip", &name), what, SOON, |object| {
        object::condition(object, "Ready").is_some_and(|ready| ready.reason == "AddressConflict")
    });
    said.map(drop)
}

/// Waits for an event on the VirtualIP of an address.
fn told(lab: &Lab, address: IpAddr, kind: &str, reason: &str, part: &str) -> Result<()> {
    let name = vip::name(lab, address)?;
    let fits = |event: &Value| {
        let object = &event["involvedObject"];
        object["kind"] == "VirtualIP"
            && object["name"] == *name
            && object["uid"].is_string()
            && (event["type"] == kind && event["reason"] == reason)
            && event["message"]
                .as_str()
                .is_some_and(|text| text.contains(part))
    };
    sh::wait_for(
        &format!("an event {reason} on {address}"),
        SOON,
        Duration::from_millis(200),
        || {
            let all = lab.kubectl_json(&["get", "events", "-n", "default"])?;
            let mut all = all["items"].as_array().into_iter().flatten();
            Ok(all.any(fits).then_some(()))
        },
    )
}
