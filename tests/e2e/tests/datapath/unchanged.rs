//! What kube-proxy does works as before.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use lightship_e2e::scene::Wish;
use lightship_lab::{Lab, sh};
use serde_json::json;

use crate::common::Served;

fn url(address: IpAddr, port: u64) -> String {
    match address {
        IpAddr::V4(v4) => format!("http://{v4}:{port}/"),
        IpAddr::V6(v6) => format!("http://[{v6}]:{port}/"),
    }
}

/// `loadBalancerSourceRanges`: kube-proxy sees the client's own address behind the director,
/// and keeps out who is not named.
pub(crate) fn source_ranges(lab: &mut Lab) -> Result<()> {
    let wish = Wish::local("ranges");
    Served::during(lab, &wish, |lab, vips| {
        let url = url(vips[0], 80);
        let allow = |lab: &Lab, ranges: &[&str]| {
            let patch = json!({ "spec": { "loadBalancerSourceRanges": ranges } });
            lab.kubectl(&["patch", "service", "ranges", "-p", &patch.to_string()])
        };
        let becomes = |lab: &Lab, what: &str, wanted: usize| {
            // Each question is another connection, so they meet all nodes.
            sh::wait_for(
                &format!("{wanted} of 12 questions are answered {what}"),
                Duration::from_secs(90),
                Duration::from_millis(500),
                || {
                    let script = format!(
                        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do \
                         curl -s -m 0.5 -o /dev/null -w '%{{http_code}} ' {url}; done"
                    );
                    let output = lab.client(&["sh", "-c", &script])?;
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    Ok((text.matches("200").count() == wanted).then_some(()))
                },
            )
        };
        becomes(lab, "without a range", 12)?;
        allow(lab, &["198.51.100.0/24"])?;
        becomes(lab, "to one outside the range", 0)?;
        allow(lab, &["198.51.100.0/24", "192.0.2.100/32"])?;
        becomes(lab, "to one in a range", 12)
    })
}
