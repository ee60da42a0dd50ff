//! Claims: addresses that a Service names itself in `spec.externalIPs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Allocator, considered};
use crate::request::{Considered, ServiceId, Why};
use crate::sharing::Sharing;

/// What became of a Service's claims.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Claims {
    /// Those it did not hold before.
    pub added: Vec<IpAddr>,
    /// Those it held before and does not now.
    pub released: Vec<IpAddr>,
    /// Those it does not get although a pool takes such claims.
    pub refused: Vec<Considered>,
}

impl Allocator {
    /// Claims these addresses for a Service, each by itself: one that is refused does not keep
    /// it from the others. An address outside the pools that take claims is not our business.
    /// Doing it twice changes nothing.
    pub fn claim(
        &mut self,
        service: &ServiceId,
        wanted: &[IpAddr],
        sharing: &Sharing,
        closed: &BTreeMap<Arc<str>, String>,
        now: Duration,
    ) -> Claims {
        self.wake(now);
        let mut claims = Claims::default();
        for address in self.claimed_by(service).to_vec() {
            if !wanted.contains(&address) {
                self.drop_holder(service, address, now);
                claims.released.push(address);
            }
        }
        for address in wanted {
            let held = self.services.get(service);
            if held.is_some_and(|h| h.claims.contains(address) || h.addresses.contains(address)) {
                continue;
            }
            let Some(pool) = self.pools.covering(*address) else {
                continue;
            };
            if !pool.spec.external_ips {
                continue;
            }
            let across = pool.spec.sharing_across_namespaces;
            let why = if let Some(why) = self.fault(*address, closed, true) {
                Some(why)
            } else {
                let clash = self.clash(service, sharing, *address, across);
                clash.map(|(by, clash)| Why::Taken {
                    address: *address,
                    by,
                    clash,
                })
            };
            if let Some(why) = why {
                claims.refused.push(considered(pool, why));
                continue;
            }
            let (name, on_shrink) = (pool.spec.name.clone(), pool.spec.on_shrink);
            self.set_sharing(service, sharing);
            self.hold(service, *address, name, on_shrink);
            let held = self.services.entry(service.clone()).or_default();
            held.claims.push(*address);
            held.sharing = sharing.clone();
            claims.added.push(*address);
        }
        // In the order of the Service, however they came.
        if let Some(held) = self.services.get_mut(service) {
            let place = |claim: &IpAddr| wanted.iter().position(|address| address == claim);
            held.claims.sort_by_key(place);
        }
        claims
    }
}
