//! `lab fail`, `lab heal` and `lab api`: what goes wrong in the field, on purpose.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use crate::control_plane::{apiserver, controller_manager};
use crate::lab::Lab;
use crate::net;
use crate::sh;
use crate::state::{Fault, Node, PortFilter, State};
use crate::substrate::LAB_NETNS;
use crate::up;

/// How a node fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its kernel is killed (netns: its processes, its link and its namespace).
    Crash,
    /// Its cable is pulled. A User Mode Linux guest does not see the carrier go.
    Unplug,
    /// It stands still, as a starved virtual machine does. A netns node's kernel does not.
    Pause,
    /// It is cut off from the other nodes alone, or from the control plane too.
    Partition {
        /// Cut off from the control plane too.
        also_api: bool,
    },
    /// Its port at the switch filters, as those of many hypervisors do. For good: a speaker notices at its next
    /// test of the network.
    Filter(PortFilter),
    /// Its speaker is killed (SIGKILL); the node starts it again at once.
    KillSpeaker,
    /// Its speaker is told to end (SIGTERM) and stays away until the node is healed.
    StopSpeaker,
}

impl Lab {
    /// Causes a fault.
    ///
    /// # Errors
    /// When the node does not run, or the fault cannot be caused.
    pub fn fail(&mut self, name: &str, how: How) -> Result<()> {
        let _lock = self.lock()?;
        let process = self.node_process(name)?.clone();
        let substrate = self.substrate();
        let spec = self.state.node(name)?.spec.clone();
        let faults = &mut self.state.node_mut(name)?.faults;
        match how {
            How::Crash => {
                substrate.crash(&spec, process.pid)?;
                if !process.wait_gone(Duration::from_secs(10)) {
                    bail!("{name} does not die");
                }
                substrate.clear(&spec)?;
                faults.insert(Fault::Crash);
                self.state.processes.remove(name);
            }
            How::Unplug => {
                link(&spec.port(), "down")?;
                faults.insert(Fault::Unplug);
            }
            How::Pause => {
                substrate.pause(&spec, process.pid)?;
                faults.insert(Fault::Pause);
            }
            How::Partition { also_api } => {
                faults.insert(if also_api {
                    Fault::PartitionFromApi
                } else {
                    Fault::Partition
                });
                apply_partitions(&self.state)?;
            }
            How::Filter(filter) => {
                faults.insert(Fault::Filter(filter));
                apply_partitions(&self.state)?;
            }
            How::KillSpeaker => self.signal_speaker(name, "KILL")?,
            How::StopSpeaker => {
                fs::write(spec.dir.join("speaker.hold"), "")?;
                faults.insert(Fault::StopSpeaker);
                self.signal_speaker(name, "TERM")?;
            }
        }
        self.state.save(&self.dir)
    }

    /// Undoes every fault of a node; boots it if it crashed.
    ///
    /// # Errors
    /// When the node does not come back.
    pub fn heal(&mut self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let node = self.state.node_mut(name)?;
        let spec = node.spec.clone();
        let faults = std::mem::take(&mut node.faults);
        for fault in faults {
            match fault {
                Fault::Crash => up::restart_node(self, name)?,
                Fault::Unplug => link(&spec.port(), "up")?,
                Fault::Pause => {
                    let pid = self.node_process(name)?.pid;
                    self.substrate().resume(&spec, pid)?;
                }
                Fault::Partition | Fault::PartitionFromApi | Fault::Filter(_) => {
                    apply_partitions(&self.state)?;
                }
                Fault::StopSpeaker => fs::remove_file(spec.dir.join("speaker.hold"))?,
            }
        }
        if !self.state.processes.contains_key(name) {
            up::restart_node(self, name)?;
        }
        self.state.save(&self.dir)
    }

