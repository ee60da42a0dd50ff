//! What daemons tell on their monitoring ports.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lightship_lab::Lab;

/// A speaker's monitoring port.
pub const SPEAKER: u16 = 7734;

/// What a node gets by HTTP from `path`: the status and the body.
///
/// # Errors
/// When nobody answers.
pub fn get(lab: &Lab, from: &str, host: IpAddr, port: u16, path: &str) -> Result<(String, String)> {
    let at = std::net::SocketAddr::new(host, port);
    let url = format!("http://{at}{path}");
    let argv = ["curl", "-sS", "--max-time", "5", "-w", "%{http_code}", &url];
    let output = lab.exec(from, &argv)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{url}: {}", said.trim());
    let page = String::from_utf8(output.stdout)?;
    let (body, status) = page.split_at(page.len().saturating_sub(3));
    Ok((status.to_owned(), body.to_owned()))
}

/// The value of a metric, with its labels as they are printed.
///
/// # Errors
/// When it is not on the page.
pub fn value(page: &str, metric: &str) -> Result<f64> {
    let mut lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(name, _)| *name == metric);
    let (_, value) = found.with_context(|| format!("no {metric} in\n{page}"))?;
    Ok(value.parse()?)
}

/// All that a node's speaker tells.
fn page(lab: &Lab, node: &str) -> Result<String> {
    let mut nodes = lab.state().nodes.iter().map(|node| &node.spec);
    let spec = nodes.find(|spec| spec.name == node).context("no node")?;
    let host = spec.addresses.first().context("no address")?.addr();
    Ok(get(lab, node, host, SPEAKER, "/metrics")?.1)
}

/// How many other speakers a node's speaker hears.
///
/// # Errors
/// When it does not say so.
pub fn alive(lab: &Lab, node: &str) -> Result<f64> {
    let metric = "lightship_speaker_peers{state=\"alive\"}";
    value(&page(lab, node)?, metric)
}

/// What a node's speaker counts under a name, whatever the labels.
///
/// # Errors
/// When it does not know the name.
pub fn counted(lab: &Lab, node: &str, metric: &str) -> Result<f64> {
    let page = page(lab, node)?;
    let name = format!("lightship_speaker_{metric}");
    ensure!(
        page.contains(&format!("# TYPE {}", name.trim_end_matches("_total"))),
        "{node} has no {name}:\n{page}"
    );
    let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    let ours = lines.filter(|(found, _)| found.split('{').next() == Some(&name));
    ours.map(|(_, value)| Ok(value.parse::<f64>()?)).sum()
}

/// The same of all nodes together.
///
/// # Errors
/// As [`counted`].
pub fn counted_by_all(lab: &Lab, metric: &str) -> Result<f64> {
    let nodes = lab.node_names();
    nodes.iter().map(|node| counted(lab, node, metric)).sum()
}

/// How many questions a node's speaker has answered, by ARP or NDP as an address needs. It tells once a second.
///
/// # Errors
/// As [`counted`].
pub fn answers(lab: &Lab, node: &str, address: IpAddr) -> Result<f64> {
    let metric = match address {
        IpAddr::V4(_) => "arp_answers_total",
        IpAddr::V6(_) => "ndp_answers_total",
    };
    counted(lab, node, metric)
}
