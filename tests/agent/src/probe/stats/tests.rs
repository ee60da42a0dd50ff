//! Sums over hand-made records.

use super::*;

const MS: u64 = 1_000_000;

fn good(at_ms: u64, node: &str) -> Record {
    Record {
        start_ns: at_ms * MS,
        took_ns: MS,
        node: Some(node.into()),
        pod: None,
        client: Some("192.0.2.100".into()),
        error: None,
    }
}

fn bad(at_ms: u64, error: Failure) -> Record {
    Record {
        start_ns: at_ms * MS,
        took_ns: 5 * MS,
        node: None,
        pod: None,
        client: None,
        error: Some(error),
    }
}

#[test]
fn a_clean_stream_has_no_outage() {
    let summary = summarize(vec![good(0, "a"), good(20, "b"), good(45, "a")]);
    assert_eq!((summary.requests, summary.failures), (3, 0));
    assert_eq!(summary.outages, []);
    assert_eq!(summary.outage_ms, Some(0.0));
    assert!((summary.longest_gap_ms - 25.0).abs() < 1e-9);
    assert_eq!(summary.nodes, [("a".into(), 2), ("b".into(), 1)].into());
    assert_eq!(summary.clients, [("192.0.2.100".into(), 3)].into());
    assert_eq!(summary.latency_ms, Some([1.0, 1.0, 1.0]));
}

#[test]
fn an_outage_runs_from_last_to_first_success_whatever_the_order_of_records() {
    let summary = summarize(vec![
        good(100, "b"),
        bad(40, Failure::Timeout),
        good(0, "a"),
        bad(60, Failure::Timeout),
        good(20, "a"),
        bad(80, Failure::Refused),
    ]);
    assert_eq!(
        summary.outages,
        [Outage {
            last_success_ns: Some(20 * MS),
            first_failure_ns: 40 * MS,
            first_success_ns: Some(100 * MS),
            failures: 3,
            length_ms: Some(80.0),
        }]
    );
    assert_eq!(summary.outage_ms, Some(80.0));
    assert_eq!(
        summary.errors,
        [("refused".into(), 1), ("timeout".into(), 2)].into()
    );
}

#[test]
fn an_outage_that_never_ends_has_no_length() {
    let summary = summarize(vec![good(0, "a"), bad(20, Failure::Timeout)]);
    assert_eq!(summary.outages[0].first_success_ns, None);
    assert_eq!(summary.outage_ms, None);
}

#[test]
fn nothing_at_all_is_summed_up_too() {
    let summary = summarize(Vec::new());
    assert_eq!(summary.latency_ms, None);
    assert_eq!(summary.outage_ms, Some(0.0));
}

#[test]
fn percentiles_take_the_nearest_rank() {
    let values: Vec<u64> = (1..=200).collect();
    assert_eq!(percentile(&values, 50), 100);
    assert_eq!(percentile(&values, 99), 198);
    assert_eq!(percentile(&values, 100), 200);
    assert_eq!(percentile(&[7], 50), 7);
}
