//! What worked before there was Lightship, and what kube-proxy does, works as before: one
//! table of who asks what, and what should come of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::Wish;
use lightship_e2e::vip;
use lightship_lab::workload::{POD_PORT, TrafficPolicy};
use lightship_lab::{Lab, addressing, sh};
use serde_json::json;

use crate::common::{Served, figure};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asker {
    /// The client on the LAN.
    Client,
    /// A process on a node.
    Node(String),
    /// The echo pod on a node, by its network namespace there.
    Pod { node: String, namespace: String },
}

impl Asker {
    /// The echo pod on a node.
    fn pod(lab: &Lab, node: &str) -> Result<Self> {
        Ok(Asker::Pod {
            node: node.to_owned(),
            namespace: pod_namespace(lab, node)?,
        })
    }

    /// The answer's line, or none when there was none.
    fn ask(&self, lab: &Lab, url: &str) -> Result<Option<String>> {
        let limit = lab.within(Duration::from_secs(3)).as_secs().to_string();
        let curl = ["curl", "-s", "-g", "-m", &limit, "-w", "%{http_code}", url];
        let output = match self {
            Asker::Client => lab.client(&curl)?,
            Asker::Node(node) => lab.exec(node, &curl)?,
            Asker::Pod { node, namespace } => {
                let inside = ["ip", "netns", "exec", namespace];
                lab.exec(node, &[&inside, &curl[..]].concat())?
            }
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(text))
    }
}

/// The network namespace of the echo pod on a node.
fn pod_namespace(lab: &Lab, node: &str) -> Result<String> {
    let output = lab.exec(node, &["ip", "netns", "list"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names = text.lines().filter_map(|line| line.split(' ').next());
    let found = names.find(|name| name.contains("echo"));
    found
        .map(str::to_owned)
        .with_context(|| format!("no pod's namespace on {node}: {text}"))
}

/// The client's address of that family.
fn client(lab: &Lab, like: IpAddr) -> Result<String> {
    let all = addressing::client(lab.state().options.families);
    let mut all = all.iter().map(ipnet::IpNet::addr);
    let own = all.find(|own| own.is_ipv4() == like.is_ipv4());
    Ok(own.context("the client has none")?.to_string())
}

/// The addresses of the echo pod on a node.
fn pod_ips(lab: &Lab, node: &str) -> Result<Vec<IpAddr>> {
    let pod = lab.kubectl_json(&["get", "pod", &format!("echo-{node}")])?;
    let all = pod["status"]["podIPs"].as_array();
    let all = all.into_iter().flatten();
    Ok(all
        .filter_map(|ip| ip["ip"].as_str()?.parse().ok())
        .collect())
}

fn url(address: IpAddr, port: u64) -> String {
    match address {
        IpAddr::V4(v4) => format!("http://{v4}:{port}/"),
        IpAddr::V6(v6) => format!("http://[{v6}]:{port}/"),
    }
}

/// Everybody who may ask a Service in every way that there is.
pub(crate) fn ways(lab: &mut Lab) -> Result<()> {
    for policy in [TrafficPolicy::Local, TrafficPolicy::Cluster] {
        let wish = Wish {
            policy,
            dual_stack: true,
            ..Wish::local("ways").fresh()
        };
        Served::during(lab, &wish, |lab, vips| all_ways(lab, vips, policy))?;
    }
    Ok(())
}

fn all_ways(lab: &mut Lab, vips: &[IpAddr], policy: TrafficPolicy) -> Result<()> {
    let owner = vip::owner(lab, vips[0])?;
    let names = lab.node_names();
    let other = names.iter().find(|name| **name != owner);
    let other = other.context("one node only")?.clone();
    let service = lab.kubectl_json(&["get", "service", "ways"])?;
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64();
    let node_port = node_port.context("no node port")?;
    let cluster_ips: Vec<IpAddr> = service["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    let ips_of = |node: &str| -> Result<Vec<IpAddr>> {
        let spec = &lab.state().node(node)?.spec;
        Ok(spec.addresses.iter().map(ipnet::IpNet::addr).collect())
    };
    // Nodes and pods ask their own node's port: to a pod's question from another node kube-proxy
    // with a cluster-wide --cluster-cidr may give a reply that comes by another way.
    let (near_ips, far_ips) = (ips_of(&owner)?, ips_of(&other)?);
    let pod_ips = pod_ips(lab, &other)?;
    ensure!(
        cluster_ips.len() == 2 && pod_ips.len() == 2,
        "not dual stack: {cluster_ips:?} {pod_ips:?}"
    );

    let (node, pod) = (Asker::Node(owner.clone()), Asker::pod(lab, &owner)?);
    let (far_node, far_pod) = (Asker::Node(other.clone()), Asker::pod(lab, &other)?);
    let mut rows: Vec<(&str, &Asker, &[IpAddr], u64)> = vec![
        ("client, node port", &Asker::Client, &far_ips, node_port),
        ("client, VIP", &Asker::Client, vips, 80),
    ];
    for (name, asker, node_ips) in [
        ("the owner", &node, &near_ips),
        ("a pod of the owner", &pod, &near_ips),
        ("another node", &far_node, &far_ips),
        ("a pod of another node", &far_pod, &far_ips),
    ] {
        rows.extend([
            (name, asker, vips, 80),
            (name, asker, &*cluster_ips, 80),
            (name, asker, &**node_ips, node_port),
            (name, asker, &*pod_ips, u64::from(POD_PORT)),
        ]);
    }
    // Those do not depend on the Service at all, so once is enough.
    let mut host_ports = Vec::new();
    if policy == TrafficPolicy::Local {
        for name in [&owner, &other] {
            host_ports.push(HostPort::open(lab, name)?);
        }
        let asked: [(&str, &Asker, &[IpAddr]); 6] = [
            ("client, host port of the owner", &Asker::Client, &near_ips),
            ("client, host port", &Asker::Client, &far_ips),
            ("the owner, another's host port", &node, &far_ips),
            ("another node, the owner's host port", &far_node, &near_ips),
            ("a node, its own host port", &far_node, &far_ips),
            ("a pod, another node's host port", &pod, &far_ips),
        ];
        let asked = asked.into_iter();
        rows.extend(asked.map(|(name, asker, addresses)| (name, asker, addresses, HOST_PORT)));
    }
    let count = rows.len() * 2;
    let start = Instant::now();
    for (name, asker, addresses, port) in rows {
        for address in addresses {
            let url = url(*address, port);
            for _ in 0..3 {
                let answer = asker.ask(lab, &url)?;
                ensure!(
                    answer.as_ref().is_some_and(|text| text.ends_with("200")),
                    "{name} asks {url} under {policy:?}: {answer:?}"
                );
                if (asker, port) == (&Asker::Client, HOST_PORT) {
                    let own = client(lab, *address)?;
                    let sees = answer.is_some_and(|text| text.contains(&own));
                    ensure!(sees, "the pod does not see {own} at {url}");
                }
            }
        }
    }
    drop(host_ports);
    eprintln!("    {policy:?}: {count} ways, 3 times each");
    figure("asked in", start.elapsed());
    Ok(())
}

/// A port of the nodes that is their echo pod's, as `hostPort` asks for.
const HOST_PORT: u64 = 8189;

/// The lab has no CNI plugin `portmap`. These are the rules that it makes, in both families: what comes in for an address
/// of the node, or is sent to one on it, goes to the pod. Those for a pod that asks itself are left out. Beside
/// kube-proxy's nftables mode `iptables` is the front of nf_tables that it is on users' machines.
struct HostPort<'a> {
    lab: &'a Lab,
    node: String,
    rules: Vec<String>,
}

impl<'a> HostPort<'a> {
    fn open(lab: &'a Lab, node: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for address in pod_ips(lab, node)? {
            let (iptables, to) = match address {
                IpAddr::V4(_) => ("iptables", SocketAddr::new(address, POD_PORT)),
                IpAddr::V6(_) => ("ip6tables", SocketAddr::new(address, POD_PORT)),
            };
            for chain in ["PREROUTING", "OUTPUT"] {
                rules.push(format!(
                    "{iptables} -w -t nat %s {chain} -p tcp --dport {HOST_PORT} \
                     -m addrtype --dst-type LOCAL -j DNAT --to-destination '{to}'"
                ));
            }
        }
        let all: Vec<String> = rules.iter().map(|rule| rule.replace("%s", "-A")).collect();
        let port = Self {
            lab,
            node: node.to_owned(),
            rules,
        };
        lab.shell(node, &all.join(" && "))?;
        Ok(port)
    }
}

