//! Writes the status of the VirtualIPs that this node owns, and of those that nobody can own if
//! it is this node's turn to.
//!
//! One task; it compares what should be written with what it wrote last and applies only
//! differences, a few objects at a time. A write that fails is tried again with back-off
//! and holds up no other. Nothing on the data path waits for it: while the API server is
//! away VIPs move all the same, and the last state is written when it is back.

mod apply;
mod render;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::{Api, Client};
use lightship_crds::VirtualIP;
use serde_json::Value;
use tokio::sync::watch;

use self::apply::Carried;
use crate::uplink::Current;
use lightship_core::core::{Ownership, VipReport};
use lightship_core::world::{NodeName, World};

/// At most this many writes are on their way at once.
const PARALLEL: usize = 8;

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before a failed write is tried again; doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long a write may take to come back through the watch before another owner's name
/// in the status counts as an overwrite.
const ECHO: Duration = Duration::from_secs(3);

/// How old the last write must be for a change of the directors' agreement alone to be
/// written: it changes several times within moments whenever the table does.
const STEADY: Duration = Duration::from_millis(500);

/// How long the first status of a VIP that this node took waits for its announcement, which mostly follows within moments
/// (the address is probed for, the director is programmed): one write and not two.
const FIRST: Duration = Duration::from_millis(200);

/// What is the same in every status this node writes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The own node.
    pub node: NodeName,
    /// The main uplink's name.
    pub interface: String,
    /// The MAC of directed VIPs.
    pub director_mac: String,
    /// The MAC of VIPs that are only announced.
    pub uplink_mac: String,
    /// When the speaker's own time began.
    pub origin: Instant,
}

struct Written {
    /// As text: with dozens of backends the value takes ten times as much memory, for each VIP.
    status: Box<str>,
    at: Instant,
    /// What it was made of; `None` for a VIP that nobody owns.
    of: Option<Basis>,
}

/// All that the status of an owned VIP follows from, beside what was written last.
#[derive(PartialEq)]
struct Basis {
    report: VipReport,
    /// Directors that agree, and all.
    directors: (usize, usize),
    /// The uplink's name and MAC.
    uplink: (String, String),
}

impl Written {
    fn status(&self) -> Value {
        // It was a value before.
        serde_json::from_str(&self.status).unwrap_or_default()
    }
}

struct Failure {
    wait: Duration,
    until: Instant,
}

