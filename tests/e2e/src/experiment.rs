//! One disturbance of the node that owns an address, while many connections stand and new
//! ones are opened every 20 ms; and what that cost, as the client saw it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_lab::{How, Lab};

use crate::probe::{Flows, Outage, Probe, Stream, ms_between, now_ns};
use crate::vip;

/// New connections are opened so often, in milliseconds.
pub const PACE: u32 = 20;

/// How it runs before it is disturbed.
const BEFORE: Duration = Duration::from_secs(1);

/// What is done, and how long its effect is watched.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections that stand.
    pub flows: usize,
    /// The fault.
    pub how: How,
    /// The time that is watched after it.
    pub watch: Duration,
    /// The API server is stopped first, and stays so.
    pub api_stopped: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The node that was disturbed: it owned the address.
    pub owner: String,
    /// When it was (ns since 1970).
    pub at_ns: u64,
    /// The connections that stood.
    pub flows: Flows,
    /// The new connections.
    pub stream: Stream,
    /// When each connection that was lost ended, in milliseconds after the disturbance.
    pub lost_after_ms: Vec<f64>,
}

/// Does it.
///
/// # Errors
/// When the address has no owner, or a probe or the fault cannot be started.
pub fn run(lab: &mut Lab, address: IpAddr, plan: Plan) -> Result<Outcome> {
    let owner = vip::owner(lab, address)?;
    if plan.api_stopped {
        lab.stop_api()?;
    }
    let traffic = Traffic::start(lab, address, plan.flows)?;
    thread::sleep(BEFORE);
    traffic.disturb(lab, &owner, plan.how, plan.watch)
}

/// Connections that stand and connections that come, until it is disturbed.
#[derive(Debug)]
pub struct Traffic {
    flows: Probe,
    stream: Probe,
}

impl Traffic {
    /// Opens `count` connections and starts to open new ones.
    ///
    /// # Errors
    /// When a probe cannot be started.
    pub fn start(lab: &Lab, address: IpAddr, count: usize) -> Result<Self> {
        let flows = Probe::flows(lab, address, count)?;
        let stream = Probe::stream(lab, address, PACE, false)?;
        Ok(Self { flows, stream })
    }

    /// The connections that stand, by node.
    pub fn by_node(&mut self) -> BTreeMap<String, u64> {
        let opened = self.flows.events("all-open");
        let nodes = opened.first().and_then(|event| event["nodes"].as_object());
        nodes
            .into_iter()
            .flatten()
            .filter_map(|(node, count)| Some((node.clone(), count.as_u64()?)))
            .collect()
    }

    /// Causes the fault, watches for `span` and sums up.
    ///
    /// # Errors
    /// When the fault cannot be caused, or a probe fails.
    pub fn disturb(
        mut self,
        lab: &mut Lab,
        owner: &str,
        how: How,
        span: Duration,
    ) -> Result<Outcome> {
        let at_ns = now_ns();
        lab.fail(owner, how)
            .with_context(|| format!("cannot cause {how:?} on {owner}"))?;
        thread::sleep(span);
        let lost = self.flows.events("lost");
        let lost_after_ms = lost
            .iter()
            .filter_map(|event| Some(ms_between(at_ns, event["at_ns"].as_u64()?)))
            .collect();
        Ok(Outcome {
            owner: owner.to_owned(),
            at_ns,
            stream: self.stream.end()?,
            flows: self.flows.end()?,
            lost_after_ms,
        })
    }
}

/// The first time after a moment in which new connections failed.
fn outage(stream: &Stream, at_ns: u64) -> Option<&Outage> {
    let mut outages = stream.outages.iter();
    outages.find(|outage| outage.first_success_ns.is_none_or(|end| end > at_ns))
}

/// From a moment to the begin of the first new connection that succeeded after some had failed:
/// 0 when none failed, `None` when all failed to the end.
pub fn takeover_ms(stream: &Stream, at_ns: u64) -> Option<f64> {
    match outage(stream, at_ns) {
        None => Some(0.0),
        Some(outage) => Some(ms_between(at_ns, outage.first_success_ns?)),
    }
}

impl Outcome {
    /// The first time after the disturbance in which new connections failed.
    fn outage(&self) -> Option<&Outage> {
        outage(&self.stream, self.at_ns)
    }

    /// See [`takeover_ms`].
    pub fn takeover_ms(&self) -> Option<f64> {
        takeover_ms(&self.stream, self.at_ns)
    }

    /// From the last new connection that succeeded before to the first after.
    pub fn outage_ms(&self) -> Option<f64> {
        self.outage().map_or(Some(0.0), |outage| outage.length_ms)
    }

