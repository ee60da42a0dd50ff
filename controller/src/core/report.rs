//! What pools report: counts, what rests, and conditions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use lightship_crds::{
    AddressPoolStatus, CONDITION_OUTSIDE, CONDITION_READY, CONDITION_WITHHELD, FamilyUsage,
    RestingAddress,
};
use lightship_ipam::{Family, PoolProblem, Rest, ServiceId};

use super::{Core, PoolEntry};
use crate::model::{Action, Clock, Revision, Subject, Write};

/// Rests on record at most; a start forgets the others.
const RESTS: usize = 100;
/// Addresses that a message names at most.
const NAMED: usize = 10;

impl Core {
    /// Writes the status of every pool whose counts or conditions are other than reported.
    pub(super) fn report_pools(&mut self, clock: Clock) {
        let mut stale = std::mem::take(&mut self.stale_pools);
        stale.append(&mut self.allocator.take_touched());
        for name in stale {
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
            self.warn_of_pool(&name, faults(&status));
            self.actions
                .push(Action::Write(Write::PoolStatus { name, seen, status }));
        }
    }

    pub(super) fn pool_status(&self, entry: &PoolEntry, clock: Clock) -> AddressPoolStatus {
        let view = &entry.view;
        let name = &*view.spec.name;
        let usage = |family| {
            let usage = self.allocator.usage(name, family);
            let saturate = |n| i64::try_from(n).unwrap_or(i64::MAX);
            FamilyUsage {
                total: saturate(usage.total),
                assigned: saturate(usage.assigned),
                available: saturate(usage.available),
                quarantined: saturate(usage.quarantined),
            }
        };
        let problems = self.allocator.pools().get(name);
        let problems = problems.map_or(&[][..], |pool| &pool.problems);
        let mut verdicts = vec![ready(problems)];
        let reserved = self.allocator.reserved_of(name);
        if !reserved.is_empty() {
            let texts = reserved
                .iter()
                .map(|(address, whose)| format!("{address}: {whose}"));
            let message = format!("never given out are {}", some(texts, reserved.len()));
            verdicts.push((CONDITION_WITHHELD, "True", "InUseOnTheLAN", message));
        }
        if let Some(message) = self.outside(name) {
            verdicts.push((CONDITION_OUTSIDE, "True", "Kept", message));
        }
        let rests = self.allocator.resting_of(name).take(RESTS);
        AddressPoolStatus {
            ipv4: usage(Family::V4),
            ipv6: usage(Family::V6),
            resting: rests.filter_map(|rest| self.on_record(rest)).collect(),
            conditions: verdicts
                .into_iter()
                .map(|verdict| condition(verdict, entry, clock))
                .collect(),
        }
    }

    /// What Services hold of a pool although it does not offer it, or not to them.
    fn outside(&self, pool: &str) -> Option<String> {
        let strays: Vec<_> = self.allocator.strays_of(pool).collect();
        let shut = self.shut.count(pool);
        let mut parts = Vec::new();
        if !strays.is_empty() {
            let texts = strays.iter().map(|address| self.with_holders(*address));
            parts.push(format!(
                "Services hold addresses that this pool does not offer any more: {}; put them back \
                 into spec.addresses, or give those Services others",
                some(texts, strays.len())
            ));
        }
        if shut > 0 {
            let texts = self.shut.of(pool);
            let texts = texts.map(|(address, id, why)| format!("{address} ({id}: {why})"));
            parts.push(format!(
                "Services hold addresses of this pool, which is closed to them: {}; let it include \
                 them, or give those Services others",
                some(texts, shut)
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn with_holders(&self, address: IpAddr) -> String {
        let holders = self.allocator.holding(address);
        let holders = holders.into_iter().flat_map(|holding| &holding.holders);
        let holders: Vec<_> = holders.map(ToString::to_string).collect();
        format!("{address} ({})", holders.join(", "))
    }

    fn on_record(&self, (address, rest): (IpAddr, &Rest)) -> Option<RestingAddress> {
        let origin = self.origin?;
        let left = rest.until.saturating_sub(origin.mono);
        let seconds = i64::try_from(left.as_secs()).ok()? + i64::from(left.subsec_nanos() > 0);
        let until = origin.wall.checked_add(SignedDuration::from_secs(seconds));
        Some(RestingAddress {
            address: address.to_string(),
            service: rest.former.to_string(),
            until: Time(until.ok()?),
        })
    }

    /// Lets rest what rested before the start.
    pub(super) fn adopt_rests(&mut self) {
        let mut rests = Vec::new();
        for (name, entry) in &self.pools {
            let on_record = entry.view.status.iter().flat_map(|status| &status.resting);
            rests.extend(on_record.filter_map(|record| {
                let (namespace, service) = record.service.split_once('/')?;
                let rest = Rest {
                    pool: name.clone(),
                    former: ServiceId::new(namespace, service),
                    until: self.mono(record.until.0)?,
                };
                Some((record.address.parse().ok()?, rest))
            }));
        }
        for (address, rest) in rests {
            self.allocator.rest(address, rest);
        }
    }

    /// The moment on our own clock; none if it is over.
    fn mono(&self, wall: Timestamp) -> Option<Duration> {
        let origin = self.origin?;
        let left = u64::try_from(wall.as_second() - origin.wall.as_second()).ok()?;
        (left > 0).then(|| origin.mono + Duration::from_secs(left))
    }

    fn warn_of_pool(&mut self, name: &Arc<str>, faults: BTreeMap<&'static str, String>) {
        let Some(entry) = self.pools.get_mut(name) else {
            return;
        };
        let said = std::mem::replace(&mut entry.said, faults.clone());
        let subject = Subject::Pool {
            name: name.clone(),
            uid: entry.view.uid.clone(),
        };
        for (reason, note) in faults {
            if said.get(reason) != Some(&note) {
                self.notify(subject.clone(), true, reason, note);
            }
        }
    }
}

/// What a status complains of, by the reason of the event that says so.
pub(super) fn faults(status: &AddressPoolStatus) -> BTreeMap<&'static str, String> {
    let fault = |condition: &Condition| {
        let reason = match (&*condition.type_, &*condition.status) {
            (CONDITION_READY, "False") => "RangeRefused",
            (CONDITION_WITHHELD, "True") => "AddressesWithheld",
            _ => return None,
        };
        Some((reason, condition.message.clone()))
    };
    status.conditions.iter().filter_map(fault).collect()
}

/// Type, status, reason and message of a condition.
type Statement = (&'static str, &'static str, &'static str, String);

fn ready(problems: &[PoolProblem]) -> Statement {
    if problems.is_empty() {
        let message = "every range is given out from".into();
        return (CONDITION_READY, "True", "RangesAccepted", message);
    }
    let reason = match problems[0] {
        PoolProblem::Invalid(_) => "InvalidRange",
        PoolProblem::Overlap { .. } => "Overlap",
    };
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    (CONDITION_READY, "False", reason, texts.join("; "))
}

fn condition(statement: Statement, entry: &PoolEntry, clock: Clock) -> Condition {
    let (type_, status, reason, message) = statement;
    let old = entry.reported.iter().flat_map(|status| &status.conditions);
    let old = old.into_iter().find(|old| old.type_ == type_);
    let since = old
        .filter(|old| old.status == status)
        .map_or(Time(clock.wall), |old| old.last_transition_time.clone());
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: Some(entry.view.generation),
        last_transition_time: since,
    }
}

/// The first few of many texts.
fn some(texts: impl Iterator<Item = String>, count: usize) -> String {
    let first: Vec<_> = texts.take(NAMED).collect();
    let more = count.saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", first.join("; "))
}
