//! What the kernels of the nodes hold in their director's namespace.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lightship_lab::{Lab, sh};

/// Name of the director's network namespace on every node.
pub const NETNS: &str = "lightship";

/// One destination of a service, in the table's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The node's address and the port.
    pub address: String,
    /// `Route`: only the MAC address changes.
    pub forward: String,
    /// Its share.
    pub weight: u32,
}

/// One service of an IPVS table as `ipvsadm -Ln --nosort` prints it, without its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `TCP`, `UDP`, ….
    pub protocol: String,
    /// Address and port.
    pub address: SocketAddr,
    /// Scheduler and flags: `mh (mh-fallback,mh-port)`.
    pub scheduling: String,
    /// Where connections go.
    pub destinations: Vec<Destination>,
}

/// Runs `argv` in the director's namespace of a node and gives what it printed.
///
/// # Errors
/// When the node does not run, or the command fails.
pub fn run(lab: &Lab, node: &str, argv: &[&str]) -> Result<String> {
    let all = [&["ip", "netns", "exec", NETNS], argv].concat();
    let output = lab.exec(node, &all)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} on {node} failed: {}", argv.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The IPVS table of a node: services in the order of their addresses, as the kernel's depends on where its memory
/// is, and of each the destinations in the kernel's order, on which the scheduler depends.
///
/// # Errors
/// When `ipvsadm` does not run there, or prints what this does not understand.
pub fn table(lab: &Lab, node: &str) -> Result<Vec<Entry>> {
    // It would sort destinations too.
    let mut entries = parse(&run(lab, node, &["ipvsadm", "-Ln", "--nosort"])?)?;
    entries.sort_by(|a, b| (&a.protocol, a.address).cmp(&(&b.protocol, b.address)));
    Ok(entries)
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    // Three lines of headings.
    for line in text.lines().skip(3) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["->", address, forward, weight, ..] => {
                let Some(entry) = entries.last_mut() else {
                    bail!("a destination without a service: {line}");
                };
                entry.destinations.push(Destination {
                    address: address.to_owned(),
                    forward: forward.to_owned(),
                    weight: weight.parse()?,
                });
            }
            [protocol, address, ..] => entries.push(Entry {
                protocol: protocol.to_owned(),
                address: address.parse()?,
                scheduling: words[2..].join(" "),
                destinations: Vec::new(),
            }),
            _ => {}
        }
    }
    Ok(entries)
}

/// The connections that a node's director knows, as `protocol client virtual destination`. They are
/// gone when a destination is removed or the namespace is made anew.
///
/// # Errors
/// When `ipvsadm` does not run there.
pub fn connections(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let text = run(lab, node, &["ipvsadm", "-Lnc"])?;
    let lines = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [
                protocol @ ("TCP" | "UDP"),
                _,
                _,
                client,
                service,
                destination,
            ] => Some(format!("{protocol} {client} {service} {destination}")),
            _ => None,
        }
    });
    Ok(lines.collect())
}

/// The addresses that a node's director takes in: its local routes, but for the kernel's own.
///
/// # Errors
/// When `ip` does not run there.
pub fn addresses(lab: &Lab, node: &str) -> Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for family in ["-4", "-6"] {
        let argv = [
            "ip", family, "route", "show", "table", "local", "type", "local",
        ];
        let text = run(lab, node, &argv)?;
        let words = text
            .lines()
            .filter(|line| !line.contains("proto kernel"))
            .flat_map(str::split_whitespace);
        found.extend(words.filter_map(|word| word.parse::<IpAddr>().ok()));
    }
    Ok(found)
}

/// All routes and neighbours of a node's director, as one text to compare.
///
/// # Errors
/// When `ip` does not run there.
pub fn network(lab: &Lab, node: &str) -> Result<String> {
    let mut text = String::new();
    for line in ["-4 route show table all", "-6 route show table all"] {
        let words: Vec<&str> = line.split(' ').collect();
        text += &run(lab, node, &[&["ip"], &words[..]].concat())?;
    }
    text += &run(lab, node, &["ip", "neigh", "show", "nud", "permanent"])?;
    text += &run(lab, node, &["ip", "-o", "link", "show"])?;
    Ok(text)
}

/// Waits until no director knows an address any more.
///
/// # Errors
/// When one still does after `limit`; the message says which.
pub fn wait_gone(lab: &Lab, address: IpAddr, limit: Duration) -> Result<()> {
    let mut last = String::new();
    let gone = sh::wait_for(
        &format!("{address} leaves every director"),
        lab.within(limit),
        Duration::from_millis(200),
        || {
            for node in lab.node_names() {
                let entries = table(lab, &node)?;
                let directed = entries.iter().any(|e| e.address.ip() == address);
                if directed || addresses(lab, &node)?.contains(&address) {
                    last = node;
                    return Ok(None);
                }
            }
            Ok(Some(()))
        },
    );
    gone.map_err(|error| error.context(format!("it is still on {last}")))
}

/// Waits until the directors of these nodes hold one and the same table, which is as `wanted` says.
///
/// # Errors
/// When they do not within `limit`, with what they held last.
pub fn wait_alike(
    lab: &Lab,
    nodes: &[String],
    what: &str,
    limit: Duration,
    wanted: impl Fn(&[Entry]) -> bool,
) -> Result<Vec<Entry>> {
    let mut last = Vec::new();
    let found = sh::wait_for(
        &format!("the directors of {nodes:?} {what}"),
        lab.within(limit),
        Duration::from_millis(200),
        || {
            let all = nodes.iter().map(|node| table(lab, node));
            last = all.collect::<Result<Vec<_>>>()?;
            let alike = last.windows(2).all(|two| two[0] == two[1]);
            let first = last.first().filter(|first| alike && wanted(first));
            Ok(first.cloned())
        },
    );
    found.with_context(|| format!("last seen: {last:#?}"))
}

/// The MAC address of a node's director.
///
/// # Errors
/// When it has none.
pub fn mac(lab: &Lab, node: &str) -> Result<String> {
    let text = run(lab, node, &["ip", "-o", "link", "show", "ls-dir"])?;
    let mut words = text.split_whitespace();
    words.find(|word| *word == "link/ether");
    let mac = words.next().context("ls-dir has no MAC address")?;
    Ok(mac.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_in_its_order() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
            TCP  192.0.2.200:80 mh (mh-fallback,mh-port)\n  \
              -> 192.0.2.12:80                Route   1      3          0\n  \
              -> 192.0.2.11:80                Route   0      0          7\n\
            UDP  [2001:db8:2::200]:80 mh (mh-fallback,mh-port)\n";
        let entries = parse(text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].scheduling, "mh (mh-fallback,mh-port)");
        let destinations: Vec<_> = entries[0]
            .destinations
            .iter()
            .map(|d| (d.address.as_str(), d.forward.as_str(), d.weight))
            .collect();
        let expected = [("192.0.2.12:80", "Route", 1), ("192.0.2.11:80", "Route", 0)];
        assert_eq!(destinations, expected);
        assert_eq!(entries[1].address.port(), 80);
    }
}