/// Writes until either sender is gone.
pub async fn run(
    client: Client,
    mut identity: Identity,
    mut uplink: watch::Receiver<Current>,
    mut ownership: watch::Receiver<Arc<Ownership>>,
    mut world: watch::Receiver<Option<Arc<World>>>,
) {
    let api: Api<VirtualIP> = Api::all(client);
    let mut written: BTreeMap<IpAddr, Written> = BTreeMap::new();
    let mut failed: BTreeMap<IpAddr, Failure> = BTreeMap::new();
    loop {
        let link = uplink.borrow_and_update().link.clone();
        identity.interface.clone_from(&link.name);
        identity.uplink_mac = link.mac.to_string();
        let owned = ownership.borrow_and_update().clone();
        let known = world.borrow_and_update().clone().unwrap_or_default();
        let due = |vip: &IpAddr| owned.vips.contains_key(vip) || owned.unowned.contains_key(vip);
        written.retain(|vip, _| due(vip) && known.vips.contains_key(vip));
        failed.retain(|vip, _| due(vip) && known.vips.contains_key(vip));
        let now = Instant::now();
        let mut later = None;
        let mut todo = Vec::new();
        let waits = |vip: &IpAddr| failed.get(vip).is_some_and(|f| f.until > now);
        for (vip, report) in owned.vips.iter().filter(|(vip, _)| !waits(vip)) {
            let Some(object) = known.vips.get(vip) else {
                continue;
            };
            let last = written.get(vip);
            if let (None, Some(wait)) = (last, first_wait(report, identity.origin.elapsed())) {
                later = Some(later.map_or(wait, |l: Duration| l.min(wait)));
                continue;
            }
            let foreign = object.recorded_owner.as_ref() != Some(&identity.node)
                && object.recorded_epoch <= report.epoch;
            let basis = Basis {
                report: report.clone(),
                directors: (owned.directors_agreeing, owned.directors),
                uplink: (identity.interface.clone(), identity.uplink_mac.clone()),
            };
            // Among a thousand most are as they were, and making the text of each takes its time.
            if !foreign && last.is_some_and(|w| w.of.as_ref() == Some(&basis)) {
                continue;
            }
            let before = last.map(Written::status);
            let status = render::owned(&identity, report, &owned, before.as_ref());
            // The table changes on all nodes within moments; the count of those that agree
            // is worth a write only when it has held, like another owner's name.
            let age = last.map_or(Duration::MAX, |w| now - w.at);
            let agreement = before.as_ref().is_some_and(|before| *before != status);
            let differs = before.is_none_or(|before| steady(before) != steady(status.clone()));
            if differs || (foreign && age > ECHO) || (agreement && age > STEADY) {
                // Which move led here, if it was before this process: the object tells.
                let moved = last.is_none() && status["lastMove"].is_null();
                let carried = if moved {
                    Carried::Move
                } else {
                    Carried::Nothing
                };
                todo.push((*vip, object.object.clone(), status, carried, Some(basis)));
            } else if foreign || agreement {
                let wait = if agreement { STEADY } else { ECHO };
                later = Some(later.map_or(wait, |l: Duration| l.min(wait)));
            }
        }
        // An owner that this node does not know of may write too; it writes again after us.
        for (vip, report) in owned.unowned.iter().filter(|(vip, _)| !waits(vip)) {
            let Some(object) = known.vips.get(vip) else {
                continue;
            };
            let last = written.get(vip).map(Written::status);
            let status = render::unowned(report, last.as_ref());
            if last.as_ref() != Some(&status) {
                todo.push((
                    *vip,
                    object.object.clone(),
                    status,
                    Carried::LastOwner,
                    None,
                ));
            }
        }
        let results = stream::iter(todo).map(|(vip, object, status, carried, basis)| {
            let api = &api;
            async move {
                let write = apply::apply(api, &object, status, carried);
                let result = match tokio::time::timeout(PATIENCE, write).await {
                    Ok(result) => result,
                    Err(_) => Err("the API server does not answer".to_owned()),
                };
                (vip, result, basis)
            }
        });
        let results: Vec<_> = results.buffer_unordered(PARALLEL).collect().await;
        for (vip, result, of) in results {
            match result {
                Ok(status) => {
                    failed.remove(&vip);
                    written.insert(
                        vip,
                        Written {
                            status: status.to_string().into(),
                            at: Instant::now(),
                            of,
                        },
                    );
                }
                Err(error) => {
                    let wait = failed
                        .get(&vip)
                        .map_or(RETRY.0, |f| (f.wait * 2).min(RETRY.1));
                    // Only the first of a row of failures is worth a warning.
                    if wait == RETRY.0 {
                        tracing::warn!(%vip, %error, "cannot write the VirtualIP's status; trying on");
                    }
                    let jittered = wait.mul_f64(rand::random_range(0.7..1.3));
                    failed.insert(
                        vip,
                        Failure {
                            wait,
                            until: Instant::now() + jittered,
                        },
                    );
                }
            }
        }
        let retry = failed.values().map(|f| f.until);
        let retry = retry.chain(later.map(|wait| now + wait)).min();
        let retry = async {
            match retry {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = retry => {}
            changed = ownership.changed() => if changed.is_err() { return },
            changed = world.changed() => if changed.is_err() { return },
            Ok(_) = uplink.wait_for(|now| now.link != link) => {}
        }
    }
}

/// How much longer the first status of a VIP has to wait, at `now` since the speaker's start.
fn first_wait(report: &VipReport, now: Duration) -> Option<Duration> {
    let known = report.announced || report.conflict.is_some() || report.trouble.is_some();
    let taken = report.moved.as_ref().filter(|_| !known)?.at;
    (taken + FIRST)
        .checked_sub(now)
        .filter(|wait| !wait.is_zero())
}

/// A status without what changes for all VIPs at every change of any.
fn steady(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("directors");
    }
    status
}
