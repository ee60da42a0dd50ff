//! Reading and writing of the heartbeat's fields, without a panic on any input.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Claim, DecodeError, Further, MAX_FURTHER, MAX_FURTHER_NETWORKS, MAX_INTERFACE, MAX_LATE,
    MAX_NETWORKS,
};

const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// Takes fields off the front of a byte slice.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Was everything read?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes; `what` names the field in the error.
    pub(super) fn bytes(
        &mut self,
        len: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(DecodeError::Malformed(what))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(DecodeError::Malformed(what))?;
        self.0 = rest;
        Ok(*head)
    }

    /// The name of an interface; empty if nothing follows.
    pub(super) fn interface(&mut self) -> Result<&'a str, DecodeError> {
        if self.0.is_empty() {
            return Ok("");
        }
        self.name("interface")
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let [length] = self.array(what)?;
        if usize::from(length) > MAX_INTERFACE {
            return Err(DecodeError::Malformed(what));
        }
        let name = self.bytes(length.into(), what)?;
        std::str::from_utf8(name).map_err(|_| DecodeError::Malformed(what))
    }

    /// The digests of late nodes; none if nothing follows.
    pub(super) fn late(&mut self) -> Result<Vec<u64>, DecodeError> {
        const WHAT: &str = "late";
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let [count] = self.array(WHAT)?;
        if usize::from(count) > MAX_LATE {
            return Err(DecodeError::Malformed(WHAT));
        }
        let digests = (0..count).map(|_| Ok(u64::from_be_bytes(self.array(WHAT)?)));
        digests.collect()
    }

    /// Networks; none if nothing follows.
    pub(super) fn networks(&mut self) -> Result<Vec<IpNet>, DecodeError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        self.some_networks(MAX_NETWORKS, "networks")
    }

    fn some_networks(
        &mut self,
        most: usize,
        what: &'static str,
    ) -> Result<Vec<IpNet>, DecodeError> {
        let [count] = self.array(what)?;
        if usize::from(count) > most {
            return Err(DecodeError::Malformed(what));
        }
        (0..count).map(|_| self.network(what)).collect()
    }

    /// Further uplinks; none if nothing follows.
    pub(super) fn further(&mut self) -> Result<Vec<Further>, DecodeError> {
        const WHAT: &str = "further uplinks";
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let [count] = self.array(WHAT)?;
        if usize::from(count) > MAX_FURTHER {
            return Err(DecodeError::Malformed(WHAT));
        }
        let one = |_| {
            Ok(Further {
                interface: self.name(WHAT)?.into(),
                mac: self.array(WHAT)?,
                director_mac: self.array(WHAT)?,
                networks: self.some_networks(MAX_FURTHER_NETWORKS, WHAT)?.into(),
            })
        };
        (0..count).map(one).collect()
    }

    /// A boot id that the sender holds; none if nothing follows.
    pub(super) fn held_boot(&mut self) -> Result<Option<u64>, DecodeError> {
        const WHAT: &str = "held boot id";
        if self.0.is_empty() {
            return Ok(None);
        }
        match self.array(WHAT)? {
            [0] => Ok(None),
            [1] => Ok(Some(u64::from_be_bytes(self.array(WHAT)?))),
            _ => Err(DecodeError::Malformed(WHAT)),
        }
    }

    fn network(&mut self, what: &'static str) -> Result<IpNet, DecodeError> {
        let [family, prefix] = self.array(what)?;
        let address = match family {
            FAMILY_V4 => IpAddr::from(self.array::<4>(what)?),
            FAMILY_V6 => IpAddr::from(self.array::<16>(what)?),
            _ => return Err(DecodeError::Malformed(what)),
        };
        IpNet::new(address, prefix).map_err(|_| DecodeError::Malformed(what))
    }

    pub(super) fn claim(&mut self) -> Result<Claim, DecodeError> {
        let vip = self.address("claim family", "claim address")?;
        let epoch = u64::from_be_bytes(self.array("claim epoch")?);
        Ok(Claim { vip, epoch })
    }

    /// A family and an address of it; `family` and `address` name them in errors.
    pub(super) fn address(
        &mut self,
        family: &'static str,
        address: &'static str,
    ) -> Result<IpAddr, DecodeError> {
        match self.array(family)? {
            [FAMILY_V4] => Ok(IpAddr::from(self.array::<4>(address)?)),
            [FAMILY_V6] => Ok(IpAddr::from(self.array::<16>(address)?)),
            _ => Err(DecodeError::Malformed(family)),
        }
    }
}

pub(super) fn put_claim(out: &mut Vec<u8>, claim: &Claim) {
    put_address(out, claim.vip);
    out.extend(claim.epoch.to_be_bytes());
}

pub(super) fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(FAMILY_V4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.push(FAMILY_V6);
            out.extend(address.octets());
        }
    }
}

/// The digests of late nodes as the datagram has them.
pub(super) fn late(digests: &[u64]) -> Vec<u8> {
    let digests = &digests[..digests.len().min(MAX_LATE)];
    let mut out = vec![digests.len() as u8];
    out.extend(digests.iter().flat_map(|digest| digest.to_be_bytes()));
    out
}

/// The held boot id field.
pub(super) fn held_boot(held: Option<u64>) -> Vec<u8> {
    let mut out = vec![u8::from(held.is_some())];
    out.extend(held.iter().flat_map(|boot| boot.to_be_bytes()));
    out
}

/// The further uplinks field.
pub(super) fn further(all: &[Further]) -> Vec<u8> {
    let all = &all[..all.len().min(MAX_FURTHER)];
    let mut out = vec![all.len() as u8];
    for uplink in all {
        let name = cut(&uplink.interface, MAX_INTERFACE);
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
        out.extend(uplink.mac);
        out.extend(uplink.director_mac);
        out.extend(networks(&uplink.networks, MAX_FURTHER_NETWORKS));
    }
    out
}

/// The networks field, of at most so many.
pub(super) fn networks(all: &[IpNet], most: usize) -> Vec<u8> {
    let all = &all[..all.len().min(most)];
    let mut out = vec![all.len() as u8];
    for network in all {
        let family = match network {
            IpNet::V4(_) => FAMILY_V4,
            IpNet::V6(_) => FAMILY_V6,
        };
        out.extend([family, network.prefix_len()]);
        match network.addr() {
            IpAddr::V4(address) => out.extend(address.octets()),
            IpAddr::V6(address) => out.extend(address.octets()),
        }
    }
    out
}

/// The longest prefix of `text` that has at most `max` bytes.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
