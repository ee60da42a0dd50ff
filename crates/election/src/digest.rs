//! A number that stands for a set of claims, by which two nodes see whether they know the same.

use std::net::IpAddr;

/// The digest of a node's claims, of each VIP with its epoch: the sum of the claims' weights, so that the order does
/// not matter, and a claim that comes or goes changes it by its own weight. No claims: 0. The same on every machine and in
/// every release.
///
/// Different claims have different digests but for a chance of 2^-64; it is no protection against somebody who looks
/// for others with the same one, which heartbeats have in their tag.
pub fn digest(claims: impl IntoIterator<Item = (IpAddr, u64)>) -> u64 {
    let weights = claims.into_iter().map(|(vip, epoch)| weight(&vip, epoch));
    weights.fold(0, u64::wrapping_add)
}

/// What one claim adds.
pub(crate) fn weight(vip: &IpAddr, epoch: u64) -> u64 {
    let (family, address) = match vip {
        IpAddr::V4(address) => (4, u128::from(address.to_bits())),
        IpAddr::V6(address) => (6, address.to_bits()),
    };
    let words = [family, address as u64, (address >> 64) as u64, epoch];
    words.into_iter().fold(0, |hash, word| mix(hash ^ word))
}

/// SplitMix64.
fn mix(word: u64) -> u64 {
    let mut word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn it_is_the_same_in_every_release() {
        assert_eq!(digest([]), 0);
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        let v6 = IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x200]);
        // Computed by a script from the description above.
        assert_eq!(digest([(v4(200), 7)]), 0xab00_1364_6aa5_059c);
        assert_eq!(digest([(v6, 3), (v4(200), 7)]), 0x495b_8292_cbf8_dead);
    }

    #[test]
    fn claims_that_differ_have_different_ones_in_whatever_order() {
        let claims = |epoch: u64| (0..200).map(move |last| (v4(last), epoch));
        let digests: BTreeSet<u64> = (1..50).map(|epoch| digest(claims(epoch))).collect();
        assert_eq!(digests.len(), 49);
        assert_eq!(
            digest(claims(2)),
            digest(claims(2).collect::<Vec<_>>().into_iter().rev())
        );
        // Two VIPs that exchange their epochs.
        assert_ne!(
            digest([(v4(1), 2), (v4(2), 4)]),
            digest([(v4(1), 4), (v4(2), 2)])
        );
        let bare = IpAddr::from([0, 0, 0, 0, 0, 0, 0xc000, 0x2c8]);
        assert_ne!(digest([(v4(200), 2)]), digest([(bare, 2)]));
    }
}
