//! A model of the part of `ip_vs_ctl.c` that the diff is about: lists with
//! insertion at the head, `last_weight`, edits in place, refusals, and how often
//! a scheduler is made to build its table.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::Op;
use crate::model::{Destination, Scheduler, Service, ServiceKey, ServiceState, Stats};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) destination: Destination,
    pub(super) last_weight: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) service: Service,
    /// As the kernel's list: newest first.
    pub(super) list: VecDeque<Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) services: BTreeMap<ServiceKey, Table>,
    /// Tables built: when a scheduler is bound to a service that has destinations, and whenever
    /// it is told that they changed (`ip_vs_bind_scheduler`, `add_dest`, `upd_dest`, `del_dest`).
    pub(super) built: usize,
}

impl Kernel {
    /// Applies one op; the error is the errno's name.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), &'static str> {
        let scheduled = |table: &Table| table.service.scheduler != Scheduler::NONE;
        let before = self.services.get(&op.service()).cloned();
        match op {
            Op::NewService(service) => {
                if self.services.contains_key(&service.key) {
                    return Err("EEXIST");
                }
                let table = Table {
                    service: service.clone(),
                    list: VecDeque::new(),
                };
                self.services.insert(service.key, table);
            }
            Op::SetService(service) => self.table(service.key)?.service = service.clone(),
            Op::DelService(key) => {
                self.services.remove(key).ok_or("ESRCH")?;
            }
            Op::NewDest(key, destination) => {
                let list = &mut self.table(*key)?.list;
                if position(list, destination.key()).is_some() {
                    return Err("EEXIST");
                }
                // "if (add || udest->weight != 0) last_weight = weight"
                list.push_front(Entry {
                    destination: *destination,
                    last_weight: destination.weight,
                });
            }
            Op::SetDest(key, destination) => {
                let list = &mut self.table(*key)?.list;
                let place = position(list, destination.key()).ok_or("ENOENT")?;
                list[place].destination = *destination;
                if destination.weight != 0 {
                    list[place].last_weight = destination.weight;
                }
            }
            Op::DelDest(key, destination) => {
                let list = &mut self.table(*key)?.list;
                let place = position(list, *destination).ok_or("ENOENT")?;
                list.remove(place);
            }
        }
        if let Some(after) = self.services.get(&op.service()).filter(|t| scheduled(t)) {
            let rescheduled =
                before.is_some_and(|b| b.service.scheduler != after.service.scheduler);
            let of_destination = matches!(op, Op::NewDest(..) | Op::SetDest(..) | Op::DelDest(..));
            self.built += usize::from(rescheduled || of_destination);
        }
        Ok(())
    }

    pub(super) fn apply_all(&mut self, ops: &[Op]) {
        for op in ops {
            self.apply(op)
                .unwrap_or_else(|errno| panic!("{op}: {errno} (plan: {ops:#?})"));
        }
    }

    /// As the client reads it: destinations turned to insertion order.
    pub(super) fn dump(&self) -> Vec<ServiceState> {
        self.services
            .values()
            .map(|table| ServiceState {
                service: table.service.clone(),
                stats: Stats::default(),
                destinations: table
                    .list
                    .iter()
                    .rev()
                    .map(|entry| entry.destination.into())
                    .collect(),
            })
            .collect()
    }

    fn table(&mut self, key: ServiceKey) -> Result<&mut Table, &'static str> {
        self.services.get_mut(&key).ok_or("ESRCH")
    }
}

fn position(list: &VecDeque<Entry>, key: SocketAddr) -> Option<usize> {
    list.iter().position(|entry| entry.destination.key() == key)
}
