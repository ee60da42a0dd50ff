//! What the daemons tell on their monitoring ports while they run.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::metrics::{SPEAKER, alive, counted, get, value};
use lightship_lab::{Lab, addressing, sh};

use crate::modes::kernel_directs;

const CONTROLLER: u16 = 7735;

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
