//! Whether two Services may hold one address.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::request::ServiceId;

/// A transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// A port that a Service listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its protocol; the same number of another protocol is another port.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{protocol} port {}", self.number)
    }
}

/// Which nodes can serve a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backends {
    /// All of them (`externalTrafficPolicy: Cluster`).
    #[default]
    Cluster,
    /// Those with Pods that this selector text selects in the Service's namespace
    /// (`externalTrafficPolicy: Local`). Without a selector (an empty text) the endpoints are
    /// set by hand, and nobody can tell that they are those of another Service.
    Local(Arc<str>),
}

/// What of a Service decides with whom it may share an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharing {
    /// Services share only under the same key; one without a key shares with nobody.
    pub key: Option<Arc<str>>,
    /// Which nodes can serve it: in announce mode a single node gets all traffic of an
    /// address, so it must be able to serve all Services on it.
    pub backends: Backends,
    /// What it listens on.
    pub ports: BTreeSet<Port>,
}

/// Why two Services must not share an address, from the point of view of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The first has no sharing key.
    NotSharing,
    /// The second has none.
    OtherNotSharing,
    /// Their keys differ; this is the key of the second.
    Key(Arc<str>),
    /// They are of different namespaces, which the pool does not allow.
    Namespace,
    /// They are not served by the same nodes.
    Backends,
    /// Both listen on this port.
    Port(Port),
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clash::NotSharing => {
                f.write_str("; ask for another, or share it by lightship.dev/shared-address-key on both")
            }
            Clash::OtherNotSharing => f.write_str(", which has no sharing key"),
            Clash::Key(key) => write!(f, ", which shares under the key \"{key}\" only"),
            Clash::Namespace => f.write_str(
                " of another namespace; set the pool's allowSharingAcrossNamespaces to share all the same",
            ),
            Clash::Backends => f.write_str(
                ", which has another externalTrafficPolicy or, under Local, another selector or namespace, or no selector",
            ),
            Clash::Port(port) => write!(f, ", which uses {port} too"),
        }
    }
}

/// Why `one` must not share an address with `other`, if so. `across`: whether different
/// namespaces may.
pub(crate) fn clash(
    (one, mine): (&ServiceId, &Sharing),
    (other, theirs): (&ServiceId, &Sharing),
    across: bool,
) -> Option<Clash> {
    let (Some(key), other_key) = (&mine.key, &theirs.key) else {
        return Some(Clash::NotSharing);
    };
    let Some(other_key) = other_key else {
        return Some(Clash::OtherNotSharing);
    };
    if key != other_key {
        return Some(Clash::Key(other_key.clone()));
    }
    let same_namespace = one.namespace == other.namespace;
    if !same_namespace && !across {
        return Some(Clash::Namespace);
    }
    // The same selector selects other Pods in another namespace.
    let apart = match &mine.backends {
        Backends::Local(selector) => selector.is_empty() || !same_namespace,
        Backends::Cluster => false,
    };
    if mine.backends != theirs.backends || apart {
        return Some(Clash::Backends);
    }
    let port = mine.ports.intersection(&theirs.ports).next();
    port.map(|port| Clash::Port(*port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharing(key: &str, backends: Backends, ports: &[u16]) -> Sharing {
        Sharing {
            key: (!key.is_empty()).then(|| key.into()),
            backends,
            ports: ports
                .iter()
                .map(|number| Port {
                    protocol: Protocol::Tcp,
                    number: *number,
                })
                .collect(),
        }
    }

    #[test]
    fn the_rule_row_by_row() {
        let cluster = || Backends::Cluster;
        let local = |text: &str| Backends::Local(text.into());
        let (a, b) = (ServiceId::new("x", "a"), ServiceId::new("x", "b"));
        let far = ServiceId::new("y", "c");
        let rows = [
            (
                sharing("", cluster(), &[1]),
                &b,
                sharing("k", cluster(), &[2]),
                false,
                Some(""),
            ),
            (
                sharing("k", cluster(), &[1]),
                &b,
                sharing("", cluster(), &[2]),
                false,
                Some("no sharing key"),
            ),
            (
                sharing("k", cluster(), &[1]),
                &b,
                sharing("l", cluster(), &[2]),
                false,
                Some("key \"l\""),
            ),
            (
                sharing("k", cluster(), &[1]),
                &b,
                sharing("k", cluster(), &[2]),
                false,
                None,
            ),
            (
                sharing("k", cluster(), &[1]),
                &b,
                sharing("k", cluster(), &[1]),
                false,
                Some("TCP port 1 too"),
            ),
            (
                sharing("k", cluster(), &[1]),
                &far,
                sharing("k", cluster(), &[2]),
                false,
                Some("another namespace"),
            ),
            (
                sharing("k", cluster(), &[1]),
                &far,
                sharing("k", cluster(), &[2]),
                true,
                None,
            ),
            (
                sharing("k", local("app=a"), &[1]),
                &b,
                sharing("k", cluster(), &[2]),
                false,
                Some("externalTrafficPolicy"),
            ),
            (
                sharing("k", local("app=a"), &[1]),
                &b,
                sharing("k", local("app=b"), &[2]),
                false,
                Some("selector"),
            ),
            (
                sharing("k", local("app=a"), &[1]),
                &b,
                sharing("k", local("app=a"), &[2]),
                false,
                None,
            ),
            (
                sharing("k", local(""), &[1]),
                &b,
                sharing("k", local(""), &[2]),
                false,
                Some("no selector"),
            ),
            (
                sharing("k", local("app=a"), &[1]),
                &far,
                sharing("k", local("app=a"), &[2]),
                true,
                Some("namespace"),
            ),
        ];
        for (mine, other, theirs, across, expected) in rows {
            let found = clash((&a, &mine), (other, &theirs), across).map(|clash| clash.to_string());
            match (expected, &found) {
                (None, None) => {}
                (Some(part), Some(text)) if text.contains(part) => {}
                _ => panic!("{mine:?} {theirs:?}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn one_number_of_two_protocols_is_two_ports() {
        let (a, b) = (ServiceId::new("x", "a"), ServiceId::new("x", "b"));
        let mut udp = sharing("k", Backends::Cluster, &[]);
        udp.ports.insert(Port {
            protocol: Protocol::Udp,
            number: 53,
        });
        let tcp = sharing("k", Backends::Cluster, &[53]);
        assert_eq!(clash((&a, &udp), (&b, &tcp), false), None);
    }
}
