//! VirtualIP objects: what Lightship says of itself.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lightship_lab::{Lab, sh};
use serde_json::Value;

/// What a VirtualIP says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// The node that answers for it.
    pub owner: Option<String>,
    /// How it forwards.
    pub mode: String,
    /// The interface that it is announced on.
    pub interface: String,
    /// The MAC address that is announced.
    pub mac: String,
    /// The nodes that serve it, with their weights.
    pub backends: Vec<(String, i64)>,
    /// Nodes whose tables agree and nodes in all, as 3/3; empty without directors.
    pub directors: String,
    /// Whether it says it is ready.
    pub ready: bool,
    /// The last move: from, to, reason.
    pub moved: Option<(String, String, String)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Vip {
    fn new(object: &Value) -> Option<Self> {
        let status = &object["status"];
        let backends = status["backends"].as_array();
        let conditions = status["conditions"].as_array();
        let moved = &status["lastMove"];
        Some(Self {
            address: object["spec"]["address"].as_str()?.parse().ok()?,
            owner: status["owner"].as_str().map(str::to_owned),
            mode: text(&status["mode"]),
            interface: text(&status["interface"]),
            mac: text(&status["mac"]),
            backends: backends
                .into_iter()
                .flatten()
                .map(|entry| {
                    let weight = entry["weight"].as_i64().unwrap_or_default();
                    (text(&entry["node"]), weight)
                })
                .collect(),
            directors: text(&status["directors"]),
            ready: conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True"),
            moved: moved.is_object().then(|| {
                let part = |name| text(&moved[name]);
                (part("from"), part("to"), part("reason"))
            }),
        })
    }

    /// Backends with weight.
    pub fn serving(&self) -> usize {
        self.backends.iter().filter(|(_, w)| *w > 0).count()
    }
}

/// All of them.
///
/// # Errors
/// When the API server does not answer.
pub fn all(lab: &Lab) -> Result<Vec<Vip>> {
    let list = lab.kubectl_json(&["get", "virtualips"])?;
    let items = list["items"].as_array();
    Ok(items.into_iter().flatten().filter_map(Vip::new).collect())
}

/// The one of an address, if it is there.
///
/// # Errors
/// When the API server does not answer.
pub fn find(lab: &Lab, address: IpAddr) -> Result<Option<Vip>> {
    Ok(all(lab)?.into_iter().find(|vip| vip.address == address))
}

/// The node that answers for an address, as Kubernetes knows.
///
/// # Errors
/// When there is no such VirtualIP, or it has no owner.
pub fn owner(lab: &Lab, address: IpAddr) -> Result<String> {
    let vip = find(lab, address)?.with_context(|| format!("no VirtualIP for {address}"))?;
    vip.owner
        .with_context(|| format!("{address} has no owner yet"))
}

/// Sets an annotation on an address's VirtualIP, as `name=value`.
///
/// # Errors
/// When there is no such VirtualIP, or the API server refuses.
pub fn annotate(lab: &Lab, address: IpAddr, annotation: &str) -> Result<()> {
    let name = name(lab, address)?;
    lab.kubectl(&["annotate", "--overwrite", "virtualip", &name, annotation])?;
    Ok(())
}

/// Asks for an address to be moved to a node, once.
///
/// # Errors
/// As [`annotate`].
pub fn move_to(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    annotate(lab, address, &format!("lightship.dev/move-to={node}"))
}

/// The name of an address's VirtualIP.
///
/// # Errors
/// When there is no such VirtualIP.
pub fn name(lab: &Lab, address: IpAddr) -> Result<String> {
    let list = lab.kubectl_json(&["get", "virtualips"])?;
    let items = list["items"].as_array();
    let mut items = items.into_iter().flatten();
    let found = items.find(|o| o["spec"]["address"] == address.to_string());
    let name = found.and_then(|o| o["metadata"]["name"].as_str());
    let name = name.with_context(|| format!("no VirtualIP for {address}"))?;
    Ok(name.to_owned())
}

/// Waits until an address's VirtualIP is as `wanted` says.
///
/// # Errors
/// When it is not within `limit` (longer where nodes are slow), with what it was last.
pub fn wait(
    lab: &Lab,
    address: IpAddr,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Vip) -> bool,
) -> Result<Vip> {
    let mut last = None;
    let found = sh::wait_for(
        &format!("{address} {what}"),
        lab.within(limit),
        Duration::from_millis(100),
        || {
            last = find(lab, address)?;
            Ok(last.clone().filter(|vip| wanted(vip)))
        },
    );
    match found {
        Ok(vip) => Ok(vip),
        Err(error) => bail!("{error:#}; last seen: {last:?}"),
    }
}

/// Waits until an address is ready with `nodes` serving backends and, where there are
/// directors, all of them agreeing.
///
/// # Errors
/// When it is not within `limit`.
pub fn wait_settled(lab: &Lab, address: IpAddr, nodes: usize, limit: Duration) -> Result<Vip> {
    let directors = format!("{nodes}/{nodes}");
    let what = format!("is ready on {nodes} nodes");
    wait(lab, address, &what, limit, |vip| {
        let agree = vip.mode != "DirectRouting" || vip.directors == directors;
        vip.ready && vip.owner.is_some() && vip.serving() == nodes && agree
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let vip = Vip::new(&serde_json::json!({
            "spec": { "address": "192.0.2.200" },
            "status": {
                "owner": "node1", "mode": "DirectRouting", "mac": "02:00:00:00:00:01",
                "backends": [{ "node": "node1", "weight": 1 }, { "node": "node2", "weight": 0 }],
                "directors": "2/2",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "lastMove": { "from": "node2", "to": "node1", "reason": "crash" },
            },
        }))
        .unwrap();
        assert_eq!(vip.serving(), 1);
        assert!(vip.ready);
        assert_eq!(vip.moved.unwrap().0, "node2");
    }

    #[test]
    fn a_new_object_is_not_ready() {
        let object = serde_json::json!({ "spec": { "address": "2001:db8:2::200" } });
        let vip = Vip::new(&object).unwrap();
        assert_eq!((vip.ready, vip.owner, vip.moved), (false, None, None));
    }
}
