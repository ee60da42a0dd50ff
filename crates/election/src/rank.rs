//! Rendezvous order: a fixed pseudo-random order of the nodes for each VIP.
//!
//! FNV-1a over the bytes of address and name, finished with the mixer of SplitMix64. It must
//! give the same on every machine and in every release, so it is spelled out here
//! and pinned by a test.

use std::net::IpAddr;

use crate::NodeName;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Rank of `node` for `vip`; the greater goes first. The name decides between equal hashes.
pub(crate) fn rank<'a>(vip: &IpAddr, node: &'a NodeName) -> (u64, &'a str) {
    let hash = match vip {
        IpAddr::V4(address) => fnv(fnv(FNV_OFFSET, &[4]), &address.octets()),
        IpAddr::V6(address) => fnv(fnv(FNV_OFFSET, &[6]), &address.octets()),
    };
    (mix(fnv(hash, node.as_bytes())), node)
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    })
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_the_same_in_every_release() {
        // Computed by an independent implementation in Python.
        let node: NodeName = "node1".into();
        let v4 = "192.0.2.200".parse().unwrap();
        let v6 = "2001:db8:2::200".parse().unwrap();
        assert_eq!(rank(&v4, &node).0, 0xa9e2_909e_3284_77f1);
        assert_eq!(rank(&v6, &node).0, 0x48f6_e110_71be_9734);
    }

    #[test]
    fn spreads_first_places_over_the_nodes() {
        let nodes: Vec<NodeName> = (1..=5).map(|n| format!("node{n}").into()).collect();
        let mut first = std::collections::BTreeMap::new();
        for last in 0..=255u8 {
            let vip = IpAddr::from([192, 0, 2, last]);
            let best = nodes.iter().max_by_key(|node| rank(&vip, node)).unwrap();
            *first.entry(best).or_insert(0) += 1;
        }
        // 51 each on average; the standard deviation is 6.4.
        assert!(first.values().all(|n| (30..=75).contains(n)), "{first:?}");
    }
}
