//! Services that wait, by what they wait for: a freed address concerns those alone that could
//! have it, however many others wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use lightship_ipam::{Considered, Family, Refusal, ServiceId, Sharing, Why};

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
    /// A place beside those who share an address of a family of a pool.
    Beside(Arc<str>, Family, Kind),
}

/// All who fit beside the same: of thousands that wait for a place, a look at one of each kind tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    sharing: Arc<Sharing>,
    namespace: Arc<str>,
}

impl Kind {
    /// Of this Service, if it shares at all.
    pub(super) fn of(id: &ServiceId, sharing: &Sharing) -> Option<Self> {
        sharing.key.as_ref()?;
        Some(Self {
            sharing: Arc::new(sharing.clone()),
            namespace: id.namespace.clone(),
        })
    }
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

    /// Who comes after this one in a queue.
    fn after(&self, lack: &Lack, turn: Option<&Turn>) -> Option<Turn> {
        let queue = self.queues.get(lack)?;
        let next = match turn {
            None => queue.first(),
            Some(turn) => queue
                .range((Bound::Excluded(turn), Bound::Unbounded))
                .next(),
        };
        next.cloned()
    }

    fn free(&mut self, lack: Lack) {
        if self.queues.contains_key(&lack) {
            self.freed.insert(lack);
        }
    }

    /// The same of all kinds that share by this key.
    fn free_beside(&mut self, pool: &Arc<str>, family: Family, key: Arc<str>) {
        let first = Kind {
            sharing: Arc::new(Sharing {
                key: Some(key),
                ..Sharing::default()
            }),
            namespace: "".into(),
        };
        let key = first.sharing.key.clone();
        let of_key = |lack: &Lack| matches!(lack, Lack::Beside(of, f, kind) if of == pool && *f == family && kind.sharing.key == key);
        let queues = self
            .queues
            .range(Lack::Beside(pool.clone(), family, first)..);
        let kinds = queues.map(|(lack, _)| lack).take_while(|lack| of_key(lack));
        self.freed.extend(kinds.cloned());
    }
}

/// What would have to become free for a request to succeed; `kind` is there if it may share.
pub(super) fn lacks(considered: &[Considered], kind: Option<&Kind>) -> Vec<Lack> {
    let mut lacks = BTreeSet::new();
    for considered in considered {
        match &considered.why {
            Why::Exhausted { family, .. } => {
                let pool = &considered.pool;
                lacks.insert(Lack::Pool(pool.clone(), *family));
                lacks.extend(kind.map(|kind| Lack::Beside(pool.clone(), *family, kind.clone())));
            }
            Why::Taken { address, .. } => {
                lacks.insert(Lack::Address(*address));
            }
            _ => {}
        }
    }
    lacks.into_iter().collect()
}

/// The same of a refusal.
pub(super) fn lacks_of(refusal: &Refusal, kind: Option<&Kind>) -> Vec<Lack> {
    match refusal {
        Refusal::Considered(considered) => lacks(considered, kind),
        _ => Vec::new(),
    }
}

impl Core {
    /// Notes that somebody may have this address now, or share it.
    pub(super) fn wake_for(&mut self, address: IpAddr) {
        let family = Family::of(address);
        self.waiting.free(Lack::Address(address));
        self.wake_sharers(address);
        if let Some(pool) = self.allocator.pools().covering(address) {
            let name = pool.spec.name.clone();
            self.waiting.free(Lack::Pool(name, family));
        }
    }

    /// Notes that somebody may have a place beside the one that just got this address.
    pub(super) fn wake_sharers(&mut self, address: IpAddr) {
        let key = self.allocator.key_of(address).cloned();
        let pool = self.allocator.pools().covering(address);
        if let Some((key, pool)) = key.zip(pool) {
            self.waiting
                .free_beside(&pool.spec.name, Family::of(address), key);
        }
    }

    /// Looks at the Services that wait for what became free, oldest first, whatever they wait
    /// for.
    pub(super) fn serve_waiting(&mut self, clock: Clock) {
        // Who comes next for each of what became free.
        let mut next: BTreeSet<(Turn, Lack)> = BTreeSet::new();
        loop {
            for lack in std::mem::take(&mut self.waiting.freed) {
                next.retain(|(_, other)| *other != lack);
                let first = self.waiting.after(&lack, None);
                next.extend(first.map(|turn| (turn, lack)));
            }
            let Some((turn, _)) = next.first().cloned() else {
                return;
            };
            let mut hopes = false;
            while next.first().is_some_and(|(first, _)| *first == turn) {
                let Some((_, lack)) = next.pop_first() else {
                    break;
                };
                if self.is_over(&lack, &turn.1) {
                    continue;
                }
                hopes = true;
                let after = self.waiting.after(&lack, Some(&turn));
                next.extend(after.map(|turn| (turn, lack)));
            }
            if hopes {
                self.reconcile(&turn.1, clock);
            }
        }
    }

    /// Whether those before have used up what this Service and all after it wait for. Those that
    /// wait for one address are told who has it now.
    fn is_over(&self, lack: &Lack, id: &ServiceId) -> bool {
        match lack {
            Lack::Pool(pool, family) => self.allocator.usage(pool, *family).available == 0,
            Lack::Beside(pool, family, kind) => {
                !self.allocator.has_place(pool, *family, id, &kind.sharing)
            }
            Lack::Address(_) => false,
        }
    }
}