    /// New connections that failed although they were begun after the first success.
    pub fn later_failures(&self) -> usize {
        let first = self.outage().map_or(0, |outage| outage.failures);
        let before = self.stream.outages.iter();
        let before: usize = before
            .filter(|outage| outage.first_success_ns.is_some_and(|end| end <= self.at_ns))
            .map(|outage| outage.failures)
            .sum();
        self.stream.failures - first - before
    }

    /// From the disturbance to the begin of the last new connection that failed.
    pub fn last_failure_ms(&self) -> f64 {
        let last = self.stream.outages.last();
        last.map_or(0.0, |outage| {
            let end = outage.first_success_ns.unwrap_or(outage.first_failure_ns);
            ms_between(self.at_ns, end)
        })
    }

    /// New connections that failed and were begun within so many milliseconds after the
    /// disturbance, `from` included, `to` not; each row of failures counts where it begins.
    pub fn failures_between(&self, from: f64, to: f64) -> usize {
        let outages = self.stream.outages.iter().filter(|outage| {
            let at = ms_between(self.at_ns, outage.first_failure_ns);
            outage.first_failure_ns >= self.at_ns && at >= from && at < to
        });
        outages.map(|outage| outage.failures).sum()
    }

    /// Connections that stood on the disturbed node.
    pub fn on_owner(&self) -> usize {
        self.flows.nodes.get(&self.owner).copied().unwrap_or(0)
    }

    /// Connections that stood on the other nodes.
    pub fn elsewhere(&self) -> usize {
        self.flows.opened - self.on_owner()
    }

    /// Of those, the ones that were kept.
    pub fn kept_elsewhere(&self) -> usize {
        let on_owner = self.flows.kept_nodes.get(&self.owner);
        self.flows.kept - on_owner.copied().unwrap_or(0)
    }

    /// When the last connection that was lost ended, in milliseconds after the disturbance.
    pub fn last_lost_ms(&self) -> f64 {
        self.lost_after_ms.iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(outages: serde_json::Value, failures: usize) -> Outcome {
        let stream = serde_json::json!({
            "requests": 100, "failures": failures, "errors": {}, "nodes": {}, "clients": {},
            "latency_ms": null, "longest_gap_ms": 0.0, "outages": outages,
        });
        let flows = serde_json::json!({
            "flows": 10, "opened": 10, "kept": 6, "nodes": { "node1": 4, "node2": 6 },
            "kept_nodes": { "node2": 6 }, "lost": { "node1: reset": 4 }, "changed_node": 0,
            "longest_gap_ms": 0.0, "longest_silence_before_end_ms": 0.0,
        });
        Outcome {
            owner: "node1".into(),
            at_ns: 1_000_000_000,
            flows: serde_json::from_value(flows).unwrap(),
            stream: serde_json::from_value(stream).unwrap(),
            lost_after_ms: vec![500.0, 700.0],
        }
    }

    #[test]
    fn the_takeover_ends_with_the_first_success_and_the_rest_is_counted() {
        let found = outcome(
            serde_json::json!([
                { "first_failure_ns": 1_010_000_000, "first_success_ns": 1_400_000_000,
                  "failures": 20, "length_ms": 410.0 },
                { "first_failure_ns": 2_000_000_000, "first_success_ns": 2_020_000_000,
                  "failures": 1, "length_ms": 40.0 },
            ]),
            21,
        );
        assert_eq!(found.takeover_ms(), Some(400.0));
        assert_eq!(found.outage_ms(), Some(410.0));
        assert_eq!(found.later_failures(), 1);
        assert_eq!(found.last_failure_ms(), 1020.0);
        assert_eq!(found.failures_between(0.0, 1000.0), 20);
        assert_eq!(found.failures_between(1000.0, 1001.0), 1);
        assert_eq!(found.failures_between(1001.0, f64::MAX), 0);
        assert_eq!((found.on_owner(), found.elsewhere()), (4, 6));
        assert_eq!(found.kept_elsewhere(), 6);
        assert_eq!(found.last_lost_ms(), 700.0);
    }

    #[test]
    fn no_failure_is_no_outage_and_one_without_end_has_no_length() {
        let none = outcome(serde_json::json!([]), 0);
        assert_eq!(
            (none.takeover_ms(), none.outage_ms()),
            (Some(0.0), Some(0.0))
        );
        let open = serde_json::json!([{ "first_failure_ns": 1_010_000_000,
            "first_success_ns": null, "failures": 5, "length_ms": null }]);
        assert_eq!(outcome(open, 5).takeover_ms(), None);
    }
}
