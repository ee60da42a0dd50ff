//! A machine that was copied with its MAC address.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::metrics::counted;
use lightship_e2e::object::{self, Condition};
use lightship_lab::{Lab, sh};
use serde_json::Value;

use crate::common::figure;
use crate::speakers;

/// A Speaker's condition `MACsUnique`.
fn unique(speaker: &Value) -> Option<Condition<'_>> {
    object::condition(speaker, "MACsUnique")
}

/// Two nodes with one MAC address are named, with it, until one of them gets its own back.
pub(crate) fn told(lab: &mut Lab) -> Result<()> {
    let nodes: Vec<_> = lab.state().nodes.iter().map(|node| &node.spec).collect();
    let [original, copy, onlooker] = nodes[..] else {
        anyhow::bail!("{} nodes, and not three", nodes.len());
    };
    let content = |speaker: &Value| unique(speaker).is_some_and(|c| c.is("True", "Unique"));
    for node in &nodes {
        speakers::wait(lab, &node.name, "knows no clash", content)?;
    }
    let set = |mac: &str| {
        let argv = ["ip", "link", "set", "eth0", "address", mac];
        speakers::on_node(lab, &copy.name, &argv)
    };
    set(&original.mac)?;
    let start = std::time::Instant::now();
    // The two may not hear each other: the LAN gives each frame for the address to one of them. The third
    // hears both.
    let named = speakers::wait(lab, &onlooker.name, "names the clash", |speaker| {
        unique(speaker).is_some_and(|c| c.is("False", "MACClash"))
    });
    let took = start.elapsed();
    let clashes = |count: f64| {
        let often = Duration::from_millis(200);
        sh::wait_for(
            "the count of clashes",
            Duration::from_secs(10),
            often,
            || {
                let told = counted(lab, &onlooker.name, "mac_clashes")?;
                Ok((told == count).then_some(()))
            },
        )
    };
    let one = named.is_ok().then(|| clashes(1.0));
    set(&copy.mac)?;
    let named = named?;
    one.transpose()?;
    clashes(0.0)?;
    figure("said after", took);
    let message = unique(&named).context("no condition")?.message;
    eprintln!("    {message}");
    let who = format!("{} and {} have {}", original.name, copy.name, original.mac);
    ensure!(message.starts_with(&who), "{message}");
    ensure!(message.contains("a MAC address of their own"), "{message}");
    for node in &nodes {
        speakers::wait(lab, &node.name, "knows no clash any more", content)?;
    }
    // The other two have to find the way to it again before the next test.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}