impl Drop for HostPort<'_> {
    fn drop(&mut self) {
        let all = self.rules.iter().map(|rule| rule.replace("%s", "-D"));
        let all: Vec<String> = all.collect();
        let _ = self.lab.shell(&self.node, &all.join("; "));
    }
}

/// `loadBalancerSourceRanges`: kube-proxy sees the client's own address behind the director,
/// and keeps out who is not named.
pub(crate) fn source_ranges(lab: &mut Lab) -> Result<()> {
    let wish = Wish::local("ranges").fresh();
    Served::during(lab, &wish, |lab, vips| {
        let url = url(vips[0], 80);
        let allow = |lab: &Lab, ranges: &[&str]| {
            let patch = json!({ "spec": { "loadBalancerSourceRanges": ranges } });
            lab.kubectl(&["patch", "service", "ranges", "-p", &patch.to_string()])
        };
        let becomes = |lab: &Lab, what: &str, wanted: usize| {
            // Each question is another connection, so they meet all nodes.
            sh::wait_for(
                &format!("{wanted} of 12 questions are answered {what}"),
                lab.within(Duration::from_secs(90)),
                Duration::from_millis(500),
                || {
                    let limit = lab.within(Duration::from_millis(500)).as_secs_f64();
                    let script = format!(
                        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do \
                         curl -s -m {limit} -o /dev/null -w '%{{http_code}} ' {url}; done"
                    );
                    let output = lab.client(&["sh", "-c", &script])?;
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    Ok((text.matches("200").count() == wanted).then_some(()))
                },
            )
        };
        becomes(lab, "without a range", 12)?;
        allow(lab, &["198.51.100.0/24"])?;
        becomes(lab, "to one outside the range", 0)?;
        allow(lab, &["198.51.100.0/24", "192.0.2.100/32"])?;
        becomes(lab, "to one in a range", 12)
    })
}
