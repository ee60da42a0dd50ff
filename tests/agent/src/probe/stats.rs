//! Sums over what a probe saw. Pure: fed with records, no clock.

use std::collections::BTreeMap;

use serde::Serialize;

use super::exchange::Failure;

/// One request of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Record {
    /// When it was begun (CLOCK_REALTIME, ns).
    pub(super) start_ns: u64,
    /// How long it took until the answer, or until it failed.
    pub(super) took_ns: u64,
    /// The node that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// The pod that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<String>,
    /// The client's address that the pod saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    /// Why nobody answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failure>,
}

/// A time without service: from the last success begun before the first failure to
/// the first success begun after the last failure of the run of failures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Outage {
    /// When the last request was begun that still succeeded; `None` when none had.
    pub(super) last_success_ns: Option<u64>,
    /// When the first failed request was begun.
    pub(super) first_failure_ns: u64,
    /// When the first request was begun that succeeded again; `None`: never.
    pub(super) first_success_ns: Option<u64>,
    /// Failed requests within.
    pub(super) failures: usize,
    /// From last success to first success, milliseconds; `None` when open-ended.
    pub(super) length_ms: Option<f64>,
}

/// What a stream saw, all in all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Requests begun.
    pub(super) requests: usize,
    /// Requests without an answer.
    pub(super) failures: usize,
    /// The failures by kind.
    pub(super) errors: BTreeMap<String, usize>,
    /// Answers by node.
    pub(super) nodes: BTreeMap<String, usize>,
    /// Client addresses that pods saw, and how often.
    pub(super) clients: BTreeMap<String, usize>,
    /// Latency of answers in milliseconds: median, 99th percentile, worst.
    pub(super) latency_ms: Option<[f64; 3]>,
    /// Longest time from the begin of one successful request to that of the next, milliseconds.
    pub(super) longest_gap_ms: f64,
    /// Every run of failures: the list that says when service was away.
    pub(super) outages: Vec<Outage>,
    /// The longest outage's length in milliseconds; 0 without any, `None` when one never ended.
    pub(super) outage_ms: Option<f64>,
}

/// Sums up a stream; the order of the records does not matter.
pub(super) fn summarize(mut records: Vec<Record>) -> Summary {
    records.sort_by_key(|record| record.start_ns);
    let answered = || records.iter().filter(|record| record.error.is_none());
    let mut took: Vec<u64> = answered().map(|record| record.took_ns).collect();
    took.sort_unstable();
    let starts: Vec<u64> = answered().map(|record| record.start_ns).collect();
    let outages = outages(&records);
    Summary {
        requests: records.len(),
        failures: records.len() - starts.len(),
        errors: tally(records.iter().filter_map(|r| r.error.as_ref())),
        nodes: tally(records.iter().filter_map(|r| r.node.as_ref())),
        clients: tally(records.iter().filter_map(|r| r.client.as_ref())),
        latency_ms: (!took.is_empty()).then(|| {
            [
                milliseconds(percentile(&took, 50)),
                milliseconds(percentile(&took, 99)),
                milliseconds(percentile(&took, 100)),
            ]
        }),
        longest_gap_ms: starts
            .windows(2)
            .map(|pair| milliseconds(pair[1] - pair[0]))
            .fold(0.0, f64::max),
        outage_ms: outages
            .iter()
            .map(|outage| outage.length_ms)
            .try_fold(0.0, |longest: f64, length| Some(longest.max(length?))),
        outages,
    }
}

fn outages(records: &[Record]) -> Vec<Outage> {
    let mut found: Vec<Outage> = Vec::new();
    let mut last_success = None;
    let mut open: Option<Outage> = None;
    for record in records {
        match (&record.error, &mut open) {
            (Some(_), Some(outage)) => outage.failures += 1,
            (Some(_), None) => {
                open = Some(Outage {
                    last_success_ns: last_success,
                    first_failure_ns: record.start_ns,
                    first_success_ns: None,
                    failures: 1,
                    length_ms: None,
                });
            }
            (None, _) => {
                if let Some(mut outage) = open.take() {
                    outage.first_success_ns = Some(record.start_ns);
                    outage.length_ms =
                        last_success.map(|last| milliseconds(record.start_ns - last));
                    found.push(outage);
                }
                last_success = Some(record.start_ns);
            }
        }
    }
    found.extend(open);
    found
}

/// Counts equal names.
pub(super) fn tally<T: ToString>(names: impl Iterator<Item = T>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.to_string()).or_default() += 1;
    }
    counts
}

/// The `percent`-th percentile (nearest rank) of sorted, non-empty values.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Nanoseconds to milliseconds, for people and JSON.
#[expect(
    clippy::cast_precision_loss,
    reason = "spans here are far below 2^53 ns"
)]
pub(super) fn milliseconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

#[cfg(test)]
mod tests;
