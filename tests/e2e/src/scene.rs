//! A healthy lab with pods on every node, and Services to point at them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lightship_lab::workload::{self, TrafficPolicy};
use lightship_lab::{Lab, addressing, progress};
use serde_json::json;

use crate::drops::Drops;
use crate::{probe, vip};

/// Name of the address pool.
pub const POOL: &str = "lab";

/// Label `app` of the echo pods, one on each node, that all Services here select.
pub const APP: &str = "echo";

/// How long a node may take to boot, and kube-proxy on it to write all its rules: starting a
/// process takes long in User Mode Linux, and kube-proxy starts many.
const RECOVERY: Duration = Duration::from_secs(180);

/// A Service to make.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its name.
    pub name: &'a str,
    /// Which pods may answer.
    pub policy: TrafficPolicy,
    /// IPv4 and IPv6, else IPv4 alone.
    pub dual_stack: bool,
    /// IPv6 alone.
    pub ipv6_only: bool,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// Addresses that no Service had for a while, instead of the pool's first free ones.
    pub fresh: bool,
}

impl<'a> Wish<'a> {
    /// An IPv4 Service with `externalTrafficPolicy: Local` and no affinity.
    pub fn local(name: &'a str) -> Self {
        Self {
            name,
            policy: TrafficPolicy::Local,
            dual_stack: false,
            ipv6_only: false,
            affinity: false,
            fresh: false,
        }
    }

    /// The same with addresses that no Service had for a while.
    ///
    /// For measurements of what becomes of connections, one after another: the client opens so
    /// many that it uses a port again within the two minutes for which the nodes' connection
    /// tracking remembers the former connection. To the same address, a packet that is sent on to
    /// another node than before would be taken for part of that one, and dropped. Kube-proxy's ipvs
    /// mode drops the first SYN of such a port in any case (`ip_vs_conn_uses_old_conntrack` in
    /// the kernel's net/netfilter/ipvs/ip_vs_core.c), which TCP repeats after a second.
    pub fn fresh(self) -> Self {
        Self {
            fresh: true,
            ..self
        }
    }

    /// The object.
    pub fn object(&self) -> serde_json::Value {
        let mut object = workload::Service {
            name: self.name,
            policy: self.policy,
            dual_stack: self.dual_stack,
            annotations: &[],
        }
        .object();
        object["spec"]["selector"] = json!({ "app": APP });
        if self.ipv6_only {
            object["spec"]["ipFamilies"] = json!(["IPv6"]);
        }
        if self.fresh {
            let number = fresh_number();
            let v4 = format!("192.0.2.{number}");
            let v6 = format!("2001:db8:2::{number}");
            let addresses = match (self.dual_stack, self.ipv6_only) {
                (true, _) => format!("{v4},{v6}"),
                (false, true) => v6,
                (false, false) => v4,
            };
            object["metadata"]["annotations"] = json!({ "lightship.dev/addresses": addresses });
        }
        if self.affinity {
            object["spec"]["sessionAffinity"] = json!("ClientIP");
        }
        object
    }
}

/// The next of the numbers 201 to 239, round and round.
pub fn fresh_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    201 + NEXT.fetch_add(1, Ordering::Relaxed) % 39
}

/// The pool that all Services here get their addresses from.
pub fn pool_object(lab: &Lab) -> serde_json::Value {
    json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "AddressPool",
        "metadata": { "name": POOL },
        "spec": {
            "addresses": addressing::vip_ranges(lab.state().options.families),
            // A name used again at once by the next test may get the same address.
            "reuseDelaySeconds": 0,
            "allowExternalIPs": true,
        },
    })
}

/// Makes the pool, and one echo pod on each node.
///
/// # Errors
/// When an object is refused, or a pod does not get ready.
pub fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(&pool_object(lab).to_string())?;
    lab.echo_pods(APP, &lab.node_names())
}

