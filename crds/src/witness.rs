//! Which speakers say of a node that it is lost: a few, the same ones in everybody's eyes.
//!
//! When one of 500 nodes dies, 499 speakers notice. If each wrote that down, the API server would
//! have 499 writes at the worst moment. So each node has *witnesses*, drawn from all
//! nodes by rendezvous hashing (Thaler and Ravishankar, 1998): everybody who knows the names
//! computes the same order, each node has other witnesses, and one node more or less changes
//! at most one of them. In a cluster of up to [`WITNESSES`] + 1 nodes all others are witnesses.

use std::cmp::Reverse;

/// How many other nodes' word counts about a node. With the node itself, which counts as a voice
/// against its own loss, that is nine, of which five are a majority.
pub const WITNESSES: usize = 8;

/// How many more report, in case that the reader of the reports knows of fewer nodes.
pub const SPARE_WITNESSES: usize = 4;

/// The first `count` witnesses of `node` among `nodes` (which may name it, too), the first first.
pub fn witnesses<'a>(
    node: &str,
    nodes: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let others = nodes.into_iter().filter(|other| *other != node);
    let mut order: Vec<_> = others
        .map(|other| (Reverse(score(node, other)), other))
        .collect();
    order.sort_unstable();
    order.truncate(count);
    order.into_iter().map(|(_, other)| other).collect()
}

/// FNV-1a over both names, then the final mix of MurmurHash3, since FNV leaves names that differ
/// in the last letter alone close to each other. It must be the same in every version.
fn score(node: &str, witness: &str) -> u64 {
    let bytes = node.bytes().chain([0]).chain(witness.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("node{n}")).collect()
    }

    fn of<'a>(node: &str, names: &'a [String]) -> Vec<&'a str> {
        witnesses(node, names.iter().map(String::as_str), WITNESSES)
    }

    #[test]
    fn in_a_small_cluster_all_others_are_witnesses() {
        let names = names(3);
        let found: BTreeSet<_> = of("node1", &names).into_iter().collect();
        assert_eq!(found, BTreeSet::from(["node0", "node2"]));
    }

    #[test]
    fn the_work_is_spread_and_the_order_of_names_is_no_matter() {
        let names = names(500);
        let mut backwards = names.clone();
        backwards.reverse();
        let mut load: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &names {
            let found = of(name, &names);
            assert_eq!(found, of(name, &backwards));
            assert_eq!(found.len(), WITNESSES);
            assert!(!found.contains(&name.as_str()));
            for witness in found {
                *load.entry(witness).or_default() += 1;
            }
        }
        let most = load.values().max().copied();
        assert!(most < Some(WITNESSES * 4), "{most:?}");
    }

    #[test]
    fn one_node_less_changes_at_most_one_witness() {
        let names = names(100);
        let before = of("node7", &names);
        for gone in &names {
            let left: Vec<String> = names.iter().filter(|n| *n != gone).cloned().collect();
            let after = of("node7", &left);
            let kept = before.iter().filter(|w| after.contains(w)).count();
            assert!(kept >= WITNESSES - 1, "{gone}: {before:?} {after:?}");
        }
    }

    #[test]
    fn the_order_is_the_same_in_every_version() {
        let names = ["a", "b", "c", "d"];
        assert_eq!(witnesses("a", names, 8), ["c", "b", "d"]);
    }
}
