//! Sums over hand-made flows.

use super::*;

fn flow(node: &str, error: Option<Failure>, gap_ms: u64) -> Flow {
    Flow {
        node: (!node.is_empty()).then(|| node.to_owned()),
        changed_node: false,
        answers: 3,
        longest_gap_ns: gap_ms * 1_000_000,
        longest_gap_from_ns: 0,
        error,
        ended_ns: None,
        silent_ns: error.map(|_| 2_000_000),
    }
}

#[test]
fn kept_and_lost_flows_are_told_apart_by_node() {
    let summary = summarize(&[
        flow("a", None, 110),
        flow("a", None, 350),
        flow("b", Some(Failure::Reset), 9000),
        flow("", Some(Failure::Refused), 0),
    ]);
    assert_eq!((summary.flows, summary.opened, summary.kept), (4, 3, 2));
    assert_eq!(summary.nodes, [("a".into(), 2), ("b".into(), 1)].into());
    assert_eq!(summary.kept_nodes, [("a".into(), 2)].into());
    assert_eq!(
        summary.lost,
        [("b: reset".into(), 1), ("none: refused".into(), 1)].into()
    );
    assert!((summary.longest_gap_ms - 350.0).abs() < 1e-9);
    assert!((summary.longest_silence_before_end_ms - 2.0).abs() < 1e-9);
}

#[test]
fn a_flow_that_changed_its_node_is_counted() {
    let mut odd = flow("a", None, 100);
    odd.changed_node = true;
    assert_eq!(summarize(&[odd, flow("a", None, 100)]).changed_node, 1);
}
