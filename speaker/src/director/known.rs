//! What is known of the kernel's IPVS table, and what has to be changed of it. Pure.
//!
//! The director writes the table alone, so what it wrote is what is there. Of each service it
//! therefore keeps not the destinations but the wish that they were made from, whose node
//! list most services share: 200,000 destinations take no more memory than their services.
//! A change is worked out for those services only of which something else is wanted.

use std::collections::BTreeMap;

use lightship_ipvs::{Destination, Service, ServiceKey, ServiceSpec, ServiceState};

use super::table;
use lightship_core::intent::{PortKey, Virtual};

/// Asking for a service's destinations takes about as long as reading so many of them (measured on User Mode Linux).
const REQUEST: usize = 8;

/// A table, by key.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<(ServiceKey, Held)>);

/// What the kernel holds of a service.
#[derive(Clone, Debug)]
enum Held {
    /// What was asked for.
    Made(PortKey, Virtual),
    /// What was read.
    Found(Box<ServiceState>),
}

/// What is not as it is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Services that are there, wanted otherwise, and how they are.
    pub(super) change: Vec<ServiceSpec>,
    pub(super) from: Vec<ServiceState>,
    /// Services that are not there.
    pub(super) create: Vec<(PortKey, Virtual)>,
}

impl Known {
    /// A table that was read.
    pub(super) fn found(table: Vec<ServiceState>) -> Self {
        let found = table.into_iter();
        let mut all: Vec<_> = found
            .map(|state| (state.service.key, Held::Found(Box::new(state))))
            .collect();
        all.sort_by_key(|(key, _)| *key);
        Known(all)
    }

    /// The number of services.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Splits off the services that `aside` is true of.
    pub(super) fn split(self, aside: impl Fn(ServiceKey) -> bool) -> (Self, Self) {
        let (aside, rest) = self.0.into_iter().partition(|(key, _)| aside(*key));
        (Known(aside), Known(rest))
    }

    /// How this table differs from the wanted one.
    pub(super) fn difference(
        &self,
        wanted: &BTreeMap<ServiceKey, (&PortKey, &Virtual)>,
    ) -> Difference {
        let mut difference = Difference::default();
        let mut present = std::collections::BTreeSet::new();
        for (key, held) in &self.0 {
            present.insert(*key);
            match (held, wanted.get(key)) {
                (Held::Made(_, made), Some((_, wanted))) if made == *wanted => {}
                (held, wanted) => {
                    difference
                        .change
                        .extend(wanted.map(|(key, v)| table::spec(key, v)));
                    difference.from.push(held.state());
                }
            }
        }
        let absent = wanted.iter().filter(|(key, _)| !present.contains(key));
        difference.create = absent.map(|(_, (key, v))| (**key, (*v).clone())).collect();
        difference
    }

    /// The table in which all of `wanted` was made, and what is in `aside` is as it was.
    pub(super) fn made(wanted: &BTreeMap<ServiceKey, (&PortKey, &Virtual)>, aside: Known) -> Self {
        let made = wanted
            .iter()
            .map(|(key, (port, v))| (*key, Held::Made(**port, (*v).clone())));
        let mut all: Vec<_> = made.chain(aside.0).collect();
        all.sort_by_key(|(key, _)| *key);
        Known(all)
    }

    /// Whether these are its services, in order of their keys.
    pub(super) fn has_services<'a>(&self, services: impl Iterator<Item = &'a Service>) -> bool {
        let mut known = self.0.iter();
        let equal = services.into_iter().all(|service| {
            known
                .next()
                .is_some_and(|(_, held)| held.service() == *service)
        });
        equal && known.next().is_none()
    }

    /// The key of the service at `index`.
    pub(super) fn key(&self, index: usize) -> ServiceKey {
        self.0[index].0
    }

    /// What it takes to read the service at `index`, in destinations.
    pub(super) fn cost(&self, index: usize) -> usize {
        REQUEST
            + match &self.0[index].1 {
                Held::Made(_, v) => v.weights.len(),
                Held::Found(state) => state.destinations.len(),
            }
    }

    /// Whether these are the destinations of the service at `index`.
    pub(super) fn has_destinations<'a>(
        &self,
        index: usize,
        destinations: impl Iterator<Item = &'a Destination>,
    ) -> bool {
        let known = self.0[index].1.state().destinations;
        destinations.eq(known.iter().map(|d| &d.destination))
    }
}

