//! What hosts and Services may be like: strict settings, pods on the host's network, several ports,
//! families that part; and frames that come to a director without being meant for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::neighbours::{self, Capture};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{director, probe, vip};
use lightship_lab::substrate::{LAB_NETNS, LAN_BRIDGE};
use lightship_lab::workload::POD_PORT;
use lightship_lab::{Lab, sh};
use serde_json::json;

use crate::common::Served;

const SOON: Duration = Duration::from_secs(30);

/// Every node that answers new connections of two seconds, none of which may fail.
fn all_serve(lab: &Lab, address: IpAddr) -> Result<()> {
    let seen = probe::stream_for(lab, address, 10, Duration::from_secs(2), false)?;
    let nodes = lab.node_names().len();
    ensure!(
        seen.failures == 0 && seen.nodes.len() == nodes,
        "{address} is not served by all: {seen:?}"
    );
    Ok(())
}

/// Hosts that check by reverse path what comes in, on every interface.
pub(crate) fn strict_rp_filter(lab: &mut Lab) -> Result<()> {
    const NAMES: [&str; 3] = ["all", "default", "eth0"];
    Served::during(lab, &Wish::local("strict").fresh(), |lab, vips| {
        let mut before = BTreeMap::new();
        for node in lab.node_names() {
            for name in NAMES {
                let file = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
                let was = lab.shell(&node, &format!("cat {file}; echo 1 > {file}"))?;
                before.insert((node.clone(), file), was.trim().to_owned());
            }
        }
        // The owner's own share comes by the veth pair, whose way back is another one.
        let outcome = all_serve(lab, vips[0]);
        for ((node, file), was) in before {
            lab.shell(&node, &format!("echo {was} > {file}"))?;
        }
        outcome
    })
}

/// Port of the servers on the nodes' own network.
const HOST_PORT: u16 = 8188;

/// Endpoints that are the nodes themselves, as those of pods on the host's network, by a Service
/// without a selector. A slice without a port of that name serves nobody.
pub(crate) fn host_network(lab: &mut Lab) -> Result<()> {
    let wish = Wish::local("host-network").fresh();
    let mut object = wish.object();
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("selector");
    }
    let nodes = lab.state().nodes.clone();
    let mut servers = Vec::new();
    let outcome = (|| -> Result<()> {
        for node in &nodes {
            let (name, agent) = (&node.spec.name, node.spec.agent.display());
            let line = format!(
                "{agent} pod --name host-{name} --node {name} --port {HOST_PORT} \
                 >/dev/null 2>&1 </dev/null & echo $!"
            );
            servers.push((name.clone(), lab.shell(name, &line)?.trim().to_owned()));
        }
        lab.apply(&object.to_string())?;
        for (number, port) in [(0, "tcp"), (1, "tcp"), (2, "other")] {
            let node = &nodes[number].spec;
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("host-network-{}", node.name),
                    "namespace": "default",
                    "labels": { "kubernetes.io/service-name": wish.name },
                },
                "addressType": "IPv4",
                "ports": [{ "name": port, "port": HOST_PORT, "protocol": "TCP" }],
                "endpoints": [{
                    "addresses": [node.addresses[0].addr()],
                    "nodeName": node.name,
                    "conditions": { "ready": true },
                }],
            });
            lab.apply(&slice.to_string())?;
        }
        let address: IpAddr = lab.wait_addresses(wish.name, SOON)?[0].parse()?;
        scene::wait_served(lab, address, 2)?;
        let table = director::table(lab, &nodes[0].spec.name)?;
        for (protocol, wanted) in [("TCP", 2), ("UDP", 0)] {
            let of = |e: &&director::Entry| e.address.ip() == address && e.protocol == protocol;
            let entry = table.iter().find(of).context("no service")?;
            let serve = entry.destinations.iter().filter(|d| d.weight > 0).count();
            ensure!(serve == wanted, "{protocol}: {entry:?}");
        }
        let seen = probe::stream_for(lab, address, 10, Duration::from_secs(1), false)?;
        ensure!(seen.failures == 0, "{seen:?}");
        ensure!(seen.clients.len() == 1, "the client is hidden: {seen:?}");
        Ok(())
    })();
    for (node, pid) in servers {
        lab.shell(&node, &format!("kill {pid}"))?;
    }
    let selector = format!("kubernetes.io/service-name={}", wish.name);
    scene::delete_service(lab, wish.name)?;
    lab.kubectl(&["delete", "endpointslice", "-l", &selector])?;
    outcome
}

