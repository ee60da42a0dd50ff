//! `lab status`: what runs, where, and since when.

use std::fmt::Write as _;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::addressing;
use crate::lab::Lab;
use crate::process::Process;
use crate::state::{Fault, Node, PortFilter};
use crate::substrate::{CLIENT_NETNS, LAB_NETNS};

/// One line of the table.
struct Row {
    what: String,
    place: String,
    pid: String,
    since: String,
    state: String,
}

/// The table, ready to print.
pub fn table(lab: &Lab) -> String {
    let state = lab.state();
    let mut rows = Vec::new();
    for (name, process) in &state.processes {
        if state.node(name).is_err() {
            rows.push(row(name, LAB_NETNS, Some(process), ""));
        }
    }
    for node in &state.nodes {
        rows.extend(node_rows(node, state.processes.get(&node.spec.name)));
    }
    let addresses = addressing::client(state.options.families);
    rows.push(Row {
        what: "client".into(),
        place: CLIENT_NETNS.into(),
        pid: "-".into(),
        since: "-".into(),
        state: text(&addresses),
    });

    let mut table = format!("lab {} ({})\n", state.options, lab.dir().root().display());
    let _ = writeln!(
        table,
        "{:<24} {:<20} {:>8} {:>8}  STATE",
        "WHAT", "WHERE", "PID", "SINCE"
    );
    for row in rows {
        let _ = writeln!(
            table,
            "{:<24} {:<20} {:>8} {:>8}  {}",
            row.what, row.place, row.pid, row.since, row.state
        );
    }
    table
}

fn text<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" ")
}

fn node_rows(node: &Node, process: Option<&Process>) -> Vec<Row> {
    let spec = &node.spec;
    let addresses: Vec<_> = spec.addresses.iter().map(ipnet::IpNet::addr).collect();
    let note = node
        .faults
        .iter()
        .map(|fault| match fault {
            Fault::Crash => "crashed",
            Fault::Unplug => "unplugged",
            Fault::Pause => "paused",
            Fault::Partition => "cut off from the other nodes",
            Fault::PartitionFromApi => "cut off from the other nodes and the API server",
            Fault::StopSpeaker => "speaker stopped",
            Fault::Filter(PortFilter::OwnMacSends) => "port: only its own MAC may send",
            Fault::Filter(PortFilter::OwnMacReceives) => "port: only frames to its own MAC",
            Fault::Filter(PortFilter::OwnAddressSends) => "port: only its own addresses may send",
            Fault::Filter(PortFilter::NodeAddressReceives) => {
                "port: from nodes only their own addresses"
            }
        })
        .collect::<Vec<_>>()
        .join(", ");
    let mut rows = vec![row(&spec.name, &text(&addresses[..1]), process, &note)];
    if process.is_some_and(Process::is_alive) {
        for daemon in ["kube-proxy", "speaker"] {
            // Their ids mean something inside the node alone.
            if let Ok(pid) = fs::read_to_string(spec.dir.join(format!("{daemon}.pid"))) {
                rows.push(Row {
                    what: format!("  {daemon}"),
                    place: format!("in {}", spec.name),
                    pid: pid.trim().to_owned(),
                    since: "-".into(),
                    state: "kept running by the node".into(),
                });
            }
        }
    }
    rows
}

fn row(what: &str, place: &str, process: Option<&Process>, note: &str) -> Row {
    let alive = process.is_some_and(Process::is_alive);
    let state = match (alive, note.is_empty()) {
        (true, true) => "running".to_owned(),
        (false, true) => "ENDED".to_owned(),
        (_, false) => note.to_owned(),
    };
    let alive = process.filter(|_| alive);
    Row {
        what: what.to_owned(),
        place: place.to_owned(),
        pid: alive.map_or("-".into(), |process| process.pid.to_string()),
        since: alive.map_or("-".into(), |process| age(process.since)),
        state,
    }
}

/// How long ago, in the largest unit that is not zero.
fn age(since: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let seconds = now.saturating_sub(since);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}
