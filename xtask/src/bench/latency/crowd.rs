//! Many Services that are there already: each holds an address that is announced.

use std::time::Duration;

use anyhow::Result;
use lightship_e2e::vip;
use lightship_lab::{Lab, sh};
use serde_json::{Value, json};

/// So many are sent to the API server by one `kubectl apply`.
pub(in crate::bench) const BATCH: usize = 200;

const LIMIT: Duration = Duration::from_secs(120);

/// Makes `count` of them with these ports each, with IPv6 addresses from a pool of their own, and waits until all have an owner.
/// They are gone with the lab.
pub(in crate::bench) fn gather(lab: &Lab, count: usize, ports: &[u16]) -> Result<()> {
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

fn service(number: usize, ports: &[u16]) -> Value {
    let port = |port: &u16| json!({ "name": format!("p{port}"), "port": port });
    let ports: Vec<Value> = ports.iter().map(port).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": format!("crowd-{number}"),
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
