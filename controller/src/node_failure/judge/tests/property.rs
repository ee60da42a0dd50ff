//! Whatever happens: who is marked was lost by most witnesses whose kubelets live, was silent itself, and
//! was not one of many.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Says(usize, Vec<usize>),
    Silent(usize),
    Renews(usize),
    Ready(usize, bool),
    Relisted,
    Fails,
    Pass(u64),
}

fn event(size: usize) -> impl Strategy<Value = Event> {
    let lost = prop::collection::btree_set(0..size, 0..3);
    prop_oneof![
        6 => (0..size, lost).prop_map(|(by, lost)| {
            Event::Says(by, lost.into_iter().filter(|n| *n != by).collect())
        }),
        2 => (0..size).prop_map(Event::Silent),
        2 => (0..size).prop_map(Event::Renews),
        1 => (0..size, any::<bool>()).prop_map(|(n, ready)| Event::Ready(n, ready)),
        1 => Just(Event::Relisted),
        1 => Just(Event::Fails),
        4 => (1u64..200).prop_map(Event::Pass),
    ]
}

/// What is true of the cluster, kept apart from what the judge makes of it.
struct Truth {
    words: BTreeMap<usize, BTreeSet<usize>>,
    renewed: BTreeMap<usize, Duration>,
    unready: BTreeSet<usize>,
}

impl Truth {
    fn check(&self, cluster: &Cluster, marked: usize) -> Result<(), TestCaseError> {
        let now = cluster.now;
        let renews = |n: usize| self.renewed.get(&n).is_some_and(|at| now < *at + LASTS);
        let says = |by: usize, of: usize| self.words.get(&by).is_some_and(|w| w.contains(&of));
        let accusers = |of: usize| {
            (0..cluster.size)
                .filter(|by| says(*by, of) && renews(*by))
                .count()
        };
        let most = |of: usize| accusers(of) * 2 > cluster.size;
        prop_assert!(
            most(marked),
            "node{marked} was lost by {} only",
            accusers(marked)
        );
        let fresh = (0..cluster.size).filter(|n| renews(*n)).count();
        prop_assert!(fresh * 2 > cluster.size, "only {fresh} kubelets were seen");
        prop_assert!(!self.unready.contains(&marked));
        Ok(())
    }
}

/// Checks the marks that were asked for by what was true at `since`, and answers them.
fn answered(
    cluster: &mut Cluster,
    truth: &Truth,
    since: Duration,
    fails: bool,
) -> Result<(), TestCaseError> {
    let (later, mut marks) = (cluster.now, Vec::new());
    cluster.now = since;
    for action in std::mem::take(&mut cluster.actions) {
        let Action::Mark(mark) = action else { continue };
        let n: usize = mark.node[4..].parse().unwrap();
        truth.check(cluster, n)?;
        marks.push(mark.node);
    }
    cluster.now = later;
    prop_assert!(marks.len() <= 1, "the limit is one: {marks:?}");
    for node in marks {
        let result = if fails { Err("away".into()) } else { Ok(1) };
        cluster.apply(Input::Marked(node, result));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_marked_without_need(
        (size, events) in (3usize..8).prop_flat_map(|size| {
            (Just(size), prop::collection::vec(event(size), 1..60))
        }),
    ) {
        let mut cluster = Cluster::fresh(size);
        let mut truth = Truth {
            words: BTreeMap::new(),
            renewed: BTreeMap::new(),
            unready: BTreeSet::new(),
        };
        let mut fails = false;
        for event in events {
            match event {
                Event::Says(by, lost) => {
                    cluster.says(by, &lost);
                    truth.words.insert(by, lost.into_iter().collect());
                }
                Event::Silent(n) => { cluster.silent.insert(n); }
                Event::Renews(n) => { cluster.silent.remove(&n); }
                Event::Ready(n, ready) => {
                    cluster.apply(Input::Nodes(Change::Applied(node(n, ready))));
                    if ready { truth.unready.remove(&n); } else { truth.unready.insert(n); }
                }
                Event::Relisted => {
                    let all = (0..size).map(|n| speaker(n, &truth.words.get(&n).map(|w| {
                        w.iter().copied().collect::<Vec<_>>()
                    }).unwrap_or_default()));
                    cluster.apply(Input::Speakers(Change::Listed(all.collect())));
                }
                Event::Fails => fails = !fails,
                Event::Pass(tenths) => {
                    for _ in 0..tenths {
                        if cluster.now.as_millis().is_multiple_of(10_000) {
                            for n in (0..size).filter(|n| !cluster.silent.contains(n)) {
                                truth.renewed.insert(n, cluster.now);
                            }
                        }
                        let since = cluster.now;
                        cluster.run(Duration::from_millis(100));
                        answered(&mut cluster, &truth, since, fails)?;
                    }
                }
            }
            // A word can bring a mark at once: it is judged by what was true when it came.
            let now = cluster.now;
            answered(&mut cluster, &truth, now, fails)?;
        }
    }
}
