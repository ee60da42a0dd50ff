//! Writes the status of the VirtualIPs that this node owns.
//!
//! One task; it compares what should be written with what it wrote last and patches only
//! differences, a few objects at a time. A write that fails is tried again with back-off
//! and holds up no other. Nothing on the data path waits for it: while the API server is
//! away VIPs move all the same, and the last state is written when it is back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use lightship_crds::{CONDITION_READY, MANAGER_SPEAKER, VirtualIP};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::core::{Ownership, VipReport};
use crate::world::{NodeName, World};

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

/// What is the same in every status this node writes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The own node.
    pub node: NodeName,
    /// The uplink's name.
    pub interface: String,
    /// The MAC of directed VIPs.
    pub director_mac: String,
    /// The MAC of VIPs that are only announced.
    pub uplink_mac: String,
    /// The wall-clock time at which the speaker's own time began.
    pub started: SystemTime,
}

struct Written {
    status: Value,
    at: Instant,
}

struct Failure {
    wait: Duration,
    until: Instant,
}

/// Writes until either sender is gone.
pub async fn run(
    client: Client,
    identity: Identity,
    mut ownership: watch::Receiver<Arc<Ownership>>,
    mut world: watch::Receiver<Option<Arc<World>>>,
) {
    let api: Api<VirtualIP> = Api::all(client);
    let mut written: BTreeMap<IpAddr, Written> = BTreeMap::new();
    let mut failed: BTreeMap<IpAddr, Failure> = BTreeMap::new();
    loop {
        let owned = ownership.borrow_and_update().clone();
        let known = world.borrow_and_update().clone().unwrap_or_default();
        written.retain(|vip, _| owned.vips.contains_key(vip) && known.vips.contains_key(vip));
        failed.retain(|vip, _| owned.vips.contains_key(vip) && known.vips.contains_key(vip));
        let now = Instant::now();
        let mut later = None;
        let todo: Vec<_> = owned
            .vips
            .iter()
            .filter(|(vip, _)| failed.get(vip).is_none_or(|f| f.until <= now))
            .filter_map(|(vip, report)| {
                let object = known.vips.get(vip)?;
                let last = written.get(vip);
                let status = status(&identity, report, &owned, last.map(|w| &w.status));
                // The table changes on all nodes within moments; the count of those that agree
                // is worth a write only when it has held, like another owner's name.
                let age = last.map_or(Duration::MAX, |w| now - w.at);
                let foreign = object.recorded_owner.as_ref() != Some(&identity.node)
                    && object.recorded_epoch <= report.epoch;
                let agreement = last.is_some_and(|w| w.status != status);
                let differs = last.is_none_or(|w| steady(&w.status) != steady(&status));
                let write = differs || (foreign && age > ECHO) || (agreement && age > STEADY);
                if !write && (foreign || agreement) {
                    let wait = if agreement { STEADY } else { ECHO };
                    later = Some(later.map_or(wait, |l: Duration| l.min(wait)));
                }
                write.then(|| (*vip, object.object.clone(), status))
            })
            .collect();
        let results = stream::iter(todo).map(|(vip, object, status)| {
            let api = &api;
            async move {
                let params = PatchParams {
                    field_manager: Some(MANAGER_SPEAKER.into()),
                    ..Default::default()
                };
                let patch = Patch::Merge(json!({ "status": status }));
                let write = api.patch_status(&object, &params, &patch);
                let result = match tokio::time::timeout(PATIENCE, write).await {
                    Ok(result) => result.map(|_| status).map_err(|e| e.to_string()),
                    Err(_) => Err("the API server does not answer".to_owned()),
                };
                (vip, result)
            }
        });
        let results: Vec<_> = results.buffer_unordered(PARALLEL).collect().await;
        for (vip, result) in results {
            match result {
                Ok(status) => {
                    failed.remove(&vip);
                    written.insert(
                        vip,
                        Written {
                            status,
                            at: Instant::now(),
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
        }
    }
}

/// A status without what changes for all VIPs at every change of any.
fn steady(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("directors");
    }
    status
}

/// The status of one VIP as JSON, so that fields this version does not know are left alone.
fn status(id: &Identity, report: &VipReport, all: &Ownership, last: Option<&Value>) -> Value {
    let mode = if report.direct_routing {
        "DirectRouting"
    } else {
        "Announce"
    };
    let mac = if report.direct_routing {
        &id.director_mac
    } else {
        &id.uplink_mac
    };
    let backends: Vec<Value> = report
        .backends
        .iter()
        .map(|(node, weight)| json!({ "node": node, "weight": weight }))
        .collect();
    let serving = report.backends.values().filter(|w| **w > 0).count();
    let (ready, reason, message) = if !report.announced {
        (
            "False",
            "NotAnnounced",
            "the director is not ready yet".to_owned(),
        )
    } else if serving == 0 {
        let message = "no node has a ready endpoint for it; connections are refused".to_owned();
        ("False", "NoBackends", message)
    } else {
        ("True", "Announced", format!("{} answers for it", id.node))
    };
    let previous = last
        .and_then(|l| l["conditions"].get(0))
        .filter(|c| c["status"] == ready);
    let since = previous.map_or_else(
        || json!(rfc3339(SystemTime::now(), 0)),
        |c| c["lastTransitionTime"].clone(),
    );
    let mut status = json!({
        "owner": id.node,
        "epoch": report.epoch,
        "mode": mode,
        "interface": id.interface,
        "mac": mac,
        "backends": backends,
        "backendsReady": format!("{serving}/{}", report.backends.len()),
        "directors": report.direct_routing.then(|| format!("{}/{}", all.directors_agreeing, all.directors)),
        "conditions": [{
            "type": CONDITION_READY,
            "status": ready,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        }],
    });
    if let Some(moved) = &report.moved {
        status["lastMove"] = json!({
            "time": rfc3339(id.started + moved.at, 6),
            "from": moved.from,
            "to": id.node,
            "reason": moved.reason,
        });
    }
    status
}

/// A time in RFC 3339 with so many decimals, as metav1.Time (0) and MicroTime (6) want it.
fn rfc3339(time: SystemTime, decimals: i16) -> String {
    use k8s_openapi::jiff::{Timestamp, fmt::temporal::DateTimePrinter};
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let printer = DateTimePrinter::new().precision(Some(decimals.unsigned_abs() as u8));
    printer.timestamp_to_string(&time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Move;

    fn identity() -> Identity {
        Identity {
            node: "node1".into(),
            interface: "eth0".into(),
            director_mac: "02:00:00:00:00:01".into(),
            uplink_mac: "02:00:00:00:00:02".into(),
            started: SystemTime::UNIX_EPOCH,
        }
    }

    fn report() -> VipReport {
        VipReport {
            epoch: 3,
            announced: true,
            direct_routing: true,
            backends: [("node1".into(), 1), ("node2".into(), 0)].into(),
            moved: Some(Move {
                epoch: 3,
                from: Some("node2".into()),
                reason: "OwnerDied".into(),
                at: Duration::from_micros(1_500),
            }),
        }
    }

    #[test]
    fn the_status_is_what_the_crd_takes() {
        let all = Ownership {
            directors: 2,
            directors_agreeing: 2,
            ..Ownership::default()
        };
        let value = status(&identity(), &report(), &all, None);
        let typed: lightship_crds::VirtualIPStatus = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(typed.owner.as_deref(), Some("node1"));
        assert_eq!(typed.backends_ready.as_deref(), Some("1/2"));
        assert_eq!(typed.directors.as_deref(), Some("2/2"));
        assert_eq!(value["lastMove"]["time"], "1970-01-01T00:00:00.001500Z");
        assert_eq!(typed.conditions[0].status, "True");
    }

    #[test]
    fn a_condition_keeps_its_transition_time_until_it_changes() {
        let all = Ownership::default();
        let mut first = status(&identity(), &report(), &all, None);
        first["conditions"][0]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        let second = status(&identity(), &report(), &all, Some(&first));
        assert_eq!(
            second["conditions"][0]["lastTransitionTime"],
            "2020-01-01T00:00:00Z"
        );
        let silent = VipReport {
            announced: false,
            ..report()
        };
        let third = status(&identity(), &silent, &all, Some(&second));
        assert_ne!(
            third["conditions"][0]["lastTransitionTime"],
            "2020-01-01T00:00:00Z"
        );
        assert_eq!(third["conditions"][0]["reason"], "NotAnnounced");
    }

    #[test]
    fn without_a_move_of_its_own_the_recorded_one_is_left_alone() {
        let resumed = VipReport {
            moved: None,
            ..report()
        };
        let value = status(&identity(), &resumed, &Ownership::default(), None);
        assert!(value.get("lastMove").is_none());
    }
}
