//! What a Service asks for, and why it does not get it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::family::Family;
use crate::sharing::{Clash, Sharing};

/// A Service by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceId {
    /// The Service of this name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How many families a Service wants (Kubernetes' `ipFamilyPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// One address, of the first family.
    Single,
    /// One address of each family if some pool has both, else one.
    PreferDual,
    /// One address of each family from one pool; nothing new otherwise.
    RequireDual,
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The families wanted, the preferred one first.
    pub families: Vec<Family>,
    /// How many of them.
    pub policy: Policy,
    /// These addresses and no others; empty for any.
    pub addresses: Vec<IpAddr>,
    /// This pool and no other.
    pub pool: Option<Arc<str>>,
    /// Restricted pools that are not for this Service, and what about the Service rules it out.
    /// A restricted pool missing here is open to it.
    pub closed: BTreeMap<Arc<str>, String>,
    /// With whom it may share an address.
    pub sharing: Sharing,
}

impl Request {
    /// The families that must or may be served: one under [`Policy::Single`].
    pub(crate) fn wanted(&self) -> &[Family] {
        match self.policy {
            Policy::Single => self.families.get(..1).unwrap_or_default(),
            _ => &self.families,
        }
    }

    /// What about the request contradicts itself.
    pub(crate) fn fault(&self) -> Option<String> {
        let wanted = self.wanted();
        if wanted.is_empty() {
            return Some("the Service has no IP family".into());
        }
        if self.policy == Policy::RequireDual && wanted.len() < 2 {
            return Some("spec.ipFamilyPolicy is RequireDualStack, but the Service has only one IP family; is the cluster dual-stack?".into());
        }
        let asked = &self.addresses;
        for (position, address) in asked.iter().enumerate() {
            let family = Family::of(*address);
            if asked[..position]
                .iter()
                .any(|other| Family::of(*other) == family)
            {
                return Some(format!(
                    "more than one {family} address is asked for; give at most one per family"
                ));
            }
            if !wanted.contains(&family) {
                return Some(format!(
                    "{address} is asked for, but the Service is not {family}; change spec.ipFamilies or the address"
                ));
            }
        }
        if self.policy == Policy::RequireDual && asked.len() == 1 {
            return Some(format!(
                "only {} is asked for, but spec.ipFamilyPolicy is RequireDualStack; give one address per family",
                asked[0]
            ));
        }
        None
    }
}

/// A pool that was looked at, and why it was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The pool.
    pub pool: Arc<str>,
    /// What was wrong with it.
    pub why: Why,
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool \"{}\": {}", self.pool, self.why)
    }
}

/// Why a pool was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was deleted.
    Gone,
    /// It must be named.
    NotAutomatic,
    /// It is restricted to other Services.
    Closed(String),
    /// It has no usable address of this family.
    NoFamily(Family),
    /// All of its addresses of this family are held.
    Exhausted {
        /// The family.
        family: Family,
        /// How many addresses of it the pool has.
        total: u128,
    },
    /// It does not contain the address asked for.
    NotInside(IpAddr),
    /// The range with this address is out of use, as it overlaps another.
    Overlapped(IpAddr),
    /// It contains the address but keeps it out of use, for this reason.
    Withheld(IpAddr, Arc<str>),
    /// It does not take claims by `spec.externalIPs`.
    NotExternal,
    /// The address asked for is held.
    Taken {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        by: ServiceId,
        /// Why the two cannot share it.
        clash: Clash,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Gone => f.write_str("it was deleted; create it again, or another with its addresses"),
            Why::NotAutomatic => f.write_str(
                "autoAssign is false, so only Services that name it or one of its addresses get one",
            ),
            Why::Closed(reason) => f.write_str(reason),
            Why::NoFamily(family) => write!(f, "it has no usable {family} addresses"),
            Why::Exhausted { family, total: 1 } => {
                write!(f, "its only {family} address is in use; add to its spec.addresses")
            }
            Why::Exhausted { family, total } => write!(
                f,
                "all of its {total} {family} addresses are in use; add to its spec.addresses"
            ),
            Why::NotInside(address) => write!(f, "its spec.addresses do not contain {address}"),
            Why::Overlapped(address) => write!(
                f,
                "its range with {address} is out of use by an overlap; see its condition Ready"
            ),
            Why::Withheld(address, reason) => write!(f, "{address} is kept out of use: {reason}"),
            Why::NotExternal => f.write_str("allowExternalIPs is false"),
            Why::Taken { address, by, clash } => {
                write!(f, "{address} is held by Service {by}{clash}")
            }
        }
    }
}

/// Why a Service does not get what it asks for. What it held before, it still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request contradicts itself.
    Invalid(String),
    /// There is no pool at all.
    NoPool,
    /// The pool it names does not exist.
    UnknownPool {
        /// The name.
        name: Arc<str>,
        /// The pools that do exist.
        existing: Vec<Arc<str>>,
    },
    /// Every pool was of no use.
    Considered(Vec<Considered>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Invalid(fault) => f.write_str(fault),
            Refusal::NoPool => f.write_str("there is no AddressPool; create one"),
            Refusal::UnknownPool { name, existing } if existing.is_empty() => {
                write!(
                    f,
                    "there is no AddressPool \"{name}\", nor any other; create it"
                )
            }
            Refusal::UnknownPool { name, existing } => {
                write!(
                    f,
                    "there is no AddressPool \"{name}\"; create it, or name one of: {}",
                    existing.join(", ")
                )
            }
            Refusal::Considered(pools) => {
                for (position, pool) in pools.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(f, "{separator}{pool}")?;
                }
                Ok(())
            }
        }
    }
}
