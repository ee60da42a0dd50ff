//! From a desired and an actual table to the ops between them. Pure.
//!
//! # Order of destinations
//! `mh` fills its lookup table by visiting the service's destination list in
//! order, so two nodes agree only if their lists do. The kernel adds a
//! destination at the list's head (`ip_vs_ctl.c:__ip_vs_update_dest`) and never
//! moves one, so a list is its insertion history. [`plan`] therefore keeps the
//! longest run of leading desired destinations that the kernel already has in
//! the right relative order, and deletes and re-adds only the others. No plan
//! re-adds fewer: what is added comes after what is kept, so the kept ones can
//! only be a prefix of the desired order.
//!
//! # Weight 0
//! The table is built from each destination's *last non-zero* weight, so
//! editing a weight to 0 keeps the table's shape. Adding with weight 0 gives the
//! destination no slots at all (`last_weight` 0). A destination that is wanted
//! with weight 0 but is not there yet is therefore added with weight
//! [`QUIESCED_LAST_WEIGHT`] and edited to 0 in the next op.
//!
//! # Scheduler last
//! The kernel tells a service's scheduler of every destination that comes, and
//! `mh` then builds its 4,093 slots anew: a service of 100 destinations would
//! be built 100 times. A new service is therefore added without a scheduler
//! ([`Scheduler::NONE`]), given its destinations, and given its scheduler last,
//! which builds the table once. Until then its packets are refused, so the
//! service must not be in use yet; it is new, so it is not. A service that is
//! found without scheduler is one of which this was interrupted.
//!
//! # Order of ops
//! 1. Edits to weight 0, over all services: what fails over is most urgent.
//! 2. Per service in key order: new services with their destinations; for
//!    existing ones first the service's own settings, then edits, then
//!    delete-and-re-add one destination at a time, then deletions. So a
//!    service that keeps at least one destination never has none on the way.
//! 3. Services that are no longer wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use crate::model::{Destination, Scheduler, Service, ServiceKey, ServiceSpec, ServiceState, Stats};

/// The weight with which a new destination enters when it is wanted with
/// weight 0: the weight of every live destination in Lightship, so the table
/// has the shape that it has on nodes which saw the destination alive.
pub const QUIESCED_LAST_WEIGHT: u32 = 1;

/// One change of the kernel's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Add a service.
    NewService(Service),
    /// Replace a service's settings. The kernel lets everything but the key
    /// change, the scheduler included, and keeps destinations and connections.
    SetService(Service),
    /// Delete a service and its destinations.
    DelService(ServiceKey),
    /// Add a destination.
    NewDest(ServiceKey, Destination),
    /// Replace a destination's settings; its place in the list stays.
    SetDest(ServiceKey, Destination),
    /// Delete a destination.
    DelDest(ServiceKey, SocketAddr),
}

impl Op {
    /// The service that the op concerns.
    #[must_use]
    pub fn service(&self) -> ServiceKey {
        match self {
            Self::NewService(service) | Self::SetService(service) => service.key,
            Self::DelService(key)
            | Self::NewDest(key, _)
            | Self::SetDest(key, _)
            | Self::DelDest(key, _) => *key,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewService(service) => write!(f, "add service {}", service.key),
            Self::SetService(service) => write!(f, "edit service {}", service.key),
            Self::DelService(key) => write!(f, "delete service {key}"),
            Self::NewDest(key, destination) => write!(f, "add {destination} to {key}"),
            Self::SetDest(key, destination) => write!(f, "edit {destination} of {key}"),
            Self::DelDest(key, destination) => write!(f, "delete {destination} from {key}"),
        }
    }
}

/// The ops that turn the `actual` table into the `desired` one, in an order
/// that is safe to apply (see the module). Empty when nothing differs.
///
/// Services in `actual` that are not in `desired` are deleted. Of specs with
/// the same key, and of a spec's destinations with the same address and port,
/// the first one holds.
#[must_use]
pub fn plan(desired: &[ServiceSpec], actual: &[ServiceState]) -> Vec<Op> {
    let desired = canonical(desired);
    let actual: BTreeMap<ServiceKey, &ServiceState> = actual
        .iter()
        .map(|state| (state.service.key, state))
        .collect();

    let mut plan = Plan::default();
    for (key, wanted) in &desired {
        match actual.get(key) {
            None => plan.create(wanted),
            Some(state) => plan.change(wanted, state),
        }
    }
    for key in actual.keys().filter(|key| !desired.contains_key(key)) {
        plan.delete.push(Op::DelService(*key));
    }
    plan.into_ops()
}

