//! What an `L2Announcement` asks for: its nodes, those it prefers, and its interfaces.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::{Capture, who_answers, who_answers_on};
use lightship_e2e::probe::{Probe, Stream};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::second_lan::{self, ADDRESSES, SecondLan};
use lightship_e2e::vip;
use lightship_lab::Lab;
use lightship_lab::substrate::CLIENT_NETNS;
use serde_json::{Value, json};

use crate::common::Served;
use crate::modes::only_moves_cost;
use crate::placing::{condition, owner, wait};

const NAME: &str = "chosen";

fn apply(lab: &Lab, spec: &Value) -> Result<()> {
    scene::l2_announcement(lab, NAME, spec)
}

fn delete(lab: &Lab) -> Result<()> {
    scene::delete_l2_announcement(lab, NAME)
}

/// A selector of one node.
fn only(node: &str) -> Value {
    json!({ "matchLabels": { "kubernetes.io/hostname": node } })
}

/// Nobody may own the VIP, and `why` is said of the nodes.
fn barred(object: &Value, why: &str) -> bool {
    let ready = condition(object, "Ready");
    owner(object).is_none()
        && ready.is_some_and(|(status, reason, message)| {
            (status, reason) == ("False", "NoCandidate") && message.contains(why)
        })
}

/// The node that is preferred most gets a new VIP; those that are not selected never own it; a change is
/// followed at once.
pub(crate) fn nodes(lab: &mut Lab) -> Result<()> {
    let names = lab.node_names();
    let [first, second, third] = &names[..] else {
        anyhow::bail!("three nodes are needed, not {names:?}");
    };
    // Weights add up: the second node has 9, the third 10.
    let preferred = json!([
        { "weight": 9, "nodeSelector": only(second) },
        { "weight": 4, "nodeSelector": only(third) },
        { "weight": 6, "nodeSelector": only(third) },
    ]);
    apply(lab, &json!({ "preferredNodes": preferred }))?;
    let outcome = Served::during(lab, &Wish::local(NAME), |lab, vips| {
        let address = *vips.first().context("no address")?;
        ensure!(vip::owner(lab, address)? == *third, "{third} is preferred");
        let mut stream = Probe::stream(lab, address, 5, false)?;
        apply(
            lab,
            &json!({ "preferredNodes": preferred, "nodeSelectors": [only(first), only(second)] }),
        )?;
        wait(lab, address, "goes to the next that is preferred", |v| {
            owner(v) == Some(second)
        })?;
        apply(lab, &json!({ "nodeSelectors": [only(first)] }))?;
        wait(lab, address, "goes to the only one", |v| {
            owner(v) == Some(first)
        })?;
        let found = vip::find(lab, address)?.context("it is gone")?;
        let macs = who_answers(lab, address)?;
        ensure!(macs.iter().eq([&found.mac]), "{macs:?}, not {}", found.mac);
        let seen: Stream = stream.end()?;
        only_moves_cost(&seen, 2)?;

        apply(lab, &json!({ "nodeSelectors": [only("nobody")] }))?;
        wait(lab, address, "says that no node is selected", |v| {
            barred(v, "no L2Announcement for it selects the node")
        })?;
        let macs = who_answers(lab, address)?;
        ensure!(macs.is_empty(), "{macs:?} answer");
        apply(lab, &json!({ "addressPools": ["another"] }))?;
        wait(lab, address, "says that nothing covers it", |v| {
            barred(v, "no L2Announcement covers")
        })?;
        delete(lab)?;
        wait(lab, address, "is announced as without any", |v| {
            owner(v).is_some()
        })
    });
    scene::cleared(outcome, [delete(lab)])
}

/// A VIP of a second LAN is kept to the interfaces that are named, by name and by wildcard.
pub(crate) fn interfaces(lab: &mut Lab) -> Result<()> {
    let second = SecondLan::create(lab)?;
    let outcome = second_lan::service(lab, NAME).and_then(|()| on(lab));
    drop(second);
    let pool = ["delete", "addresspool", second_lan::POOL];
    let steps = [
        scene::delete_service(lab, NAME),
        lab.kubectl(&pool).map(drop),
        delete(lab),
    ];
    scene::cleared(outcome, steps)
}

fn on(lab: &Lab) -> Result<()> {
    let address: IpAddr = ADDRESSES[0].parse()?;
    let announced = |interface: &'static str| {
        move |v: &Value| {
            let ready = condition(v, "Ready").is_some_and(|c| c.0 == "True");
            ready && v["status"]["interface"] == interface
        }
    };
    // On the nodes' own LAN it is an address that a router has to know of.
    let filter = format!("arp and arp[6:2] = 2 and arp src host {address}");
    let said = Capture::start(CLIENT_NETNS, "eth0", &filter)?;
    apply(lab, &json!({ "interfaces": ["eth0", "wlan*"] }))?;
    wait(lab, address, "is announced on eth0", |v| {
        let on_link = condition(v, "OnLink");
        announced("eth0")(v) && on_link.is_some_and(|c| c.1 == "RoutedAddress")
    })?;
    let said = said.end()?;
    ensure!(!said.is_empty(), "nothing was said on eth0");
    apply(lab, &json!({ "interfaces": ["none0"] }))?;
    wait(lab, address, "says that no interface is named", |v| {
        barred(v, "no uplink is among the L2Announcement's interfaces")
    })?;
    // What was still on its way.
    std::thread::sleep(Duration::from_millis(200));
    let quiet = Capture::start(CLIENT_NETNS, "eth0", &filter)?;
    apply(lab, &json!({ "interfaces": ["e?h1"] }))?;
    wait(lab, address, "is announced on eth1", announced("eth1"))?;
    let found = vip::find(lab, address)?.context("it is gone")?;
    let macs = who_answers_on(lab, "eth1", address)?;
    ensure!(macs.iter().eq([&found.mac]), "{macs:?}, not {}", found.mac);
    let said = quiet.end()?;
    ensure!(said.is_empty(), "said on eth0: {said:#?}");
    Ok(())
}
