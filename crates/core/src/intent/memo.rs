//! The intent of many VIPs at little cost. Pure.
//!
//! Judging a VIP looks at every node, and most VIPs of a cluster differ in nothing that counts: they
//! have the same family, LAN and announcements, and Services under policy `Cluster`. Such VIPs are
//! of one [`Class`], which is judged once and shared. Services under policy `Local` have endpoints of
//! their own and so a class of their own, but that stays as it is until their endpoints or a node
//! change. What comes out equal to what was before is the same allocation as before, so that
//! whoever compares it later has no work either. While nothing changes that all depend on, only those VIPs
//! are looked at that a change may matter to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Facts, Intent, Judged, NodeHealth, Weights, judge};
use crate::eligibility::{self, Case, Eligibility, Policy};
use crate::world::{NodeName, ServiceRef, Vip, World};

/// All that counts of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    lan: Lan,
    services: Vec<Of>,
}

/// Its family, and what depends on its address and on who may announce it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lan {
    ipv6: bool,
    /// The announcements for it, by their place.
    announcements: Vec<usize>,
    /// Of the networks that nodes name, those that it is in.
    networks: Vec<IpNet>,
}

/// All that counts of one of its Services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// It is not there.
    Absent,
    /// Policy `Cluster`; whether its ports have any endpoint, each in its order or all alike.
    Cluster { endpoints: Vec<bool> },
    /// Policy `Local`: its endpoints count.
    Local(ServiceRef),
}

/// Computes intents one after another.
#[derive(Debug, Default)]
pub struct Memo {
    before: Option<Before>,
    classes: BTreeMap<Class, Arc<Judged>>,
    seats: Seats,
}

/// What the last intent was computed from.
#[derive(Debug)]
struct Before {
    world: Arc<World>,
    health: BTreeMap<NodeName, NodeHealth>,
    policy: Policy,
}

impl Memo {
    /// Makes the intent of before that of now. It is what this made the last time, at first an empty one. Returns
    /// the VIPs of which it may be another; none: of all.
    ///
    /// `health` has an entry for each node that has been heard, the own node included.
    pub fn update(
        &mut self,
        intent: &mut Intent,
        world: &Arc<World>,
        health: BTreeMap<NodeName, NodeHealth>,
        policy: Policy,
    ) -> Option<BTreeSet<IpAddr>> {
        // Nothing that all VIPs depend on has changed: then they can have changed one by one only.
        let calm = self.before.as_ref().filter(|before| {
            before.policy == policy
                && before.health == health
                && before.world.nodes == world.nodes
                && before.world.announcements == world.announcements
        });
        let same_slices = |reference: &ServiceRef| {
            calm.is_some_and(|b| {
                Arc::ptr_eq(&b.world, world)
                    || (b.world.slices.get(reference) == world.slices.get(reference)
                        && b.world.services.get(reference) == world.services.get(reference))
            })
        };
        let facts = Facts {
            world,
            health: &health,
            policy,
        };
        let networks = health.values().flat_map(|h| {
            let further = h.further.iter().flat_map(|f| f.networks.iter());
            h.networks.iter().chain(further).copied()
        });
        let networks: BTreeSet<IpNet> = networks.collect();
        // Classes that no VIP is of any more are forgotten when all are looked at.
        let tidy = self.classes.len() <= 2 * world.vips.len();
        let touched = calm.filter(|_| tidy).and_then(|b| world.touched(&b.world));
        let mut classes = BTreeMap::<Class, Arc<Judged>>::new();
        let mut seats = std::mem::take(&mut self.seats);
        let vips: Vec<(IpAddr, &Vip)> = match &touched {
            Some(touched) => {
                intent.forget(touched);
                let there = touched.iter();
                let there = there.filter_map(|address| Some((*address, world.vips.get(address)?)));
                there.collect()
            }
            None => {
                *intent = Intent::default();
                seats = Seats::new(seats, &health);
                let all = world.vips.iter();
                all.map(|(address, vip)| (*address, vip)).collect()
            }
        };
        for (address, vip) in vips {
            let class = class(world, &networks, address, vip);
            let judged = classes.entry(class).or_insert_with_key(|class| {
                let old = self.classes.get(class);
                let still = calm.is_some() && class.local().all(same_slices);
                match old {
                    Some(old) if still => old.clone(),
                    _ => {
                        seats.lan = Some(class.lan.clone());
                        let new = judge(facts, address, vip, &mut seats);
                        intern(new, old)
                    }
                }
            });
            intent.add(world, address, vip, judged);
        }
        if let Some(before) = calm.filter(|_| touched.is_some()) {
            // No VIP is of such a class now, but one may be again.
            let stale = world.services_touched(&before.world);
            let fresh = |class: &Class| !class.local().any(|service| stale.contains(service));
            self.classes.retain(|class, _| fresh(class));
            self.classes.extend(classes);
        } else {
            self.classes = classes;
        }
        self.seats = seats;
        self.before = Some(Before {
            world: world.clone(),
            health,
            policy,
        });
        touched
    }
}

