//! Pools: taking changes in, and reporting counts and conditions.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use lightship_crds::{AddressPoolStatus, CONDITION_READY, FamilyUsage};
use lightship_ipam::{Family, PoolProblem};

use super::{Core, PoolEntry};
use crate::model::{Action, Change, Clock, PoolView, Revision, Subject, Write};

impl Core {
    pub(super) fn pools_changed(&mut self, change: Change<PoolView>) {
        let specs = |core: &Self| -> Vec<_> {
            let views = core.pools.values().map(|entry| &entry.view);
            views
                .map(|view| (view.spec.clone(), view.allocation.clone()))
                .collect()
        };
        let before = specs(self);
        match change {
            Change::Applied(view) => self.pool_applied(view),
            Change::Gone(view) => {
                self.pools.remove(&view.spec.name);
            }
            Change::Listed(views) => {
                self.listed.pools = true;
                let names: Vec<Arc<str>> =
                    views.iter().map(|view| view.spec.name.clone()).collect();
                self.pools.retain(|name, _| names.contains(name));
                for view in views {
                    self.pool_applied(view);
                }
            }
        }
        self.pools_dirty = true;
        if self.started && before != specs(self) {
            self.rebuild_pools();
            // Addresses may be covered by another pool now, and Services that wait be served.
            self.sync_all_vips();
            self.freed = true;
        }
    }

    fn pool_applied(&mut self, view: PoolView) {
        let reported = view.status.clone();
        let known = self.pools.get(&view.spec.name);
        let said = match known.filter(|known| known.view.uid == view.uid) {
            Some(known) => known.said.clone(),
            None => reported.as_ref().and_then(fault),
        };
        let entry = PoolEntry {
            view,
            reported,
            said,
        };
        self.pools.insert(entry.view.spec.name.clone(), entry);
    }

    pub(super) fn rebuild_pools(&mut self) {
        let specs = self.pools.values().map(|entry| entry.view.spec.clone());
        self.allocator.set_pools(specs.collect());
        self.pools_dirty = true;
    }

    /// Writes the status of every pool whose counts or condition are other than reported.
    pub(super) fn report_pools(&mut self, clock: Clock) {
        if !std::mem::take(&mut self.pools_dirty) {
            return;
        }
        let names: Vec<_> = self.pools.keys().cloned().collect();
        for name in names {
            let Some(entry) = self.pools.get(&name) else {
                continue;
            };
            let status = self.pool_status(entry, clock);
            if entry.reported.as_ref() == Some(&status) {
                continue;
            }
            let seen = Revision {
                uid: entry.view.uid.clone(),
                version: entry.view.version.clone(),
            };
            if let Some(entry) = self.pools.get_mut(&name) {
                entry.reported = Some(status.clone());
            }
            self.warn_of_pool(&name, fault(&status));
            self.actions
                .push(Action::Write(Write::PoolStatus { name, seen, status }));
        }
    }

    fn pool_status(&self, entry: &PoolEntry, clock: Clock) -> AddressPoolStatus {
        let view = &entry.view;
        let usage = |family| {
            let usage = self.allocator.usage(&view.spec.name, family);
            let saturate = |n| i64::try_from(n).unwrap_or(i64::MAX);
            FamilyUsage {
                total: saturate(usage.total),
                assigned: saturate(usage.assigned),
                available: saturate(usage.available),
            }
        };
        let problems = self.allocator.pools().get(&view.spec.name);
        let problems = problems.map_or(&[][..], |pool| &pool.problems);
        let (status, reason, message) = verdict(problems);
        let old = entry.reported.iter().flat_map(|status| &status.conditions);
        let old = old.into_iter().find(|old| old.type_ == CONDITION_READY);
        let since = old
            .filter(|old| old.status == status)
            .map_or(Time(clock.wall), |old| old.last_transition_time.clone());
        AddressPoolStatus {
            ipv4: usage(Family::V4),
            ipv6: usage(Family::V6),
            conditions: vec![Condition {
                type_: CONDITION_READY.into(),
                status: status.into(),
                reason: reason.into(),
                message,
                observed_generation: Some(view.generation),
                last_transition_time: since,
            }],
        }
    }

    fn warn_of_pool(&mut self, name: &Arc<str>, fault: Option<String>) {
        let Some(entry) = self.pools.get_mut(name) else {
            return;
        };
        if entry.said == fault {
            return;
        }
        entry.said.clone_from(&fault);
        let subject = Subject::Pool {
            name: name.clone(),
            uid: entry.view.uid.clone(),
        };
        if let Some(note) = fault {
            self.notify(subject, true, "RangeRefused", note);
        }
    }
}

/// What the `Ready` condition complains of.
fn fault(status: &AddressPoolStatus) -> Option<String> {
    let ready = |c: &&Condition| c.type_ == CONDITION_READY && c.status == "False";
    let condition = status.conditions.iter().find(ready)?;
    Some(condition.message.clone())
}

fn verdict(problems: &[PoolProblem]) -> (&'static str, &'static str, String) {
    if problems.is_empty() {
        return (
            "True",
            "RangesAccepted",
            "every range is given out from".into(),
        );
    }
    let reason = match problems[0] {
        PoolProblem::Invalid(_) => "InvalidRange",
        PoolProblem::Overlap { .. } => "Overlap",
    };
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    ("False", reason, texts.join("; "))
}
