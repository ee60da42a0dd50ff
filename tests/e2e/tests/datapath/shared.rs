//! One address of several Services, one of which claims it by `spec.externalIPs`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{director, probe, vip};
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{Lab, addressing, progress};
use serde_json::json;

const KEY: &str = "lightship.dev/shared-address-key";
/// The port of the Service that claims the address.
const PORT: u16 = 8081;

/// Each port has its own Service's backends, and the address stays for the one that is left.
pub(crate) fn ports_of_two_services(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        policy: TrafficPolicy::Local,
        ..Wish::local("shared-first")
    };
    let mut object = wish.object();
    object["metadata"]["annotations"] = json!({ KEY: "pair" });
    lab.apply(&object.to_string())?;
    let outcome = both(lab, &wish);
    for name in ["shared-first", "shared-claim"] {
        scene::delete_service(lab, name)?;
    }
    outcome
}

fn both(lab: &Lab, wish: &Wish) -> Result<()> {
    let shown = lab.wait_addresses(wish.name, Duration::from_secs(20))?;
    let address: IpAddr = shown[0].parse()?;
    let mut claim = wish.object();
    claim["metadata"] = json!({ "name": "shared-claim", "annotations": { KEY: "pair" } });
    claim["spec"]["type"] = json!("ClusterIP");
    if let Some(spec) = claim["spec"].as_object_mut() {
        spec.remove("allocateLoadBalancerNodePorts");
    }
    claim["spec"]["externalIPs"] = json!([address]);
    claim["spec"]["ports"] = json!([{ "name": "tcp", "port": PORT, "targetPort": 8080 }]);
    lab.apply(&claim.to_string())?;
    let nodes = lab.node_names().len();
    vip::wait_settled(lab, address, nodes, Duration::from_secs(30))?;
    scene::wait_served(lab, address, nodes)?;
    let served = nodes_behind(lab, address)?;
    ensure!(
        served == nodes,
        "{served} of {nodes} nodes answer on port {PORT}"
    );
    let table = director::table(lab, &lab.node_names()[0])?;
    let entries = table.iter().filter(|entry| entry.address.ip() == address);
    let entries = entries.filter(|entry| entry.protocol == "TCP");
    let mut ports: Vec<_> = entries.map(|entry| entry.address.port()).collect();
    ports.sort_unstable();
    ensure!(ports == [probe::target(address).port(), PORT], "{table:#?}");

    // Its first holder leaves; the address and the other port stay.
    scene::delete_service(lab, wish.name)?;
    vip::wait(
        lab,
        address,
        "has one Service",
        Duration::from_secs(10),
        |vip| vip.owner.is_some(),
    )?;
    let used_by = lab.kubectl(&[
        "get",
        "vip",
        &address.to_string(),
        "-o",
        "jsonpath={.spec.usedBy}",
    ])?;
    ensure!(used_by.trim() == "default/shared-claim", "{used_by}");
    let served = nodes_behind(lab, address)?;
    ensure!(
        served == nodes,
        "{served} of {nodes} nodes answer on port {PORT} afterwards"
    );
    Ok(())
}

/// How many nodes answer on the claim's port, each seeing the client's own address.
fn nodes_behind(lab: &Lab, address: IpAddr) -> Result<usize> {
    let url = format!("http://{address}:{PORT}/");
    let client = addressing::client(lab.state().options.families);
    let client = client
        .iter()
        .find(|net| net.addr().is_ipv4() == address.is_ipv4());
    let client = client.map(|net| net.addr().to_string()).unwrap_or_default();
    let expected = lab.node_names();
    let mut seen = std::collections::BTreeSet::new();
    let start = Instant::now();
    while seen.len() < expected.len() && start.elapsed() < Duration::from_secs(20) {
        progress::check()?;
        let answer = lab.client(&["curl", "-sS", "-m", "2", &url])?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let Some(node) = expected.iter().find(|node| text.contains(node.as_str())) else {
            continue;
        };
        if !text.contains(&client) {
            bail!("{node} did not see {client} but answered: {text}");
        }
        seen.insert(node.clone());
    }
    Ok(seen.len())
}
