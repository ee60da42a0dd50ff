//! Many Services that are there already: each holds an address that is announced.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use lightship_lab::{Lab, sh};
use serde_json::{Value, json};

use crate::vip;

/// So many are sent to the API server by one `kubectl apply`.
pub const BATCH: usize = 200;

const LABEL: &str = "app=crowd";

const LIMIT: Duration = Duration::from_secs(120);

/// Makes `count` of them with these ports each, with IPv6 addresses from a pool of their own, and waits until all have an owner.
/// They are gone with the lab, or by [`disperse`].
///
/// # Errors
/// When an object is refused, or some have no owner for long.
pub fn gather(lab: &Lab, count: usize, ports: &[u16]) -> Result<()> {
    let pool = json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "AddressPool",
        "metadata": { "name": "crowd" },
        "spec": { "addresses": ["2001:db8:2:0:c::/112"] },
    });
    lab.apply(&pool.to_string())?;
    let all: Vec<Value> = (0..count).map(|number| service(number, ports)).collect();
    for items in all.chunks(BATCH) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        lab.apply(&list.to_string())?;
    }
    sh::wait_for(
        &format!("{count} Services to be announced"),
        lab.within(LIMIT),
        Duration::from_millis(500),
        || {
            let owned = vip::all(lab)?.iter().filter(|v| v.owner.is_some()).count();
            Ok((owned >= count).then_some(()))
        },
    )
}

/// Deletes them all, with their pool.
///
/// # Errors
/// When the API server refuses, or some stay.
pub fn disperse(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "services", "-l", LABEL, "--wait=false"])?;
    let often = Duration::from_millis(500);
    sh::wait_for("the crowd to go", lab.within(LIMIT), often, || {
        Ok(all(lab)?.is_empty().then_some(()))
    })?;
    lab.kubectl(&["delete", "addresspool", "crowd"]).map(drop)
}

/// Their addresses.
///
/// # Errors
/// When the API server does not answer.
pub fn all(lab: &Lab) -> Result<Vec<vip::Vip>> {
    let mut all = vip::all(lab)?;
    all.retain(|vip| is_of_it(vip.address));
    Ok(all)
}

/// Whether an address is one of theirs.
pub fn is_of_it(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[..7] == [0x2001, 0xdb8, 2, 0, 0xc, 0, 0])
}

fn service(number: usize, ports: &[u16]) -> Value {
    let port = |port: &u16| json!({ "name": format!("p{port}"), "port": port });
    let ports: Vec<Value> = ports.iter().map(port).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": format!("crowd-{number}"),
            "labels": { "app": "crowd" },
            "annotations": { "lightship.dev/pool": "crowd" },
        },
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": ["IPv6"],
            "ipFamilyPolicy": "SingleStack",
            "allocateLoadBalancerNodePorts": false,
            "selector": { "app": "crowd" },
            "ports": ports,
        },
    })
}