impl Held {
    fn service(&self) -> Service {
        match self {
            Held::Made(key, v) => Service::from(&table::spec(key, &without_destinations(v))),
            Held::Found(state) => state.service.clone(),
        }
    }

    fn state(&self) -> ServiceState {
        match self {
            Held::Found(state) => ServiceState::clone(state),
            Held::Made(key, v) => {
                let spec = table::spec(key, v);
                let service = Service::from(&spec);
                let destinations = spec.destinations.into_iter().map(Into::into);
                ServiceState {
                    service,
                    stats: Default::default(),
                    destinations: destinations.collect(),
                }
            }
        }
    }
}

/// The same wish of nobody, where only the service's settings count.
fn without_destinations(v: &Virtual) -> Virtual {
    Virtual {
        scheduling: v.scheduling,
        weights: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use lightship_ipvs::plan;

    use super::*;
    use lightship_core::intent::{Scheduling, Weights};
    use lightship_core::world::{Port, Protocol};

    fn weights(list: &[(u8, u32)]) -> Weights {
        let all = list
            .iter()
            .map(|(n, w)| (IpAddr::from([192, 0, 2, *n]), *w));
        Arc::new(all.collect())
    }

    fn wish(port: u16, weights: &Weights) -> (PortKey, Virtual) {
        let key = PortKey {
            vip: [192, 0, 2, 200].into(),
            port: Port {
                protocol: Protocol::Tcp,
                number: port,
            },
        };
        let scheduling = Scheduling {
            hash_client_port: true,
            one_packet: false,
        };
        let weights = weights.clone();
        (
            key,
            Virtual {
                scheduling,
                weights,
            },
        )
    }

    fn by_key(wishes: &[(PortKey, Virtual)]) -> BTreeMap<ServiceKey, (&PortKey, &Virtual)> {
        let all = wishes.iter();
        all.map(|(key, v)| (table::service_key(key), (key, v)))
            .collect()
    }

    #[test]
    fn only_what_is_wanted_otherwise_is_looked_at() {
        let (both, one) = (weights(&[(11, 1), (12, 1)]), weights(&[(11, 1), (12, 0)]));
        let first = [wish(80, &both), wish(443, &both)];
        let wanted = by_key(&first);
        let empty = Known::default();
        assert_eq!(empty.difference(&wanted).create, first);

        let known = Known::made(&wanted, Known::default());
        assert_eq!(known.difference(&wanted), Difference::default());
        let second = [wish(80, &one), wish(8080, &both)];
        let difference = known.difference(&by_key(&second));
        assert_eq!(difference.create, second[1..]);
        let ops = plan(&difference.change, &difference.from);
        let texts: Vec<String> = ops.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "edit 192.0.2.12:80 weight 0 of TCP 192.0.2.200:80",
                "delete service TCP 192.0.2.200:443"
            ]
        );
    }

    #[test]
    fn what_was_read_is_compared_with_what_was_made() {
        let first = [
            wish(80, &weights(&[(11, 1)])),
            wish(443, &weights(&[(12, 1)])),
        ];
        let wanted = by_key(&first);
        let made = Known::made(&wanted, Known::default());
        let states: Vec<ServiceState> = made.0.iter().map(|(_, held)| held.state()).collect();
        let services = || states.iter().map(|state| &state.service);
        assert!(made.has_services(services()));
        assert!(!made.has_services(services().skip(1)));
        assert!(!made.has_services(services().take(1)));
        let destinations = |n: usize| states[n].destinations.iter().map(|d| &d.destination);
        assert!(made.has_destinations(0, destinations(0)));
        assert!(!made.has_destinations(0, destinations(1)));
        assert_eq!(
            (made.len(), made.cost(1), made.key(0)),
            (2, REQUEST + 1, states[0].service.key)
        );

        // What is found as it is wanted needs no op, but is not taken for made.
        let found = Known::found(states);
        let difference = found.difference(&wanted);
        assert_eq!(difference.change.len(), 2);
        assert_eq!(plan(&difference.change, &difference.from), []);
        let (aside, rest) = found.split(|key| key == made.key(0));
        assert_eq!((aside.len(), rest.len()), (1, 1));
    }
}
