use super::*;
use crate::graph::Shape;

const SHAPE: Shape = Shape::DEFAULT;

fn rota(n: usize) -> (Rota, BTreeSet<NodeName>) {
    let mut nodes: BTreeSet<NodeName> = (0..n).map(|n| format!("node{n}").into()).collect();
    let mut rota = Rota::new("node0".into(), SHAPE);
    rota.set_nodes(&nodes);
    nodes.remove("node0");
    (rota, nodes)
}

fn told(rota: &Rota, nodes: &BTreeSet<NodeName>) -> usize {
    nodes.iter().filter_map(|node| rota.page(node)).count()
}

#[test]
fn in_a_small_cluster_everybody_gets_a_page_of_every_heartbeat_whatever_the_news() {
    let (mut rota, nodes) = rota(SHAPE.all_to_all);
    for number in 0..40 {
        assert!(nodes.iter().all(|n| rota.page(n) == Some(number)));
        if number == 20 {
            rota.tell_all();
        }
        rota.sent();
    }
}

#[test]
fn in_a_large_one_everybody_gets_one_in_a_round_and_watchers_all() {
    for (count, round) in [
        (65, SHAPE.distant_every),
        (151, SHAPE.distant_every),
        (500, 34),
        (2000, 134),
    ] {
        let (mut rota, nodes) = rota(count);
        assert_eq!(rota.round(), round, "{count}");
        let mut got: BTreeMap<&NodeName, u32> = BTreeMap::new();
        for _ in 0..round {
            let at_once = told(&rota, &nodes) - SHAPE.watchers;
            assert!(
                at_once < 3 * SHAPE.distant_at_once as usize,
                "{at_once} of {count}"
            );
            for node in nodes.iter().filter(|node| rota.page(node).is_some()) {
                *got.entry(node).or_default() += 1;
            }
            rota.sent();
        }
        assert_eq!(got.len(), count - 1);
        let each = got.values().filter(|n| **n == round).count();
        let once = got.values().filter(|n| **n == 1).count();
        assert_eq!((each, once), (SHAPE.watchers, count - 1 - SHAPE.watchers));
    }
}

#[test]
fn everybody_gets_all_pages_by_turns() {
    let (mut rota, nodes) = rota(100);
    for pages in [2, 5, 10, 23] {
        let mut got: BTreeMap<&NodeName, BTreeSet<u64>> = BTreeMap::new();
        for _ in 0..u64::from(SHAPE.distant_every) * pages {
            for node in &nodes {
                if let Some(page) = rota.page(node) {
                    got.entry(node).or_default().insert(page % pages);
                }
            }
            rota.sent();
        }
        assert!(got.len() == 99 && got.values().all(|all| all.len() as u64 == pages));
    }
}

#[test]
fn news_go_to_everybody_and_are_repeated() {
    let (mut rota, nodes) = rota(500);
    rota.tell_late(&"node7".into());
    for _ in 0..REPEATS {
        assert_eq!(
            (told(&rota, &nodes), rota.late()),
            (499, vec![digest("node7")])
        );
        rota.sent();
    }
    assert!(told(&rota, &nodes) < 100 && rota.late().is_empty());
}
