//! The Ethernet address.

use std::fmt;
use std::str::FromStr;

use pnet::util::MacAddr;

/// An Ethernet (EUI-48) address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All ones: every station of the segment.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// All zeroes: the "unknown" of an ARP request's target field.
    pub const ZERO: Mac = Mac([0; 6]);

    /// Whether the address was made up locally rather than bought (the U/L bit,
    /// IEEE 802 section 8.2).
    pub fn is_local_admin(&self) -> bool {
        self.0[0] & 0x02 != 0
    }

    /// Whether the address names a group of stations (the I/G bit); broadcast is one.
    pub fn is_multicast(&self) -> bool {
        self.0[0] & 0x01 != 0
    }

    /// The MAC of a director's macvlan, made from `seed` (the node's name or UID).
    ///
    /// Locally administered and unicast. The same seed gives the same address in
    /// every release: clients and switches hold it in their caches across a
    /// restart or an upgrade of the speaker, so the mapping must never change.
    pub fn derive_director_mac(seed: &str) -> Mac {
        // FNV-1a, then the finaliser of splitmix64: short seeds that differ in the
        // last letter only (node1, node2) would otherwise share their high bytes.
        let mut h = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        h ^= h >> 31;
        let [_, _, a, b, c, d, e, f] = h.to_be_bytes();
        Mac([(a & 0xfc) | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six two-digit hexadecimal numbers joined by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: {0:?}")]
pub struct ParseMacError(String);

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(s: &str) -> Result<Mac, ParseMacError> {
        let bad = || ParseMacError(s.to_owned());
        let mut bytes = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(bad)?;
            // from_str_radix alone would take "+1" and "1".
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        match parts.next() {
            None => Ok(Mac(bytes)),
            Some(_) => Err(bad()),
        }
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Mac {
        Mac(bytes)
    }
}

pub(crate) fn to_pnet(mac: Mac) -> MacAddr {
    let [a, b, c, d, e, f] = mac.0;
    MacAddr(a, b, c, d, e, f)
}

pub(crate) fn from_pnet(mac: MacAddr) -> Mac {
    Mac([mac.0, mac.1, mac.2, mac.3, mac.4, mac.5])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn text_form() {
        let mac = Mac([0x02, 0x00, 0x5e, 0xab, 0xcd, 0x0f]);
        assert_eq!(mac.to_string(), "02:00:5e:ab:cd:0f");
        assert_eq!("02:00:5E:AB:cd:0F".parse(), Ok(mac));
        for bad in [
            "",
            "02:00:5e:ab:cd",
            "02:00:5e:ab:cd:0f:11",
            "2:0:5e:ab:cd:f",
            "02-00-5e-ab-cd-0f",
            "+2:00:5e:ab:cd:0f",
            "0g:00:5e:ab:cd:0f",
            "02:00:5e:ab:cd:0f ",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn director_macs_never_change() {
        // These stand in the caches of running clusters.
        assert_eq!(
            Mac::derive_director_mac("node1").to_string(),
            "1e:0d:a4:06:fb:96"
        );
        assert_eq!(
            Mac::derive_director_mac("").to_string(),
            "16:e9:a9:b5:e8:9b"
        );
    }

    #[test]
    fn director_macs_of_many_nodes_differ() {
        let macs: HashSet<Mac> = (0..20_000)
            .map(|n| Mac::derive_director_mac(&format!("node{n}")))
            .collect();
        assert_eq!(macs.len(), 20_000);
        // Every byte is in use, the first but for its two fixed bits.
        for i in 0..6 {
            let values: HashSet<u8> = macs.iter().map(|m| m.0[i]).collect();
            assert_eq!(values.len(), if i == 0 { 64 } else { 256 }, "byte {i}");
        }
    }

    proptest! {
        #[test]
        fn director_mac_is_local_unicast(seed in ".*") {
            let mac = Mac::derive_director_mac(&seed);
            prop_assert!(mac.is_local_admin());
            prop_assert!(!mac.is_multicast());
        }

        #[test]
        fn text_round_trip(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }

        #[test]
        fn any_text_is_taken_or_refused(s in ".{0,24}") {
            if let Ok(mac) = s.parse::<Mac>() {
                prop_assert_eq!(mac.to_string(), s.to_lowercase());
            }
        }
    }
}