/// Makes a Service and waits until every node serves each of its addresses.
///
/// # Errors
/// When that does not come about.
pub fn service(lab: &Lab, wish: &Wish) -> Result<Vec<IpAddr>> {
    lab.apply(&wish.object().to_string())?;
    let addresses = lab
        .wait_addresses(wish.name, lab.within(Duration::from_secs(20)))?
        .iter()
        .map(|text| text.parse().context("no IP address in the status"))
        .collect::<Result<Vec<IpAddr>>>()?;
    let nodes = lab.node_names().len();
    for address in &addresses {
        vip::wait_settled(lab, *address, nodes, Duration::from_secs(30))?;
        wait_served(lab, *address, serving_nodes(lab, *address, wish)?)?;
    }
    wait_proxies(lab, wish.name)?;
    Ok(addresses)
}

/// Waits until kube-proxy on every node knows a Service, by its node port: under `Announce`
/// the address itself shows only the owner's. After an outage of the API server some come back
/// much later than others.
///
/// # Errors
/// When one does not come to know it.
pub fn wait_proxies(lab: &Lab, name: &str) -> Result<()> {
    let service = lab.kubectl_json(&["get", "service", name])?;
    let port = service["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .context("the Service has no node port")?;
    let v6 = service["spec"]["ipFamilies"][0] == "IPv6";
    let start = Instant::now();
    for node in &lab.state().nodes {
        let mut addresses = node.spec.addresses.iter();
        let address = addresses
            .find(|address| address.addr().is_ipv6() == v6)
            .context("a node without address of the Service's family")?;
        let url = match address.addr() {
            IpAddr::V4(v4) => format!("http://{v4}:{port}/"),
            IpAddr::V6(v6) => format!("http://[{v6}]:{port}/"),
        };
        let ask = ["curl", "-sf", "-m", "1", "-o", "/dev/null", &url];
        while !lab.client(&ask)?.status.success() {
            progress::check()?;
            if start.elapsed() > lab.within(RECOVERY) {
                bail!(
                    "kube-proxy on {} does not know Service {name}",
                    node.spec.name
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// How many nodes a client gets answers from: all, but for `Announce` with
/// policy Local (the owner alone) and for session affinity (one).
fn serving_nodes(lab: &Lab, address: IpAddr, wish: &Wish) -> Result<usize> {
    let announces = vip::find(lab, address)?.is_some_and(|vip| vip.mode == "Announce");
    let one = wish.affinity || (announces && wish.policy == TrafficPolicy::Local);
    Ok(if one { 1 } else { lab.node_names().len() })
}

/// Changes some of a Service's spec.
///
/// # Errors
/// When the API server refuses.
pub fn patch_service(lab: &Lab, name: &str, spec: &serde_json::Value) -> Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    let arguments = ["patch", "service", name, "-p", &patch];
    lab.kubectl(&arguments).map(drop)
}

/// Deletes a Service.
///
/// # Errors
/// When the API server refuses.
pub fn delete_service(lab: &Lab, name: &str) -> Result<()> {
    let arguments = ["delete", "service", name, "--ignore-not-found"];
    lab.kubectl(&arguments).map(drop)
}

/// What became of a test and of the steps that clear up after it, all of which have been taken: the error is the
/// first one, as the later ones may follow from it. They are printed.
///
/// # Errors
/// That of the test, else the first of the steps.
pub fn cleared<T>(outcome: Result<T>, steps: impl IntoIterator<Item = Result<()>>) -> Result<T> {
    let failed = steps.into_iter().filter_map(Result::err);
    failed.fold(outcome, |outcome, error| match outcome {
        Ok(_) => Err(error.context("clearing up after the test")),
        Err(first) => {
            eprintln!("    clearing up failed too: {error:#}");
            Err(first)
        }
    })
}

/// Makes or changes an `L2Announcement`.
///
/// # Errors
/// When the API server refuses.
pub fn l2_announcement(lab: &Lab, name: &str, spec: &serde_json::Value) -> Result<()> {
    let object = json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "L2Announcement",
        "metadata": { "name": name },
        "spec": spec,
    });
    lab.apply(&object.to_string()).map(drop)
}

/// Deletes an `L2Announcement`.
///
/// # Errors
/// When the API server refuses.
pub fn delete_l2_announcement(lab: &Lab, name: &str) -> Result<()> {
    let arguments = ["delete", "l2announcement", name, "--ignore-not-found"];
    lab.kubectl(&arguments).map(drop)
}

/// Waits until connections to an address succeed without exception, and as many nodes answer. Beside kube-proxy's ipvs
/// mode the first ones may not: under policy Cluster it sends them on to other nodes a moment before it gives them the
/// node's own address, and the ports of those are lost for two minutes.
///
/// # Errors
/// When they do not within [`RECOVERY`], with the last figures.
pub fn wait_served(lab: &Lab, address: IpAddr, nodes: usize) -> Result<()> {
    let start = Instant::now();
    let mut before: Option<Drops> = None;
    loop {
        progress::check()?;
        let seen = probe::try_out(lab, address)?;
        if seen.failures == 0 && seen.nodes.len() == nodes {
            return Ok(());
        }
        // Failures at first are as it must be; more while all nodes answer are worth a look.
        if seen.nodes.len() == nodes {
            if let Some(before) = &before {
                let dropped = before.since(lab)?.join(", ");
                eprintln!("    {address}, served by all: {seen:?}; kernels counted: {dropped}");
            }
            before = Some(Drops::read(lab)?);
        }
        if start.elapsed() > lab.within(RECOVERY) {
            bail!("{address} is not served by {nodes} nodes without failure: {seen:?}");
        }
    }
}

/// Has the lab's kubelet say that a pod is not ready, or that it is again.
///
/// # Errors
/// When the API server refuses.
pub fn set_ready(lab: &Lab, pod: &str, ready: bool) -> Result<()> {
    let label = if ready { "-" } else { "=false" };
    let label = format!("lab.lightship.dev/ready{label}");
    lab.kubectl(&["label", "--overwrite", "pod", pod, &label])
        .map(drop)
}

/// Undoes every fault that is left and waits until the cluster is whole again.
///
/// # Errors
/// When a node does not come back.
pub fn heal(lab: &mut Lab) -> Result<()> {
    lab.start_api()?;
    let broken: Vec<String> = lab
        .state()
        .nodes
        .iter()
        .filter(|node| !node.faults.is_empty())
        .map(|node| node.spec.name.clone())
        .collect();
    for node in &broken {
        lab.heal(node)?;
    }
    let ready = "--for=condition=Ready";
    let limit = lab.within(Duration::from_secs(120)).as_secs();
    let limit = format!("--timeout={limit}s");
    lab.kubectl(&["wait", ready, "node", "--all", &limit])?;
    // Those of the test before may still be on their way out: `wait` would fail when one that it saw goes.
    let pods = lab.kubectl_json(&["get", "pods"])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    let stay = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let names = stay.filter_map(|pod| pod["metadata"]["name"].as_str());
    let names: Vec<&str> = names.collect();
    if !names.is_empty() {
        lab.kubectl(&[&["wait", ready, "pod", &limit][..], &names].concat())?;
    }
    Ok(())
}

/// Undoes every fault and waits until an address with policy Local is served by all nodes again.
///
/// # Errors
/// When that does not come about.
pub fn heal_and_settle(lab: &mut Lab, address: IpAddr) -> Result<()> {
    heal(lab)?;
    let nodes = lab.node_names().len();
    let vip = vip::wait_settled(lab, address, nodes, RECOVERY)?;
    let serving = if vip.mode == "Announce" { 1 } else { nodes };
    wait_served(lab, address, serving)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_first_cause_is_the_error() {
        let fails = |what: &'static str| Err(anyhow!(what));
        let said = |outcome: Result<u8>| outcome.map_err(|error| format!("{error:#}"));
        assert_eq!(said(cleared(Ok(7), [Ok(()), Ok(())])), Ok(7));
        let found = said(cleared(Err(anyhow!("lost")), [Ok(()), fails("left")]));
        assert_eq!(found, Err("lost".to_owned()));
        let found = said(cleared(Ok(7), [Ok(()), fails("left"), fails("later")]));
        let wanted = "clearing up after the test: left";
        assert_eq!(found, Err(wanted.to_owned()));
    }
}
