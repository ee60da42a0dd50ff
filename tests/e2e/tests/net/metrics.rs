//! What the daemons tell on their monitoring ports while they run.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_lab::{Lab, addressing, sh};

use crate::modes::kernel_directs;

const SPEAKER: u16 = 7734;
const CONTROLLER: u16 = 7735;

/// What a node gets by HTTP from `path`, with the status.
fn get(lab: &Lab, from: &str, host: IpAddr, port: u16, path: &str) -> Result<(String, String)> {
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
fn value(page: &str, metric: &str) -> Result<f64> {
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
pub(crate) fn alive(lab: &Lab, node: &str) -> Result<f64> {
    let metric = "lightship_speaker_peers{state=\"alive\"}";
    value(&page(lab, node)?, metric)
}

/// What a node's speaker counts under a name, whatever the labels.
pub(crate) fn counted(lab: &Lab, node: &str, metric: &str) -> Result<f64> {
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
pub(crate) fn counted_by_all(lab: &Lab, metric: &str) -> Result<f64> {
    let nodes = lab.node_names();
    nodes.iter().map(|node| counted(lab, node, metric)).sum()
}

/// A datagram that is no heartbeat is counted as refused; directors, and those that agree, are counted
/// where there are any.
fn strangers_and_directors(lab: &Lab) -> Result<()> {
    let nodes = lab.node_names();
    let directors = if kernel_directs() { nodes.len() } else { 0 } as f64;
    for node in &nodes {
        for metric in ["directors", "directors_agreeing"] {
            let told = counted(lab, node, metric)?;
            ensure!(told == directors, "{node}: {metric} is {told}");
        }
    }
    let to = &lab.state().nodes[0].spec;
    let refused = || counted(lab, &to.name, "heartbeats_refused_total");
    let before = refused()?;
    let address = to.addresses.first().context("no address")?.addr();
    let send = format!("echo no heartbeat > /dev/udp/{address}/7733");
    lab.client(&["bash", "-c", &send])?;
    let patience = Duration::from_secs(10);
    sh::wait_for("a refusal", patience, Duration::from_millis(200), || {
        Ok((refused()? > before).then_some(()))
    })
}

/// Both daemons are ready and count what is there.
pub(crate) fn served(lab: &mut Lab) -> Result<()> {
    let nodes = &lab.state().nodes;
    let first = nodes.first().context("no nodes")?.spec.name.clone();
    let vips = lab.kubectl_json(&["get", "virtualips"])?;
    let vips = vips["items"].as_array().map_or(0, Vec::len) as f64;
    let patience = Duration::from_secs(15);
    sh::wait_for(
        "the speakers' counts",
        patience,
        Duration::from_millis(500),
        || {
            let mut owned = 0.0;
            for node in nodes {
                let host = node.spec.addresses.first().context("no address")?.addr();
                let ask = |path| get(lab, &first, host, SPEAKER, path);
                for probe in ["/readyz", "/healthz"] {
                    let (status, body) = ask(probe)?;
                    ensure!(status == "200", "{}: {probe}: {body}", node.spec.name);
                }
                let (_, page) = ask("/metrics")?;
                let of = |metric: &str| value(&page, &format!("lightship_speaker_{metric}"));
                let heard = alive(lab, &node.spec.name)?;
                ensure!(heard == nodes.len() as f64 - 1.0, "{page}");
                ensure!(of("api_watch_up{kind=\"Node\"}")? == 1.0, "{page}");
                ensure!(of("core_lateness_seconds_count")? > 0.0, "{page}");
                ensure!(of("vips")? <= vips, "{page}");
                owned += of("vips_announced")?;
            }
            // The counts are told once a second.
            Ok((owned == vips).then_some(()))
        },
    )?;
    strangers_and_directors(lab)?;
    let controller: IpAddr = addressing::host(lab.state().options.families)
        .first()
        .context("no control plane")?
        .addr();
    let (status, body) = get(lab, &first, controller, CONTROLLER, "/readyz")?;
    ensure!(status == "200", "controller: {body}");
    let (_, page) = get(lab, &first, controller, CONTROLLER, "/metrics")?;
    let of = |metric: &str| value(&page, &format!("lightship_controller_{metric}"));
    ensure!(of("leader")? == 1.0, "{page}");
    ensure!(of("services{has_address=\"false\"}")? == 0.0, "{page}");
    ensure!(of("decision_duration_seconds_count")? > 0.0, "{page}");
    ensure!(
        page.contains("lightship_controller_pool_addresses{pool="),
        "{page}"
    );
    Ok(())
}