/// Two TCP ports on one address, in both families, whose addresses two nodes own.
pub(crate) fn two_ports_and_owners(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("two").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        let more = json!([{ "op": "add", "path": "/spec/ports/-", "value":
            { "name": "more", "port": 81, "targetPort": POD_PORT, "protocol": "TCP" } }]);
        lab.kubectl(&[
            "patch",
            "service",
            "two",
            "--type=json",
            "-p",
            &more.to_string(),
        ])?;
        let first = vip::owner(lab, vips[0])?;
        let names = lab.node_names();
        let other = names.iter().find(|node| **node != first);
        let other = other.context("one node only")?;
        vip::move_to(lab, vips[1], other)?;
        vip::wait(lab, vips[1], "is of another node", SOON, |vip| {
            vip.owner.as_ref() == Some(other)
        })?;
        ensure!(vip::owner(lab, vips[0])? == first, "both moved");
        for address in vips {
            all_serve(lab, *address)?;
            let mut served = BTreeMap::new();
            let all = sh::wait_for(
                &format!("all nodes answer on port 81 of {address}"),
                Duration::from_secs(60),
                Duration::from_millis(50),
                || {
                    let url = format!("http://{}/", SocketAddr::new(*address, 81));
                    let output = lab.client(&["curl", "-s", "-g", "-m", "2", &url])?;
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    let node = names.iter().find(|name| text.contains(name.as_str()));
                    *served.entry(node.cloned()).or_insert(0) += 1;
                    let all = names.iter().all(|n| served.contains_key(&Some(n.clone())));
                    Ok(all.then_some(()))
                },
            );
            all.with_context(|| format!("{served:?}"))?;
        }
        Ok(())
    })
}

/// An address of the LAN that nobody has.
const NOBODY: &str = "192.0.2.180";

/// Frames that come to a director by an old cache or by mistake: VIPs are served as by the owner, and
/// nothing else is passed on or answered.
pub(crate) fn strays(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("strays").fresh()
    };
    Served::during(lab, &wish, |lab, vips| {
        let names = lab.node_names();
        for address in vips {
            let owner = vip::owner(lab, *address)?;
            for node in names.iter().filter(|node| **node != owner) {
                neighbours::pin(*address, &director::mac(lab, node)?)?;
                let seen = all_serve(lab, *address);
                neighbours::forget(*address)?;
                seen.with_context(|| format!("by the director of {node}"))?;
            }
        }
        let mac = director::mac(lab, &names[0])?;
        let nobody: IpAddr = NOBODY.parse()?;
        let filter = format!("ether src {mac} and (dst host {nobody} or icmp)");
        let capture = Capture::start(LAB_NETNS, LAN_BRIDGE, &filter)?;
        neighbours::pin(nobody, &mac)?;
        let script = format!(
            "ping -n -c 3 -i 0.2 -W 1 {nobody}; echo > /dev/udp/{nobody}/80; \
             timeout 1 bash -c 'echo > /dev/tcp/{nobody}/80'"
        );
        lab.client(&["bash", "-c", &script])?;
        neighbours::forget(nobody)?;
        thread::sleep(Duration::from_millis(300));
        let frames = capture.end()?;
        ensure!(frames.is_empty(), "it passed on or answered: {frames:#?}");
        Ok(())
    })
}
