//! All decisions. Owns the allocator and the last seen state of every object; does no I/O and
//! reads no clock, so that every case can be tried without a server.
//!
//! Nothing is decided before every kind of object has been listed once ([`Core::ready`]): an
//! address could otherwise be given away because its holder has not been seen yet. The first
//! decision is then to adopt what is on record (`adopt.rs`).
//!
//! Writes state what an object should be, not how to change it. An address is claimed by
//! creating its VirtualIP, which only one can do, and goes into the Service's status when that
//! VirtualIP has been seen. A crash in between leaves the VirtualIP as the record, from
//! which the next start adopts the address.

mod adopt;
mod pools;
mod report;
mod reserved;
mod restore;
mod service;
mod shut;
mod status;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use lightship_crds::{AddressPoolStatus, VirtualIPSpec};
use lightship_ipam::{Allocator, Family, ServiceId, Usage};

use crate::metrics::Snapshot;
use crate::model::{
    Action, Change, Clock, Input, NamespaceView, Namespaces, Notice, PoolView, Revision,
    ServiceView, SpeakerView, Subject, Verdict,
};
use shut::Shut;
use waiting::Waiting;

/// A Service, and what was last said about it.
#[derive(Clone, Debug)]
struct Entry {
    view: ServiceView,
    /// What its condition should say; a change of it may be worth an event.
    verdict: Option<Verdict>,
    /// It was assigned addresses, so that what its ingress shows is ours to clear.
    gave: bool,
    /// What its ingress was last wanted to be: the write may be under way still.
    asked: Vec<IpAddr>,
}

/// A pool, and what was last reported about it.
#[derive(Clone, Debug)]
struct PoolEntry {
    view: PoolView,
    reported: Option<AddressPoolStatus>,
    /// The last complaints by event reason, so that events come on change only.
    said: BTreeMap<&'static str, String>,
}

/// A VirtualIP as it was last seen.
#[derive(Clone, Debug)]
struct Seen {
    revision: Revision,
    spec: VirtualIPSpec,
}

/// Which kinds have been listed.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    services: bool,
    pools: bool,
    vips: bool,
    namespaces: bool,
    nodes: bool,
    speakers: bool,
}

impl Listed {
    fn all(self) -> bool {
        self.services && self.pools && self.vips && self.namespaces && self.nodes && self.speakers
    }
}

/// The controller's state and its decisions.
#[derive(Clone, Debug, Default)]
pub struct Core {
    listed: Listed,
    started: bool,
    /// The clock at the first input, to turn the one kind of time into the other.
    origin: Option<Clock>,
    /// The wall clock at the last input.
    now: Option<Timestamp>,
    allocator: Allocator,
    services: BTreeMap<ServiceId, Entry>,
    pools: BTreeMap<Arc<str>, PoolEntry>,
    vips: BTreeMap<String, Seen>,
    /// VirtualIPs that may be other than they should be, and whether to write them in any case.
    stale_vips: BTreeMap<String, bool>,
    /// VirtualIPs that the API server does not take, and why.
    refusals: BTreeMap<String, String>,
    /// VirtualIPs that somebody got and that are being written, with what was seen of them at
    /// that time: it may be about to be deleted, and proves nothing.
    pending: BTreeMap<String, Option<Revision>>,
    /// Services whose status the API server does not take, and why.
    unwritten: BTreeMap<ServiceId, String>,
    /// Services whose status is about to be rid of an address, by address: until then no other
    /// Service's status shows it.
    leaving: BTreeMap<IpAddr, BTreeSet<ServiceId>>,
    namespaces: Namespaces,
    /// Addresses of each Node.
    nodes: BTreeMap<String, Vec<IpAddr>>,
    /// What the speakers report of their networks, by node.
    speakers: BTreeMap<String, SpeakerView>,
    /// Whose addresses no pool gives away.
    reserved: BTreeMap<IpAddr, Arc<str>>,
    /// Services that lack something which another Service or a pool could free.
    waiting: Waiting,
    /// Addresses that are kept although their pool is closed to their holder.
    shut: Shut,
    /// Something changed that may concern every Service.
    revisit: bool,
    /// Pools whose conditions may have changed; of counts the allocator knows.
    stale_pools: BTreeSet<Arc<str>>,
    actions: Vec<Action>,
}

impl Core {
    /// Whether every kind of object has been listed, so that decisions are made.
    pub fn ready(&self) -> bool {
        self.started
    }