    /// Sends a signal to the speaker of a node, from inside it: that is where its id means anything.
    fn signal_speaker(&self, name: &str, signal: &str) -> Result<()> {
        let file = self.state.node(name)?.spec.dir.join("speaker.pid");
        let pid = fs::read_to_string(&file)
            .with_context(|| format!("no speaker runs on {name} ({})", file.display()))?;
        let argv = ["sh", "-c", &format!("kill -{signal} {}", pid.trim())];
        let output = self.exec(name, &argv)?;
        if !output.status.success() {
            bail!(
                "cannot signal the speaker of {name}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Ends the API server, at once; etcd stays.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_api(&mut self) -> Result<()> {
        let _lock = self.lock()?;
        if let Some(process) = self.state.processes.remove(apiserver::NAME) {
            process.stop(Duration::ZERO)?;
        }
        self.state.save(&self.dir)
    }

    /// Starts the API server again and waits until it serves.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn start_api(&mut self) -> Result<()> {
        let _lock = self.lock()?;
        let running = self.state.processes.get(apiserver::NAME);
        if running.is_some_and(crate::process::Process::is_alive) {
            return Ok(());
        }
        up::start_api(self)?;
        // Started anew, for it comes back to a restarted API server with pauses of up to
        // half a minute, and would take nodes that are well for dead meanwhile.
        if let Some(process) = self.state.processes.remove(controller_manager::NAME) {
            process.stop(Duration::ZERO)?;
        }
        up::start_controller_manager(self)
    }
}

fn link(port: &str, state: &str) -> Result<()> {
    sh::ip(&format!("-n {LAB_NETNS} link set {port} {state}"))
}

/// Makes the bridge drop what the state says is cut, and nothing else.
fn apply_partitions(state: &State) -> Result<()> {
    let rules = partition_rules(&state.nodes);
    let mut command: Command = net::command_in(LAB_NETNS, &["nft", "-f", "-"]);
    command.env("LC_ALL", "C");
    sh::run_with_input(command, Some(&rules))
        .map(drop)
        .context("cannot cut the bridge (does the kernel have nf_tables for bridges?)")
}

fn partition_rules(nodes: &[Node]) -> String {
    // Declaring the table before deleting it makes the deletion work when there is none.
    let mut rules = "table bridge lightship_lab {}\ndelete table bridge lightship_lab\n".to_owned();
    let (mut forward, mut input, mut output) = (String::new(), String::new(), String::new());
    let mut prerouting = String::new();
    let ports: Vec<String> = nodes.iter().map(|node| node.spec.port()).collect();
    for node in nodes {
        let port = node.spec.port();
        for fault in &node.faults {
            if let Fault::Filter(filter) = fault {
                filter_rules(node, nodes, *filter, &mut prerouting, &mut forward);
            }
        }
        let from_api = node.faults.contains(&Fault::PartitionFromApi);
        if !from_api && !node.faults.contains(&Fault::Partition) {
            continue;
        }
        let others: Vec<&str> = ports
            .iter()
            .filter(|other| **other != port)
            .map(String::as_str)
            .collect();
        if !others.is_empty() {
            let others = others.join(", ");
            let _ = writeln!(forward, "iifname {port} oifname {{ {others} }} drop");
            let _ = writeln!(forward, "iifname {{ {others} }} oifname {port} drop");
        }
        if from_api {
            let _ = writeln!(input, "iifname {port} drop");
            let _ = writeln!(output, "oifname {port} drop");
        }
    }
    if [&forward, &input, &prerouting]
        .iter()
        .all(|chain| chain.is_empty())
    {
        return rules;
    }
    rules.push_str("table bridge lightship_lab {\n");
    let chains = [
        ("prerouting", prerouting),
        ("forward", forward),
        ("input", input),
        ("output", output),
    ];
    for (hook, lines) in chains {
        let _ = writeln!(
            rules,
            "chain {hook} {{ type filter hook {hook} priority 0; policy accept;\n{lines}}}"
        );
    }
    rules.push_str("}\n");
    rules
}

fn filter_rules(
    node: &Node,
    nodes: &[Node],
    filter: PortFilter,
    sends: &mut String,
    gets: &mut String,
) {
    let (port, mac) = (node.spec.port(), &node.spec.mac);
    match filter {
        PortFilter::OwnMacSends => {
            let _ = writeln!(sends, "iifname {port} ether saddr != {mac} drop");
        }
        PortFilter::OwnMacReceives => {
            let unicast = "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00";
            let _ = writeln!(gets, "oifname {port} {unicast} ether daddr != {mac} drop");
        }
        PortFilter::OwnAddressSends => {
            only_from(
                std::slice::from_ref(node),
                &format!("iifname {port}"),
                sends,
            );
        }
        PortFilter::NodeAddressReceives => {
            let ports: Vec<String> = nodes.iter().map(|node| node.spec.port()).collect();
            let way = format!("iifname {{ {} }} oifname {port}", ports.join(", "));
            only_from(nodes, &way, gets);
        }
    }
}

/// Drops what comes this way from other addresses than these nodes'.
fn only_from(nodes: &[Node], way: &str, rules: &mut String) {
    let all = nodes.iter().flat_map(|node| &node.spec.addresses);
    let (v4, mut v6): (Vec<IpNet>, Vec<IpNet>) = all
        .map(|address| IpNet::from(address.addr()))
        .partition(|address| address.addr().is_ipv4());
    if !v6.is_empty() {
        v6.extend(["fe80::/10", "::/128"].map(|net| net.parse::<IpNet>().expect("a network")));
    }
    for (family, known) in [("ip", v4), ("ip6", v6)] {
        if !known.is_empty() {
            let known: Vec<String> = known.iter().map(IpNet::to_string).collect();
            let known = known.join(", ");
            let _ = writeln!(rules, "{way} {family} saddr != {{ {known} }} drop");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::addressing::Families;
    use crate::nodes;
    use crate::options::{Options, SubstrateKind};
    use crate::state::LabDir;

    fn three_nodes() -> Vec<Node> {
        let kind = Some(SubstrateKind::Netns);
        let options = Options::resolve(3, kind, None, Families::Dual, false).unwrap();
        let nowhere = Path::new("/nowhere");
        nodes::plan(&LabDir::from_environment(), &options, nowhere, nowhere)
    }

    #[test]
    fn without_a_fault_the_bridge_has_no_rule() {
        let rules = partition_rules(&three_nodes());
        assert!(
            rules.ends_with("delete table bridge lightship_lab\n"),
            "{rules}"
        );
        assert!(!rules.contains("drop"), "{rules}");
    }

    #[test]
    fn a_partition_cuts_both_ways_between_nodes_and_spares_the_control_plane() {
        let mut nodes = three_nodes();
        nodes[1].faults.insert(Fault::Partition);
        let rules = partition_rules(&nodes);
        for rule in [
            "iifname node2 oifname { node1, node3 } drop\n",
            "iifname { node1, node3 } oifname node2 drop\n",
        ] {
            assert!(rules.contains(rule), "{rules}");
        }
        assert_eq!(rules.matches("drop").count(), 2, "{rules}");
    }

    #[test]
    fn a_filter_names_the_port_and_what_is_its_own() {
        let mut nodes = three_nodes();
        let all = [
            PortFilter::OwnMacSends,
            PortFilter::OwnMacReceives,
            PortFilter::OwnAddressSends,
            PortFilter::NodeAddressReceives,
        ];
        nodes[1].faults.extend(all.map(Fault::Filter));
        let rules = partition_rules(&nodes);
        let mac = &nodes[1].spec.mac;
        let v4 = nodes[1].spec.addresses[0].addr();
        let known = nodes.iter().map(|node| node.spec.addresses[0].addr());
        let known: Vec<String> = known.map(|address| format!("{address}/32")).collect();
        let known = known.join(", ");
        for rule in [
            format!("iifname node2 ether saddr != {mac} drop\n"),
            format!("ether daddr != {mac} drop\n"),
            format!("iifname node2 ip saddr != {{ {v4}/32 }} drop\n"),
            format!(
                "iifname {{ node1, node2, node3 }} oifname node2 ip saddr != {{ {known} }} drop\n"
            ),
        ] {
            assert!(rules.contains(&rule), "{rules}");
        }
    }

    #[test]
    fn a_partition_from_the_control_plane_cuts_that_too() {
        let mut nodes = three_nodes();
        nodes[0].faults.insert(Fault::PartitionFromApi);
        let rules = partition_rules(&nodes);
        assert!(rules.contains("\niifname node1 drop\n"), "{rules}");
        assert!(rules.contains("\noifname node1 drop\n"), "{rules}");
    }
}
