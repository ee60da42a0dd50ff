//! Where VIPs are put by hand, and what their status says when no node may have one.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{neighbours, object, probe, vip};
use lightship_lab::substrate::CLIENT_NETNS;
use lightship_lab::{Lab, sh};
use serde_json::{Value, json};

use crate::common::Served;

const SOON: Duration = Duration::from_secs(10);
const DRAIN: &str = "lightship.dev/drain";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Waits until the VirtualIP object is as `wanted` says.
pub(crate) fn wait(
    lab: &Lab,
    address: IpAddr,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    object::wait(lab, ("vip", &address.to_string()), what, SOON, wanted).map(drop)
}

pub(crate) fn owner(object: &Value) -> Option<&str> {
    object["status"]["owner"].as_str()
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = object::condition(object, kind)?;
    Some((found.status, found.reason, found.message))
}

/// Annotations move a VIP once, pin it, and drain a node; requests are answered all the while.
pub(crate) fn by_hand(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("by-hand"), |lab, vips| {
        let address = *vips.first().context("no address")?;
        let name = address.to_string();
        let first = vip::owner(lab, address)?;
        let nodes = lab.node_names();
        let mut others = nodes.iter().filter(|node| **node != first);
        let second = others.next().context("one node only")?;
        let third = others.next().context("two nodes only")?;

        lab.kubectl(&[
            "annotate",
            "vip",
            &name,
            &format!("lightship.dev/move-to={second}"),
        ])?;
        wait(lab, address, "moves", |v| {
            owner(v) == Some(second) && v["status"]["movedTo"] == **second
        })?;
        // It has been done: another request by another way undoes it for good.
        lab.kubectl(&["annotate", "node", second, &format!("{DRAIN}=true")])?;
        wait(lab, address, "leaves the drained node", |v| {
            owner(v).is_some_and(|o| o != second)
        })?;
        lab.kubectl(&["annotate", "node", second, &format!("{DRAIN}-")])?;
        lab.kubectl(&[
            "annotate",
            "vip",
            &name,
            &format!("lightship.dev/pin-to={third}"),
        ])?;
        wait(lab, address, "is pinned", |v| {
            owner(v) == Some(third) && condition(v, "Placed").is_some_and(|c| c.0 == "True")
        })?;
        lab.kubectl(&[
            "annotate",
            "--overwrite",
            "vip",
            &name,
            "lightship.dev/pin-to=nowhere",
        ])?;
        wait(lab, address, "tells of a bad pin", |v| {
            condition(v, "Placed").is_some_and(|c| c.1 == "NoSuchNode" && c.2.contains("nowhere"))
        })?;
        let seen = probe::stream_for(lab, address, 5, Duration::from_secs(1), false)?;
        ensure!(seen.failures == 0, "{seen:?}");
        Ok(())
    })
}

/// A VIP that no node may own loses its owner in the status, which says why.
pub(crate) fn nobody(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("nobody"), |lab, vips| {
        let address = *vips.first().context("no address")?;
        let nodes = lab.node_names();
        for node in &nodes {
            lab.kubectl(&["label", "node", node, &format!("{EXCLUDE}=")])?;
        }
        let said = wait(lab, address, "says that nobody may own it", |v| {
            let ready = condition(v, "Ready");
            owner(v).is_none()
                && ready.is_some_and(|(status, reason, message)| {
                    status == "False" && reason == "NoCandidate" && message.contains(EXCLUDE)
                })
        });
        for node in &nodes {
            lab.kubectl(&["label", "node", node, &format!("{EXCLUDE}-")])?;
        }
        said?;
        wait(lab, address, "has an owner again", |v| {
            owner(v).is_some() && condition(v, "Ready").is_some_and(|c| c.0 == "True")
        })
    })
}

/// An address of no node's network, and the network that a node gets.
const ROUTED: &str = "203.0.113.210";
const ROUTED_NETWORK: &str = "203.0.113.211/28";

/// An address on no node's network is announced all the same and says so; a node that has
/// its network gets it.
pub(crate) fn off_link(lab: &mut Lab) -> Result<()> {
    let pool = json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "AddressPool",
        "metadata": { "name": "routed" },
        "spec": { "addresses": [format!("{ROUTED}/32")], "reuseDelaySeconds": 0 },
    });
    lab.apply(&pool.to_string())?;
    let wish = Wish::local("routed");
    let mut object = wish.object();
    object["metadata"]["annotations"] = json!({ "lightship.dev/addresses": ROUTED });
    lab.apply(&object.to_string())?;
    let outcome = follows_its_network(lab, ROUTED.parse()?);
    for node in lab.node_names() {
        // Not there on the others.
        lab.exec(&node, &["ip", "addr", "del", ROUTED_NETWORK, "dev", "eth0"])?;
    }
    scene::delete_service(lab, wish.name)?;
    lab.kubectl(&["delete", "addresspool", "routed"])?;
    outcome
}

fn follows_its_network(lab: &Lab, address: IpAddr) -> Result<()> {
    let routed = |v: &Value| {
        let on_link = condition(v, "OnLink");
        on_link.is_some_and(|c| (c.0, c.1) == ("False", "RoutedAddress"))
            && condition(v, "Ready").is_some_and(|c| c.0 == "True")
    };
    wait(lab, address, "is announced as a routed one", routed)?;
    // What a router on the LAN has.
    sh::ip(&format!(
        "-n {CLIENT_NETNS} route replace {address} dev eth0"
    ))?;
    let macs = neighbours::who_answers(lab, address);
    sh::ip(&format!("-n {CLIENT_NETNS} route del {address} dev eth0"))?;
    let macs = macs?;
    ensure!(macs.len() == 1, "{macs:?} answer for {address}");
    let owner_now = vip::owner(lab, address)?;
    let mut others = lab.node_names().into_iter();
    let other = others.find(|node| *node != owner_now);
    let other = other.context("one node only")?;
    let set = |what: &str| {
        let output = lab.exec(&other, &["ip", "addr", what, ROUTED_NETWORK, "dev", "eth0"])?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip addr {what}: {error}");
        Ok(())
    };
    set("add")?;
    wait(lab, address, "goes to the node that has its network", |v| {
        owner(v) == Some(&*other) && condition(v, "OnLink").is_none()
    })?;
    set("del")?;
    wait(lab, address, "is a routed one again", routed)
}
