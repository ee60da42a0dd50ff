//! Endpoints on a node that is not on the VIP's LAN, as far as it says: no director can send frames there.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::object::{self, Condition};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{director, probe, vip};
use lightship_lab::workload::TrafficPolicy;
use lightship_lab::{Lab, sh};
use serde_json::{Value, json};

/// kube-proxy starts programs to write its rules, which takes long in User Mode Linux.
const SOON: Duration = Duration::from_secs(60);

const NAME: &str = "off-lan";

/// The client's address.
pub(crate) const CLIENT: &str = "192.0.2.100";

/// Under policy `Cluster` the nodes on the LAN pass everything on to it; under `Local` nobody can, and the
/// VirtualIP says so and what to do.
pub(crate) fn reached(lab: &mut Lab) -> Result<()> {
    let nodes = lab.node_names();
    let (off, rest) = nodes.split_last().context("no node")?;
    let own = lab.state().node(off)?.spec.addresses[0];
    let (long, short) = (own, ipnet::IpNet::new(own.addr(), 28)?);
    // The other nodes are in the smaller network and the VIPs are not; to the client leads a route of its own.
    lab.shell(
        off,
        &format!(
            "ip address add {short} dev eth0; ip address del {long} dev eth0; \
             ip route add {CLIENT}/32 dev eth0"
        ),
    )?;
    let wish = Wish {
        policy: TrafficPolicy::Cluster,
        ..Wish::local(NAME).fresh()
    };
    let mut object = wish.object();
    object["spec"]["selector"] = json!({ "app": NAME });
    let outcome = lab
        .echo_pods(NAME, std::slice::from_ref(off))
        .and_then(|()| lab.apply(&object.to_string()))
        .and_then(|_| both_policies(lab, off, rest));
    let removed = lab.kubectl(&["delete", "pod", "-l", "app=off-lan", "--wait=false"]);
    let deleted = scene::delete_service(lab, NAME);
    let back = lab.shell(
        off,
        &format!(
            "ip route del {CLIENT}/32 dev eth0; ip address add {long} dev eth0; \
             ip address del {short} dev eth0"
        ),
    );
    scene::cleared(outcome, [removed.map(drop), deleted, back.map(drop)])
}

fn both_policies(lab: &Lab, off: &str, rest: &[String]) -> Result<()> {
    let address: IpAddr = lab.wait_addresses(NAME, SOON)?[0].parse()?;
    let limit = Duration::from_secs(30);
    let real_servers = |count: usize| {
        let what = format!("have {count} real servers for it");
        let own = lab.state().node(off)?.spec.addresses[0].addr();
        let own = format!("{own}:");
        director::wait_alike(lab, &lab.node_names(), &what, limit, |table| {
            let target = probe::target(address);
            let of_vip = table
                .iter()
                .filter(|e| (&*e.protocol, e.address) == ("TCP", target));
            let mut all = of_vip.flat_map(|e| &e.destinations);
            let weighted = all.clone().filter(|d| d.weight > 0).count();
            weighted == count && !all.any(|d| d.address.starts_with(&own) && d.weight > 0)
        })
    };
    real_servers(rest.len())?;
    served_there(lab, address, off)?;

    let policy = |policy: &str| json!({ "externalTrafficPolicy": policy });
    scene::patch_service(lab, NAME, &policy("Local"))?;
    let said = backends(lab, address, "says that no endpoint is reached", |found| {
        found.is_some()
    })?;
    let said = object::condition(&said, "Backends").context("no condition")?;
    ensure!(said.is("False", "EndpointsOffLink"), "{said:?}");
    let message = said.message;
    eprintln!("    {message}");
    for part in [
        &*format!("all endpoints of default/{NAME} are on {off}"),
        "externalTrafficPolicy is Local: set it to Cluster",
        "run a Pod on a node that has the address on-link",
    ] {
        ensure!(message.contains(part), "{message} does not say {part:?}");
    }
    real_servers(0)?;
    let seen = probe::stream_for(lab, address, 50, Duration::from_secs(1), false)?;
    ensure!(
        seen.requests > 0 && seen.failures == seen.requests,
        "somebody serves it: {seen:?}"
    );

    scene::patch_service(lab, NAME, &policy("Cluster"))?;
    backends(lab, address, "says nothing of it", |found| found.is_none())?;
    real_servers(rest.len())?;
    served_there(lab, address, off)
}

/// Waits until new connections succeed, by the pod on that node.
fn served_there(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    let mut last = None;
    let served = sh::wait_for(
        &format!("{address} is served by the pod on {node}"),
        SOON,
        Duration::from_millis(200),
        || {
            let seen = probe::stream_for(lab, address, 10, Duration::from_secs(1), false)?;
            let right = seen.failures == 0 && seen.nodes.keys().eq([node]);
            last = Some(seen);
            Ok(right.then_some(()))
        },
    );
    served.with_context(|| format!("{last:?}"))?;
    eprintln!("    policy Cluster: served by the pod on {node} through the others");
    Ok(())
}

/// Waits until the VirtualIP's condition `Backends` is as `wanted` says, and gives the object.
fn backends(
    lab: &Lab,
    address: IpAddr,
    what: &str,
    wanted: impl Fn(Option<Condition>) -> bool,
) -> Result<Value> {
    let name = vip::name(lab, address)?;
    object::wait(
        lab,
        ("virtualip", &name),
        what,
        Duration::from_secs(30),
        |object| wanted(object::condition(object, "Backends")),
    )
}
