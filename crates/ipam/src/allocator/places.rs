//! Where there is a place beside others who share an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Allocator;
use crate::family::{Family, number};
use crate::pool::Pool;
use crate::request::ServiceId;
use crate::sharing::{Backends, Sharing};
use crate::shelf::Shelf;

/// Who may join, but for the ports: all who agree in this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Class {
    key: Arc<str>,
    family: Family,
    backends: Backends,
    /// Holders of this namespace alone; none: of any, where the pool allows that.
    namespace: Option<Arc<str>>,
}

/// Shared addresses by who may join them. One whose holders do not agree among themselves, as
/// after an adoption, is not among them: nobody may join it.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    shelves: HashMap<Class, Shelf>,
    classes: HashMap<IpAddr, Vec<Class>>,
}

impl Places {
    fn take(&mut self, address: IpAddr) {
        for class in self.classes.remove(&address).unwrap_or_default() {
            if let Some(shelf) = self.shelves.get_mut(&class) {
                shelf.take(number(address));
                if shelf.is_empty() {
                    self.shelves.remove(&class);
                }
            }
        }
    }
}

impl Allocator {
    /// Notes who may join the holders of an address, as they have changed.
    pub(super) fn note_place(&mut self, address: IpAddr) {
        self.places.take(address);
        let holders = self.held.get(&address).map(|holding| &holding.holders[..]);
        let Some([first, rest @ ..]) = holders else {
            return;
        };
        let Some(sharing) = self.services.get(first).map(|held| &held.sharing) else {
            return;
        };
        let Some(key) = sharing.key.clone() else {
            return;
        };
        let mut ports = sharing.ports.clone();
        let mut namespace = Some(first.namespace.clone());
        for holder in rest {
            let Some(other) = self.services.get(holder).map(|held| &held.sharing) else {
                return;
            };
            if other.key != sharing.key || other.backends != sharing.backends {
                return;
            }
            ports.extend(&other.ports);
            if holder.namespace != first.namespace {
                namespace = None;
            }
        }
        let class = |namespace| Class {
            key: key.clone(),
            family: Family::of(address),
            backends: sharing.backends.clone(),
            namespace,
        };
        // The same selector selects other Pods in another namespace; without one, nobody can tell.
        let anywhere = sharing.backends == Backends::Cluster;
        let apart = sharing.backends == Backends::Local("".into());
        let mut classes = Vec::new();
        classes.extend(namespace.filter(|_| !apart).map(|one| class(Some(one))));
        classes.extend(anywhere.then(|| class(None)));
        for class in &classes {
            let shelf = self.places.shelves.entry(class.clone()).or_default();
            shelf.put(number(address), ports.clone());
        }
        if !classes.is_empty() {
            self.places.classes.insert(address, classes);
        }
    }

    /// The lowest address of a pool that the Service may share.
    pub(super) fn lowest_shared(
        &self,
        pool: &Pool,
        family: Family,
        service: &ServiceId,
        sharing: &Sharing,
    ) -> Option<IpAddr> {
        let key = sharing.key.clone()?;
        let across = pool.spec.sharing_across_namespaces && sharing.backends == Backends::Cluster;
        let class = Class {
            key,
            family,
            backends: sharing.backends.clone(),
            namespace: (!across).then(|| service.namespace.clone()),
        };
        let given = |number| self.withheld(pool, family.address(number)).is_none();
        let among = |shelf: &Shelf| {
            let mut ranges = pool.ranges(family).iter();
            ranges.find_map(|range| shelf.lowest(range.bounds(), &sharing.ports, &given))
        };
        let found = self.places.shelves.get(&class).and_then(among);
        let found = found.map(|number| family.address(number));
        // Its own ports are no bar to one that it has itself, by a claim.
        let held = self.services.get(service).into_iter();
        let own = held.flat_map(|held| held.addresses.iter().chain(&held.claims));
        let across = pool.spec.sharing_across_namespaces;
        let own = own.copied().filter(|address| {
            Family::of(*address) == family
                && self.offers(pool, *address)
                && self.clash(service, sharing, *address, across).is_none()
        });
        own.chain(found).min()
    }

    /// Whether some address of a pool is one that the Service may share.
    pub fn has_place(
        &self,
        pool: &str,
        family: Family,
        service: &ServiceId,
        sharing: &Sharing,
    ) -> bool {
        let pool = self.pools.get(pool);
        pool.is_some_and(|pool| self.lowest_shared(pool, family, service, sharing).is_some())
    }
}
