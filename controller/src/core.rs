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
mod restore;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lightship_crds::{AddressPoolStatus, VirtualIPSpec, virtual_ip_name};
use lightship_ipam::{Allocator, Assignment, Request, ServiceId};

use crate::adapter;
use crate::model::{
    Action, Change, Clock, Demand, Input, NamespaceView, Namespaces, Notice, PoolView, Revision,
    ServiceView, Subject, Wish,
};

/// A Service, and what was last said about it.
#[derive(Clone, Debug)]
struct Entry {
    view: ServiceView,
    /// The last complaint, so that events come on change only.
    said: Option<String>,
}

/// A pool, and what was last reported about it.
#[derive(Clone, Debug)]
struct PoolEntry {
    view: PoolView,
    reported: Option<AddressPoolStatus>,
    /// The last complaint, so that events come on change only.
    said: Option<String>,
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
}

/// The controller's state and its decisions.
#[derive(Clone, Debug, Default)]
pub struct Core {
    listed: Listed,
    started: bool,
    allocator: Allocator,
    services: BTreeMap<ServiceId, Entry>,
    pools: BTreeMap<Arc<str>, PoolEntry>,
    vips: BTreeMap<String, Seen>,
    namespaces: Namespaces,
    /// Services that lack something which another Service or a pool could free, oldest first.
    waiting: BTreeSet<(i64, ServiceId)>,
    /// An address became free since the waiting Services were last looked at.
    freed: bool,
    /// Counts or conditions of some pool may have changed.
    pools_dirty: bool,
    actions: Vec<Action>,
}

impl Core {
    /// Whether every kind of object has been listed, so that decisions are made.
    pub fn ready(&self) -> bool {
        self.started
    }

    /// The allocator, to look at.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Takes in what was seen and returns what is to be done.
    pub fn apply(&mut self, input: Input, clock: Clock) -> Vec<Action> {
        match input {
            Input::Services(change) => self.services_changed(change, clock),
            Input::Pools(change) => self.pools_changed(change),
            Input::Vips(change) => self.vips_changed(change),
            Input::Namespaces(change) => self.namespaces_changed(change),
            Input::Recheck(key) => self.recheck(&key),
        }
        let listed = self.listed;
        if !self.started && listed.services && listed.pools && listed.vips && listed.namespaces {
            self.started = true;
            self.start(clock);
        }
        if self.started {
            self.serve_waiting(clock);
            self.report_pools(clock);
        }
        last_write_of_each(std::mem::take(&mut self.actions))
    }

    fn services_changed(&mut self, change: Change<ServiceView>, clock: Clock) {
        match change {
            Change::Applied(view) => self.service_applied(view, clock),
            Change::Gone(view) => self.service_gone(&view.id, clock),
            Change::Listed(views) => {
                self.listed.services = true;
                let present: BTreeSet<_> = views.iter().map(|view| view.id.clone()).collect();
                let gone: Vec<_> = self
                    .services
                    .keys()
                    .filter(|id| !present.contains(id))
                    .cloned()
                    .collect();
                for id in gone {
                    self.service_gone(&id, clock);
                }
                let mut views = views;
                views.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
                for view in views {
                    self.service_applied(view, clock);
                }
            }
        }
    }

    fn service_applied(&mut self, view: ServiceView, clock: Clock) {
        let id = view.id.clone();
        let before = self.services.remove(&id);
        // Of a Service that was deleted and created again unseen, the complaint is news.
        let same = before.as_ref().filter(|before| before.view.uid == view.uid);
        let said = same.and_then(|before| before.said.clone());
        if let Some(before) = &before {
            self.waiting.remove(&(before.view.created, id.clone()));
        }
        let first_sight = before.is_none_or(|before| before.view.demand == Demand::Nothing);
        self.services.insert(id.clone(), Entry { view, said });
        if self.started {
            if first_sight {
                self.adopt_from_status(&id);
            }
            self.reconcile(&id, clock);
        }
    }

    fn service_gone(&mut self, id: &ServiceId, clock: Clock) {
        let Some(entry) = self.services.remove(id) else {
            return;
        };
        self.waiting.remove(&(entry.view.created, id.clone()));
        for address in self.allocator.release(id, clock.mono) {
            self.address_freed(address);
        }
    }

