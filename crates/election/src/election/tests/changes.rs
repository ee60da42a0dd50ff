//! VIPs that change one by one, against the same told as a whole.

use proptest::prelude::*;

use super::*;

/// A VIP with the nodes that may own it and the one that is wanted, none if it is gone.
type Change = (u8, Option<(Vec<&'static str>, Option<&'static str>)>);

#[derive(Debug, Clone)]
enum Turn {
    Change(Vec<Change>),
    Claim(&'static str, Vec<(u8, u64)>),
    Live(Vec<&'static str>),
}

const NODES: [&str; 3] = ["a", "b", "c"];

fn some_nodes() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(NODES.to_vec(), 0..=3)
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let wanted = proptest::option::of(proptest::sample::select(NODES.to_vec()));
    let nodes = proptest::option::of((some_nodes(), wanted));
    let claims = proptest::collection::vec((0..6_u8, 1..9_u64), 0..4);
    prop_oneof![
        proptest::collection::vec((0..6_u8, nodes), 1..3).prop_map(Turn::Change),
        (proptest::sample::select(vec!["b", "c"]), claims)
            .prop_map(|(node, claims)| Turn::Claim(node, claims)),
        some_nodes().prop_map(Turn::Live),
    ]
}

proptest! {
    #[test]
    fn what_changes_one_by_one_is_as_if_all_had_been_told(
        turns in proptest::collection::vec(any_turn(), 0..60),
    ) {
        let mut elections = [settled(&[]), settled(&[])];
        let mut vips: BTreeMap<IpAddr, Candidates> = BTreeMap::new();
        for (at, turn) in turns.into_iter().enumerate() {
            match turn {
                Turn::Change(changes) => {
                    let changes = changes.into_iter().map(|(last, nodes)| {
                        let candidates = nodes.map(|(nodes, wanted)| Candidates {
                            wanted: wanted.map(name),
                            ..Candidates::equal(nodes.into_iter().map(name))
                        });
                        (vip(last), candidates)
                    });
                    let changes: BTreeMap<_, _> = changes.collect();
                    for (vip, candidates) in &changes {
                        match candidates {
                            Some(candidates) => drop(vips.insert(*vip, candidates.clone())),
                            None => drop(vips.remove(vip)),
                        }
                    }
                    elections[0].set_vips(vips.clone());
                    elections[1].update_vips(changes);
                }
                Turn::Claim(node, claims) => {
                    let claims: BTreeMap<_, _> = claims.into_iter().collect();
                    let claims = claims.into_iter().map(|(last, epoch)| claim(last, epoch));
                    let claims: Vec<Claim> = claims.collect();
                    for election in &mut elections {
                        election.on_claims(&name(node), 0, 1, &claims);
                    }
                }
                Turn::Live(nodes) => {
                    let live: BTreeSet<NodeName> = nodes.into_iter().map(name).collect();
                    for election in &mut elections {
                        election.set_live(live.clone());
                    }
                }
            }
            let [whole, by_one] = &mut elections;
            let now = ms(100 * at as u64);
            prop_assert_eq!(whole.step(now), by_one.step(now));
            prop_assert_eq!(whole.claims(), by_one.claims());
            prop_assert_eq!(whole.unowned(), by_one.unowned());
            prop_assert_eq!(&whole.vips, &by_one.vips);
            prop_assert_eq!(&whole.highest, &by_one.highest);
            prop_assert_eq!(&whole.ended, &by_one.ended);
        }
    }

    #[test]
    fn who_says_what_is_known_need_not_be_heeded_again(
        turns in proptest::collection::vec(any_turn(), 0..60),
    ) {
        let mut elections = [settled(&[]), settled(&[])];
        let mut said: BTreeMap<&str, Vec<Claim>> = BTreeMap::new();
        for (at, turn) in turns.into_iter().enumerate() {
            match turn {
                Turn::Change(changes) => {
                    for election in &mut elections {
                        election.update_vips(changes.iter().map(|(last, nodes)| {
                            let nodes = nodes.as_ref().map(|(nodes, _)| nodes.iter().copied());
                            (vip(*last), nodes.map(|nodes| Candidates::equal(nodes.map(name))))
                        }));
                    }
                }
                Turn::Claim(node, claims) => {
                    let claims: BTreeMap<u8, u64> = claims.into_iter().collect();
                    let claims = claims.into_iter().map(|(last, epoch)| claim(last, epoch));
                    said.insert(node, claims.collect());
                }
                Turn::Live(live) => {
                    for election in &mut elections {
                        election.set_live(live.iter().copied().map(name).collect());
                    }
                }
            }
            // Each says it again and again.
            for (node, claims) in said.iter().chain(&said) {
                let digest = crate::digest(claims.iter().map(|c| (c.vip, c.epoch)));
                let scope = Scope { from: None, until: None, digest };
                let [short, whole] = &mut elections;
                short.on_told(&name(node), claims, &scope);
                whole.note_epochs(&name(node), claims);
                whole.on_told(&name(node), claims, &scope);
            }
            let [short, whole] = &mut elections;
            let now = ms(100 * at as u64);
            prop_assert_eq!(short.step(now), whole.step(now));
            prop_assert_eq!(&short.highest, &whole.highest);
        }
    }
}
