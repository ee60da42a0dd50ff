use super::*;

const SHAPE: Shape = Shape::DEFAULT;

fn nodes(n: usize) -> BTreeSet<NodeName> {
    (1..=n).map(|n| format!("node{n}").into()).collect()
}

#[test]
fn up_to_64_nodes_all_watch_all() {
    let nodes = nodes(SHAPE.all_to_all);
    for me in &nodes {
        let graph = Graph::new(&SHAPE, me, &nodes);
        assert!(!graph.sparse());
        assert!(
            nodes
                .iter()
                .all(|n| graph.watches(n) && graph.watched_by(n))
        );
    }
}

#[test]
fn beyond_each_has_twelve_watchers_and_both_ends_agree() {
    for n in [65, 100, 500] {
        let nodes = nodes(n);
        let graphs: Vec<_> = nodes
            .iter()
            .map(|me| (me, Graph::new(&SHAPE, me, &nodes)))
            .collect();
        for (me, graph) in &graphs {
            assert!(graph.sparse() && !graph.watches(me));
            let watched = nodes.iter().filter(|node| graph.watches(node));
            assert_eq!(watched.count(), SHAPE.watchers, "{n} nodes, {me}");
            for (other, theirs) in &graphs {
                assert_eq!(graph.watches(other), theirs.watched_by(me), "{me} {other}");
            }
        }
    }
}

#[test]
fn a_node_that_comes_concerns_only_its_neighbours() {
    let (before, after) = (nodes(500), nodes(501));
    let graph = |me, nodes: &BTreeSet<NodeName>| Graph::new(&SHAPE, me, nodes);
    let concerned = before
        .iter()
        .filter(|me| graph(me, &before) != graph(me, &after));
    assert_eq!(concerned.count(), 2 * SHAPE.watchers);
}

#[test]
fn a_node_has_the_same_number_in_every_release() {
    // Computed by an independent implementation in Python.
    assert_eq!(digest("node1"), 0x831d_1f0d_a406_fb96);
    assert_eq!(digest(""), 0xf52a_15e9_a9b5_e89b);
}