    /// How things stand, for people who watch it.
    pub fn snapshot(&self) -> Snapshot {
        let (mut served, mut unserved) = (0, 0);
        for verdict in self.services.values().filter_map(|e| e.verdict.as_ref()) {
            *(if verdict.met {
                &mut served
            } else {
                &mut unserved
            }) += 1;
        }
        let pools = self.pools.keys().flat_map(|name| {
            let usage = |family| (family, self.allocator.usage(name, family));
            Family::ALL
                .map(usage)
                .map(|(family, usage)| ((name.clone(), family), usage))
        });
        let used = |usage: &Usage| usage.total > 0 || usage.assigned > 0;
        Snapshot {
            listed: self.started,
            served,
            unserved,
            pools: pools.filter(|(_, usage)| used(usage)).collect(),
            pending: 0,
        }
    }

    /// The allocator, to look at.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Takes in what was seen and returns what is to be done.
    pub fn apply(&mut self, input: Input, clock: Clock) -> Vec<Action> {
        self.origin.get_or_insert(clock);
        self.now = Some(clock.wall);
        self.allocator.wake(clock.mono);
        match input {
            Input::Services(change) => self.services_changed(change, clock),
            Input::Pools(change) => self.pools_changed(change),
            Input::Vips(change) => self.vips_changed(change),
            Input::Namespaces(change) => self.namespaces_changed(change, clock),
            Input::Nodes(change) => self.nodes_changed(change),
            Input::Speakers(change) => self.speakers_changed(change),
            Input::Recheck(key) => self.recheck(&key),
            Input::Refused(key, reason) => self.refused_by_server(&key, reason),
            Input::Written(key) => self.written(&key),
            Input::Tick => {}
        }
        if !self.started && self.listed.all() {
            self.started = true;
            self.start(clock);
        }
        if self.started {
            self.revisit_all(clock);
            self.serve_waiting(clock);
            self.write_vips();
            self.report_pools(clock);
        }
        last_write_of_each(std::mem::take(&mut self.actions))
    }

    /// When [`Input::Tick`] has something to do, if at all: since the start of the process.
    pub fn deadline(&self) -> Option<Duration> {
        // Many rests end one after the other; their pools are written once for all of them.
        let pace = |end: Duration| Duration::from_secs(end.as_secs() / 5 * 5 + 5);
        self.started.then(|| self.allocator.next_wake().map(pace))?
    }

    /// Looks at every Service again, oldest first, if something changed that concerns all.
    fn revisit_all(&mut self, clock: Clock) {
        if !std::mem::take(&mut self.revisit) {
            return;
        }
        let order = self.oldest_first();
        self.take_over(&order);
        for id in order {
            self.reconcile(&id, clock);
        }
    }

    fn oldest_first(&self) -> Vec<ServiceId> {
        let entries = self.services.iter();
        let mut order: Vec<_> = entries
            .map(|(id, entry)| (entry.view.created, id))
            .collect();
        order.sort();
        order.into_iter().map(|(_, id)| id.clone()).collect()
    }

    fn namespaces_changed(&mut self, change: Change<NamespaceView>, clock: Clock) {
        let touched: BTreeSet<String> = match change {
            Change::Applied(view) => {
                if self.namespaces.get(&view.name) == Some(&view.labels) {
                    return;
                }
                self.namespaces.insert(view.name.clone(), view.labels);
                [view.name].into()
            }
            Change::Gone(view) => {
                self.namespaces.remove(&view.name);
                [view.name].into()
            }
            Change::Listed(views) => {
                self.listed.namespaces = true;
                let views = views.into_iter();
                let now: Namespaces = views.map(|view| (view.name, view.labels)).collect();
                let before = std::mem::replace(&mut self.namespaces, now);
                let names = before.keys().chain(self.namespaces.keys());
                let changed = names.filter(|name| before.get(*name) != self.namespaces.get(*name));
                changed.cloned().collect()
            }
        };
        if !self.started {
            return;
        }
        // A pool may have opened for Services there, or shut.
        for namespace in touched {
            let first = ServiceId::new(namespace.as_str(), "");
            let inside = self.services.range(first..);
            let inside = inside.take_while(|(id, _)| *id.namespace == *namespace);
            let mut order: Vec<_> = inside
                .map(|(id, entry)| (entry.view.created, id.clone()))
                .collect();
            order.sort();
            for (_, id) in order {
                self.reconcile(&id, clock);
            }
        }
    }

    fn notify(&mut self, subject: Subject, warning: bool, reason: &'static str, note: String) {
        self.actions.push(Action::Notify(Notice {
            subject,
            warning,
            reason,
            note,
        }));
    }
}

/// Drops writes that a later one of the same object makes void.
fn last_write_of_each(mut actions: Vec<Action>) -> Vec<Action> {
    let mut seen = HashSet::new();
    actions.reverse();
    actions.retain(|action| match action {
        Action::Write(write) => seen.insert(write.key()),
        Action::Notify(_) => true,
    });
    actions.reverse();
    actions
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
