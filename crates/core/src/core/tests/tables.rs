//! Directors whose tables differ: connections may break when a VIP moves between them.

use super::*;

/// How many directors each node says agree with its own, and of how many.
fn told(lan: &Lan) -> [(usize, usize); 3] {
    [1, 2, 3].map(|n| {
        let report = &lan.reports[&n];
        (report.directors_agreeing, report.directors)
    })
}

#[test]
fn every_node_says_that_a_directors_table_differs_after_a_heartbeat_and_until_it_is_right() {
    let mut lan = Lan::with(1);
    lan.run(1_000 * MS);
    assert_eq!(told(&lan), [(3, 3); 3]);
    let holds = |lan: &mut Lan, digest: u64| {
        let intent = lan.directors[&2].clone();
        let report = DirectorReport {
            healthy: true,
            applied: intent.revision,
            programmed: intent.vips.clone(),
            digest,
            ..DirectorReport::default()
        };
        lan.cores.get_mut(&2).unwrap().on_director(report);
        // The interval is 100 ms here.
        lan.run(105 * MS);
    };
    let right = lan.directors[&2].virtuals.len() as u64;
    holds(&mut lan, right + 1);
    assert_eq!(told(&lan), [(2, 3), (1, 3), (2, 3)]);
    // It is told, and nothing else: the node goes on to serve.
    assert_eq!(lan.weights(1), [1, 1, 1]);
    holds(&mut lan, right);
    assert_eq!(told(&lan), [(3, 3); 3]);

    // Who is gone is not counted.
    lan.cores.remove(&2);
    lan.run(1_000 * MS);
    for n in [1, 3] {
        let report = &lan.reports[&n];
        assert_eq!((report.directors_agreeing, report.directors), (2, 2), "{n}");
    }
}
