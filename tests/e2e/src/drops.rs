//! What the kernels of a lab have dropped: where to look first when a connection was lost.

use std::collections::BTreeMap;

use anyhow::Result;
use lightship_lab::Lab;

/// Prints what [`parse`] reads, of the namespace it runs in. `nf_conntrack` counts per
/// namespace, `softnet_stat` per machine.
const READ: &str = "cd /proc/net; cat netstat snmp; \
     echo softnet; cat softnet_stat; echo conntrack; cat stat/nf_conntrack 2>/dev/null; \
     echo devices; cat dev; echo end";

/// Words that tell a counter of trouble.
const TROUBLE: [&str; 12] = [
    "drop",
    "fail",
    "err",
    "overflow",
    "discard",
    "retrans",
    "timeout",
    "noroute",
    "rpfilter",
    "invalid",
    "reject",
    "estabresets",
];

/// Counters of trouble since each kernel booted, by place and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops(BTreeMap<String, u64>);

impl Drops {
    /// As they are now. A node that does not answer has none.
    ///
    /// # Errors
    /// When a command cannot be started.
    pub fn read(lab: &Lab) -> Result<Self> {
        let mut all = BTreeMap::new();
        let client = lab.client(&["sh", "-c", READ])?;
        parse("client", &String::from_utf8_lossy(&client.stdout), &mut all);
        let both = format!("{READ}; ip netns exec lightship sh -c '{READ}' 2>/dev/null");
        for node in lab.node_names() {
            let Ok(output) = lab.exec(&node, &["sh", "-c", &both]) else {
                continue;
            };
            let text = String::from_utf8_lossy(&output.stdout);
            let mut parts = text.split("\nend\n");
            parse(&node, parts.next().unwrap_or_default(), &mut all);
            let director = format!("{node} director");
            parse(&director, parts.next().unwrap_or_default(), &mut all);
        }
        Ok(Self(all))
    }

    /// What was counted since `self` was read, one `place counter +n` each.
    ///
    /// # Errors
    /// When a command cannot be started.
    pub fn since(&self, lab: &Lab) -> Result<Vec<String>> {
        let now = Self::read(lab)?;
        let more = now.0.iter().filter_map(|(name, value)| {
            let added = value.saturating_sub(self.0.get(name).copied().unwrap_or(0));
            (added > 0).then(|| format!("{name} +{added}"))
        });
        Ok(more.collect())
    }
}

/// Adds the counters of trouble in a [`READ`] to `all`.
fn parse(place: &str, text: &str, all: &mut BTreeMap<String, u64>) {
    let mut add = |name: String, value: u64| {
        let lower = name.to_lowercase();
        if TROUBLE.iter().any(|word| lower.contains(word)) {
            *all.entry(format!("{place} {name}")).or_default() += value;
        }
    };
    let mut part = "snmp";
    let mut header: Vec<&str> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (part, words.as_slice()) {
            (_, [name @ ("softnet" | "conntrack" | "devices" | "end")]) => {
                part = name;
                header.clear();
            }
            // A line of names, then one of values (net/ipv4/proc.c).
            ("snmp", [group, rest @ ..]) if group.ends_with(':') => {
                if header.is_empty() {
                    header = rest.to_vec();
                    continue;
                }
                for (name, value) in header.drain(..).zip(rest) {
                    add(format!("{group}{name}"), value.parse().unwrap_or(0));
                }
            }
            // One line per processor, hexadecimal (net/core/net-procfs.c).
            ("softnet", [_, dropped, ..]) => {
                add("softnet:dropped".into(), hexadecimal(dropped));
            }
            ("conntrack", row) => {
                if header.is_empty() {
                    header = row.to_vec();
                    continue;
                }
                for (name, value) in header.iter().zip(row) {
                    add(format!("conntrack:{name}"), hexadecimal(value));
                }
            }
            // rx: bytes packets errs drop …, 8 of them, then tx alike (net/core/net-procfs.c).
            ("devices", [device, values @ ..]) if device.ends_with(':') && values.len() >= 12 => {
                for (name, at) in [
                    ("rx_errs", 2),
                    ("rx_drop", 3),
                    ("tx_errs", 10),
                    ("tx_drop", 11),
                ] {
                    add(format!("{device}{name}"), values[at].parse().unwrap_or(0));
                }
            }
            _ => {}
        }
    }
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "TcpExt: SyncookiesSent ListenDrops TCPTimeouts\n\
         TcpExt: 1 2 3\n\
         softnet\n\
         0000ffff 0000000a 00000000 0 0\n\
         00000001 00000001 00000000 0 0\n\
         conntrack\n\
         entries invalid insert_failed drop\n\
         00000010  00000002 00000000 0000000b\n\
         devices\n\
         Inter-|   Receive\n\
         vec0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";

    #[test]
    fn only_trouble_is_counted() {
        let mut all = BTreeMap::new();
        parse("node1", TEXT, &mut all);
        let all: Vec<_> = all.iter().map(|(name, n)| format!("{name} {n}")).collect();
        assert_eq!(
            all,
            [
                "node1 TcpExt:ListenDrops 2",
                "node1 TcpExt:TCPTimeouts 3",
                "node1 conntrack:drop 11",
                "node1 conntrack:insert_failed 0",
                "node1 conntrack:invalid 2",
                "node1 softnet:dropped 11",
                "node1 vec0:rx_drop 4",
                "node1 vec0:rx_errs 3",
                "node1 vec0:tx_drop 8",
                "node1 vec0:tx_errs 7",
            ]
        );
    }
}