fn class(world: &World, networks: &BTreeSet<IpNet>, address: IpAddr, vip: &Vip) -> Class {
    let covering = world.announcements_for(vip);
    let all = world.announcements.values().enumerate();
    let of = |reference: &ServiceRef| match world.services.get(reference) {
        None => Of::Absent,
        Some(service) if service.local => Of::Local(reference.clone()),
        Some(_) => Of::Cluster {
            endpoints: cluster(world, reference, address.is_ipv6()),
        },
    };
    let containing = networks.iter().filter(|network| network.contains(&address));
    Class {
        lan: Lan {
            ipv6: address.is_ipv6(),
            announcements: all
                .filter(|(_, a)| covering.iter().any(|c| std::ptr::eq(*c, *a)))
                .map(|(place, _)| place)
                .collect(),
            networks: containing.copied().collect(),
        },
        services: vip.services.iter().map(of).collect(),
    }
}

/// Whether the ports of a Service have any endpoint.
fn cluster(world: &World, reference: &ServiceRef, ipv6: bool) -> Vec<bool> {
    let (groups, heads) = world.port_groups(reference, ipv6);
    let has = |port| world.port_has_endpoints(reference, ipv6, port);
    World::by_port(&groups, heads.iter().map(has).collect())
}

impl Class {
    fn local(&self) -> impl Iterator<Item = &ServiceRef> {
        self.services.iter().filter_map(|service| match service {
            Of::Local(reference) => Some(reference),
            _ => None,
        })
    }
}

/// Takes of `old` whatever is the same in `new`.
fn intern(new: Judged, old: Option<&Arc<Judged>>) -> Arc<Judged> {
    let Some(old) = old else {
        return Arc::new(new);
    };
    if **old == new {
        return old.clone();
    }
    let keep = |weights: Option<Vec<Weights>>, before: &Option<Vec<Weights>>| {
        if weights == *before {
            before.clone()
        } else {
            weights
        }
    };
    let pairs = new.weights.into_iter().zip(&old.weights);
    Arc::new(Judged {
        vip: if new.vip == old.vip {
            old.vip.clone()
        } else {
            new.vip
        },
        weights: pairs
            .map(|(weights, before)| keep(weights, before))
            .collect(),
    })
}

/// Who may answer for the VIPs of a LAN.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Of the VIP that is judged.
    lan: Option<Lan>,
    known: BTreeMap<SeatsOf, Arc<Eligibility>>,
    before: BTreeMap<SeatsOf, Arc<Eligibility>>,
    /// Every node has a director, so that nobody needs an endpoint.
    all_direct: bool,
}

/// The nodes with an endpoint, where they count.
type SeatsOf = (Option<Lan>, Option<BTreeSet<NodeName>>);

impl Seats {
    fn new(before: Seats, health: &BTreeMap<NodeName, NodeHealth>) -> Self {
        Seats {
            before: before.known,
            all_direct: health.values().all(|h| h.direct_routing),
            ..Seats::default()
        }
    }

    /// Judges the nodes, unless they have been for an equal case.
    pub(super) fn judge(&mut self, case: &Case<'_>, announce_only: bool) -> Arc<Eligibility> {
        let endpoints_count = announce_only || !self.all_direct;
        let nodes = case.local_nodes.filter(|_| endpoints_count);
        let key = (self.lan.clone(), nodes.cloned());
        let before = &self.before;
        let known = self.known.entry(key).or_insert_with_key(|key| {
            let new = eligibility::judge(case);
            match before.get(key) {
                Some(old) if **old == new => old.clone(),
                _ => Arc::new(new),
            }
        });
        known.clone()
    }
}

#[cfg(test)]
mod tests;
