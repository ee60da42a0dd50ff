//! Services that wait, by what they wait for: a freed address concerns those alone that could
//! have it, however many others wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lightship_ipam::{Considered, Family, Refusal, ServiceId, Why};

use super::Core;
use crate::model::Clock;

/// What a Service waits for. What only a change of pools, namespaces or of itself can give is
/// not listed, as each of those leads to another look at it anyway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// This address.
    Address(IpAddr),
    /// Any address of a family of a pool.
    Pool(Arc<str>, Family),
}

/// Age and name, so that the oldest comes first.
type Turn = (i64, ServiceId);

#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    lacks: BTreeMap<ServiceId, (i64, Vec<Lack>)>,
    queues: BTreeMap<Lack, BTreeSet<Turn>>,
    /// What may be had since the queues were last looked at.
    freed: BTreeSet<Lack>,
}

impl Waiting {
    /// Sets what a Service waits for; nothing takes it off all queues.
    pub(super) fn set(&mut self, id: &ServiceId, created: i64, lacks: Vec<Lack>) {
        if let Some((created, before)) = self.lacks.remove(id) {
            for lack in before {
                if let Some(queue) = self.queues.get_mut(&lack) {
                    queue.remove(&(created, id.clone()));
                    if queue.is_empty() {
                        self.queues.remove(&lack);
                    }
                }
            }
        }
        if lacks.is_empty() {
            return;
        }
        for lack in &lacks {
            let queue = self.queues.entry(lack.clone()).or_default();
            queue.insert((created, id.clone()));
        }
        self.lacks.insert(id.clone(), (created, lacks));
    }

    fn free(&mut self, lack: Lack) {
        if self.queues.contains_key(&lack) {
            self.freed.insert(lack);
        }
    }
}

/// What would have to become free for a request to succeed.
pub(super) fn lacks(considered: &[Considered]) -> Vec<Lack> {
    let lack = |considered: &Considered| match &considered.why {
        Why::Exhausted { family, .. } => Some(Lack::Pool(considered.pool.clone(), *family)),
        Why::Taken { address, .. } => Some(Lack::Address(*address)),
        _ => None,
    };
    considered.iter().filter_map(lack).collect()
}

/// The same of a refusal.
pub(super) fn lacks_of(refusal: &Refusal) -> Vec<Lack> {
    match refusal {
        Refusal::Considered(considered) => lacks(considered),
        _ => Vec::new(),
    }
}

impl Core {
    /// Notes that somebody may have this address now, or share it.
    pub(super) fn wake_for(&mut self, address: IpAddr) {
        self.waiting.free(Lack::Address(address));
        if let Some(pool) = self.allocator.pools().covering(address) {
            let lack = Lack::Pool(pool.spec.name.clone(), Family::of(address));
            self.waiting.free(lack);
        }
    }

    /// Looks at the Services that wait for what became free, oldest first.
    pub(super) fn serve_waiting(&mut self, clock: Clock) {
        while let Some(lack) = self.waiting.freed.pop_first() {
            let queue = self.waiting.queues.get(&lack).cloned().unwrap_or_default();
            for (_, id) in queue {
                if self.is_over(&lack, &id) {
                    continue;
                }
                self.reconcile(&id, clock);
            }
        }
    }

    /// Whether those before it have used up what this Service waits for. One that shares might
    /// still find room, and one that waits for an address be told who has it now.
    fn is_over(&self, lack: &Lack, id: &ServiceId) -> bool {
        let Lack::Pool(pool, family) = lack else {
            return false;
        };
        let entry = self.services.get(id);
        let shares = entry.is_some_and(|entry| entry.view.sharing.key.is_some());
        !shares && self.allocator.usage(pool, *family).available == 0
    }
}
