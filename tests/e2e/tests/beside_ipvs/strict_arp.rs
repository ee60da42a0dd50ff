//! kube-proxy's `strictARP`, which must be on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::object;
use lightship_lab::Lab;

/// What kube-proxy sets for `strictARP`.
const ARP_IGNORE: &str = "net.ipv4.conf.all.arp_ignore";

/// A node whose kernel answers ARP for every VIP says so, and what to do, until it is mended.
pub(crate) fn said(lab: &mut Lab) -> Result<()> {
    let node = lab.node_names().into_iter().next().context("no node")?;
    wait_ready(lab, &node, "True", "Running")?;
    set(lab, &node, 0)?;
    let seen = wait_ready(lab, &node, "False", "StrictARPOff");
    set(lab, &node, 1)?;
    let message = seen?;
    ensure!(message.contains("ipvs.strictARP: true"), "{message}");
    wait_ready(lab, &node, "True", "Running")?;
    Ok(())
}

fn set(lab: &Lab, node: &str, value: u8) -> Result<()> {
    let setting = format!("{ARP_IGNORE}={value}");
    let output = lab.exec(node, &["sysctl", "-qw", &setting])?;
    ensure!(output.status.success(), "sysctl {setting}: {output:?}");
    Ok(())
}

/// Waits for the condition `Ready` of a node's Speaker, and gives its message.
fn wait_ready(lab: &Lab, node: &str, status: &str, reason: &str) -> Result<String> {
    let what = format!("is Ready={status}, {reason}");
    let found = object::wait(
        lab,
        ("speaker", node),
        &what,
        Duration::from_secs(30),
        |speaker| object::condition(speaker, "Ready").is_some_and(|ready| ready.is(status, reason)),
    )?;
    let ready = object::condition(&found, "Ready").context("no condition")?;
    Ok(ready.message.to_owned())
}