    /// Gives one Service what it asks for, or says why not.
    fn reconcile(&mut self, id: &ServiceId, clock: Clock) {
        let Some(entry) = self.services.get(id) else {
            return;
        };
        let (uid, created) = (entry.view.uid.clone(), entry.view.created);
        let subject = Subject::Service {
            id: id.clone(),
            uid,
        };
        let (waits, complaint) = match &entry.view.demand {
            Demand::Nothing => {
                self.let_go(id, subject, clock);
                (false, None)
            }
            // What it holds it keeps: a slip of the pen must not cut a running Service off.
            Demand::Unclear(fault) => (false, Some(("AllocationFailed", true, fault.clone()))),
            Demand::Addresses(wish) => {
                let request = self.request(&entry.view, wish);
                match self.allocator.assign(id, &request, clock.mono) {
                    Ok(assignment) => {
                        self.assigned(&subject, &assignment);
                        let unmet = assignment.unmet.map(|(family, pools)| {
                            let pools: Vec<_> = pools.iter().map(ToString::to_string).collect();
                            let note = format!(
                                "no {family} address beside {}: {}",
                                list(&assignment.addresses),
                                pools.join("; ")
                            );
                            ("AdditionalAssignFailed", false, note)
                        });
                        (unmet.is_some(), unmet)
                    }
                    Err(refusal) => (
                        true,
                        Some((
                            "AllocationFailed",
                            true,
                            self.refused(id, &refusal.to_string()),
                        )),
                    ),
                }
            }
        };
        if waits {
            self.waiting.insert((created, id.clone()));
        } else {
            self.waiting.remove(&(created, id.clone()));
        }
        self.complain(id, complaint);
        self.sync_ingress(id);
    }

    fn request(&self, view: &ServiceView, wish: &Wish) -> Request {
        let none = BTreeMap::new();
        let labels = self.namespaces.get(&*view.id.namespace).unwrap_or(&none);
        let pools = self.pools.values().map(|entry| &entry.view);
        Request {
            families: wish.families.clone(),
            policy: wish.policy,
            addresses: wish.addresses.clone(),
            pool: wish.pool.clone(),
            closed: adapter::closed(pools, view, labels),
        }
    }

    /// Takes everything from a Service that is not ours any more.
    fn let_go(&mut self, id: &ServiceId, subject: Subject, clock: Clock) {
        let released = self.allocator.release(id, clock.mono);
        if released.is_empty() {
            return;
        }
        for address in &released {
            self.address_freed(*address);
        }
        self.notify(
            subject,
            false,
            "AddressReleased",
            format!("released {}", list(&released)),
        );
        self.write_ingress(id, Vec::new());
    }

    fn assigned(&mut self, subject: &Subject, assignment: &Assignment) {
        for address in &assignment.released {
            self.address_freed(*address);
        }
        if !assignment.released.is_empty() {
            let note = format!("released {}", list(&assignment.released));
            self.notify(subject.clone(), false, "AddressReleased", note);
        }
        for address in &assignment.added {
            self.pools_dirty = true;
            self.sync_vip(*address);
        }
        if let Some(pool) = assignment
            .added
            .first()
            .and_then(|first| self.allocator.holding(*first))
        {
            let note = format!(
                "assigned {} from pool \"{}\"",
                list(&assignment.added),
                pool.pool
            );
            self.notify(subject.clone(), false, "IPAllocated", note);
        }
    }

    fn refused(&self, id: &ServiceId, refusal: &str) -> String {
        match self.allocator.held_by(id) {
            [] => format!("no address: {refusal}"),
            held => format!(
                "keeps {}, as what it asks for cannot be had: {refusal}",
                list(held)
            ),
        }
    }

    /// Passes a complaint on if it is another one than last time.
    fn complain(&mut self, id: &ServiceId, complaint: Option<(&'static str, bool, String)>) {
        let Some(entry) = self.services.get_mut(id) else {
            return;
        };
        let note = complaint.as_ref().map(|(_, _, note)| note.clone());
        if entry.said == note {
            return;
        }
        entry.said = note;
        let uid = entry.view.uid.clone();
        if let Some((reason, warning, note)) = complaint {
            self.notify(
                Subject::Service {
                    id: id.clone(),
                    uid,
                },
                warning,
                reason,
                note,
            );
        }
    }

    /// Looks at the Services that wait whenever something became free, oldest first.
    fn serve_waiting(&mut self, clock: Clock) {
        while std::mem::take(&mut self.freed) {
            for (_, id) in self.waiting.clone() {
                self.reconcile(&id, clock);
            }
        }
    }

    fn address_freed(&mut self, address: IpAddr) {
        self.freed = true;
        self.pools_dirty = true;
        // Whether it is there or still being written: the later write of a name counts.
        self.drop_vip(&virtual_ip_name(address));
    }

    fn namespaces_changed(&mut self, change: Change<NamespaceView>) {
        match change {
            Change::Applied(view) => {
                if self.namespaces.get(&view.name) == Some(&view.labels) {
                    return;
                }
                self.namespaces.insert(view.name, view.labels);
            }
            Change::Gone(view) => {
                self.namespaces.remove(&view.name);
            }
            Change::Listed(views) => {
                self.listed.namespaces = true;
                self.namespaces = views
                    .into_iter()
                    .map(|view| (view.name, view.labels))
                    .collect();
            }
        }
        // A pool may have opened for Services that wait.
        self.freed = true;
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
