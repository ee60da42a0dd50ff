//! Clients that come before kube-proxy is ready.

use std::time::Duration;

use anyhow::{Result, ensure};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{probe, vip};
use lightship_lab::Lab;

/// Directors are ready long before kube-proxy. A client that comes in between, because it has
/// the MAC address in its cache or is fast, must not be remembered by any node's connection
/// tracking as one without translation: for two minutes its port would get no answer.
pub(crate) fn clients(lab: &mut Lab) -> Result<()> {
    // The same address each time.
    let wish = Wish::local("early").fresh();
    let mut object = wish.object();
    let outcome = (|| -> Result<()> {
        let address = scene::service(lab, &wish)?[0];
        object["metadata"]["annotations"]["lightship.dev/addresses"] = address.to_string().into();
        for _ in 0..3 {
            scene::delete_service(lab, wish.name)?;
            lab.apply(&object.to_string())?;
            let seen = probe::stream_for(lab, address, 5, Duration::from_secs(2), false)?;
            ensure!(seen.failures > 0, "kube-proxy was ready at once: {seen:?}");
            eprintln!("    {} of {} came too early", seen.failures, seen.requests);
            for node in lab.node_names() {
                let tracked = untranslated(lab, &node, &address.to_string())?;
                ensure!(
                    tracked.is_empty(),
                    "{node} tracks {} connections to {address} itself, such as {}",
                    tracked.len(),
                    tracked[0]
                );
            }
        }
        let nodes = lab.node_names().len();
        vip::wait_settled(lab, address, nodes, Duration::from_secs(30))?;
        scene::wait_served(lab, address, nodes)
    })();
    scene::delete_service(lab, wish.name)?;
    outcome
}

/// Connections that a node tracks to `vip` whose answers would come from `vip`, too: they were
/// routed without having been translated.
fn untranslated(lab: &Lab, node: &str, vip: &str) -> Result<Vec<String>> {
    let output = lab.exec(node, &["cat", "/proc/net/nf_conntrack"])?;
    ensure!(output.status.success(), "no /proc/net/nf_conntrack there");
    let (to, from) = (format!(" dst={vip} "), format!(" src={vip} "));
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains(&to) && line.contains(&from))
        .map(str::to_owned)
        .collect())
}