/// The table that [`crate::Client::dump`] would read (counters aside) once the
/// plan for `desired` has been applied without an error. It spares a caller who
/// alone writes to the table the reading after each change.
#[must_use]
pub fn outcome(desired: &[ServiceSpec]) -> Vec<ServiceState> {
    canonical(desired)
        .into_values()
        .map(|wanted| ServiceState {
            service: wanted.service,
            stats: Stats::default(),
            destinations: wanted.destinations.into_iter().map(Into::into).collect(),
        })
        .collect()
}

/// A spec without duplicates.
pub(crate) struct Canonical {
    pub(crate) service: Service,
    pub(crate) destinations: Vec<Destination>,
}

/// Specs by key, duplicates dropped: the first one holds.
pub(crate) fn canonical(specs: &[ServiceSpec]) -> BTreeMap<ServiceKey, Canonical> {
    let mut by_key = BTreeMap::new();
    for spec in specs {
        by_key.entry(spec.key).or_insert_with(|| {
            let mut seen = BTreeSet::new();
            Canonical {
                service: Service::from(spec),
                destinations: spec
                    .destinations
                    .iter()
                    .filter(|destination| seen.insert(destination.key()))
                    .copied()
                    .collect(),
            }
        });
    }
    by_key
}

/// Ops by phase.
#[derive(Default)]
struct Plan {
    quiesce: Vec<Op>,
    change: Vec<Op>,
    delete: Vec<Op>,
}

impl Plan {
    fn create(&mut self, wanted: &Canonical) {
        // With one destination there is nothing to save.
        let scheduler_last = wanted.destinations.len() > 1;
        let mut service = wanted.service.clone();
        if scheduler_last {
            service.scheduler = Scheduler::NONE;
        }
        self.change.push(Op::NewService(service));
        for destination in &wanted.destinations {
            self.add(wanted.service.key, *destination);
        }
        if scheduler_last {
            self.change.push(Op::SetService(wanted.service.clone()));
        }
    }

    fn change(&mut self, wanted: &Canonical, state: &ServiceState) {
        let key = wanted.service.key;
        let edit = wanted.service != state.service;
        let scheduler_last = state.service.scheduler == Scheduler::NONE;
        if edit && !scheduler_last {
            self.change.push(Op::SetService(wanted.service.clone()));
        }

        let present: BTreeMap<SocketAddr, Destination> = state
            .destinations
            .iter()
            .map(|state| (state.destination.key(), state.destination))
            .collect();
        let (kept, others) = wanted
            .destinations
            .split_at(kept_prefix(&wanted.destinations, state));

        for destination in kept {
            let before = present[&destination.key()];
            if before == *destination {
                continue;
            }
            let phase = if destination.weight == 0 && before.weight != 0 {
                &mut self.quiesce
            } else {
                &mut self.change
            };
            phase.push(Op::SetDest(key, *destination));
        }
        for destination in others {
            if present.contains_key(&destination.key()) {
                self.change.push(Op::DelDest(key, destination.key()));
            }
            self.add(key, *destination);
        }
        let stay: BTreeSet<SocketAddr> = wanted.destinations.iter().map(Destination::key).collect();
        for destination in present.keys().filter(|key| !stay.contains(key)) {
            self.change.push(Op::DelDest(key, *destination));
        }
        if edit && scheduler_last {
            self.change.push(Op::SetService(wanted.service.clone()));
        }
    }

    fn add(&mut self, key: ServiceKey, destination: Destination) {
        if destination.weight == 0 {
            let alive = Destination {
                weight: QUIESCED_LAST_WEIGHT,
                ..destination
            };
            self.change.push(Op::NewDest(key, alive));
            self.change.push(Op::SetDest(key, destination));
        } else {
            self.change.push(Op::NewDest(key, destination));
        }
    }

    fn into_ops(self) -> Vec<Op> {
        let mut ops = self.quiesce;
        ops.extend(self.change);
        ops.extend(self.delete);
        ops
    }
}

/// How many leading desired destinations the kernel has in that relative order
/// already, whatever else stands between them (that will be deleted).
fn kept_prefix(desired: &[Destination], actual: &ServiceState) -> usize {
    let mut kept = 0;
    for state in &actual.destinations {
        if desired
            .get(kept)
            .is_some_and(|wanted| wanted.key() == state.destination.key())
        {
            kept += 1;
        }
    }
    kept
}

#[cfg(test)]
mod kernel;
#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
