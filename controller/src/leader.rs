//! Carries out what [`crate::lease`] decides: reads, writes and watches the Lease, and tells
//! the rest of the process whether it may act.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Client, Error};
use lightship_crds::MANAGER_CONTROLLER;
use lightship_kit::{pause, watch_pauses, while_busy};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::since_boot;
use crate::lease::{Elector, Put, Refusal, Sighting, Step, Timing};

/// Name of the Lease, in the daemon's own namespace.
const LEASE: &str = "lightship-controller";
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(1);
/// How long giving the Lease back may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The right to act, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    /// Counts the tenures of this process; 0 before the first.
    tenure: u64,
    /// On the clock of [`since_boot`]; zero if this process does not lead.
    until: Duration,
}

/// The right to act during one tenure.
#[derive(Clone)]
pub struct Authority {
    tenure: u64,
    grant: watch::Receiver<Grant>,
}

impl Authority {
    /// Whether the tenure lasts, at this very moment. To be asked last before anything is done,
    /// as the process may have stood still since it was asked before.
    pub fn holds(&self) -> bool {
        let grant = *self.grant.borrow();
        grant.tenure == self.tenure && since_boot() < grant.until
    }

    /// Ends when the tenure has ended.
    pub async fn lost(&self) {
        let mut grant = self.grant.clone();
        let tenure = self.tenure;
        // An error means that the election has ended, and with it every tenure.
        let over = |grant: &Grant| grant.tenure != tenure || grant.until.is_zero();
        let _ = grant.wait_for(over).await;
    }
}

/// This replica's part in the election; it ends when this is dropped.
pub struct Leadership {
    grant: watch::Receiver<Grant>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Takes part in the election in `namespace`.
    pub fn start(client: Client, namespace: &str, instance: &str, timing: Timing) -> Self {
        let (sender, grant) = watch::channel(Grant {
            tenure: 0,
            until: Duration::ZERO,
        });
        let (stop, stopped) = oneshot::channel();
        let process = format!("{:08x}", rand::random::<u32>());
        let candidate = Candidate {
            api: Api::namespaced(client, namespace),
            elector: Elector::new(instance, &process, timing),
            timing,
            grant: sender,
            other: None,
        };
        let task = tokio::spawn(candidate.run(stopped));
        Self { grant, stop, task }
    }

    /// Waits until this replica leads.
    pub async fn won(&mut self) -> Authority {
        let won = self.grant.wait_for(|grant| !grant.until.is_zero()).await;
        let Ok(tenure) = won.map(|grant| grant.tenure) else {
            // The task has panicked.
            return std::future::pending().await;
        };
        Authority {
            tenure,
            grant: self.grant.clone(),
        }
    }

    /// Leaves the election and gives the Lease back, so that another can take it at once.
    pub async fn resign(self) {
        let _ = self.stop.send(());
        if timeout(FAREWELL, self.task).await.is_err() {
            tracing::warn!(lease = LEASE, "stopped without giving the Lease back");
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    elector: Elector,
    timing: Timing,
    grant: watch::Sender<Grant>,
    /// Who else was last said to hold it.
    other: Option<String>,
}

impl Candidate {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        // Backed off within; errors only delay what looking finds out as well.
        let seen = watch_object(self.api.clone(), LEASE).backoff(watch_pauses());
        let seen = seen.chain(futures::stream::pending());
        pin_mut!(seen);
        loop {
            let step = self.elector.next(since_boot());
            // A tenure may have ended unnoticed until now, and the next step takes its time.
            self.publish();
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = carry_out(&self.api, &mut self.elector, self.timing, &step) => {}
                event = seen.next(), if matches!(step, Step::Wait(_)) => match event {
                    Some(Ok(lease)) => {
                        self.elector.noticed(lease.map(sighting), since_boot());
                    }
                    Some(Err(error)) => tracing::debug!(%error, "watch of the Lease failed"),
                    None => {}
                },
            }
            self.publish();
        }
        self.give_back().await;
    }

    /// Tells the others in the process, if anything changed.
    fn publish(&mut self) {
        let now = since_boot();
        let until = self.elector.acts_until(now).unwrap_or_default();
        let before = *self.grant.borrow();
        let (led, leads) = (!before.until.is_zero(), !until.is_zero());
        if !led && leads {
            tracing::info!(lease = LEASE, "this replica leads");
        } else if led && !leads {
            tracing::warn!(lease = LEASE, "this replica leads no longer");
        }
        let other = self.elector.other_holder().map(str::to_owned);
        if other != self.other {
            if let Some(holder) = &other {
                tracing::info!(lease = LEASE, holder, "another replica leads");
            }
            self.other = other;
        }
        // Also after a moment in which nobody noticed that the time was over.
        let expired = led && now >= before.until;
        let tenure = match leads && (!led || expired) {
            true => before.tenure + 1,
            false => before.tenure,
        };
        let grant = Grant { tenure, until };
        self.grant
            .send_if_modified(|current| std::mem::replace(current, grant) != grant);
    }

    /// Clears the holder, whatever may be unknown about the last request.
    async fn give_back(&mut self) {
        let was = self.grant.send_replace(Grant {
            tenure: 0,
            until: Duration::ZERO,
        });
        if was.tenure == 0 {
            return;
        }
        let released = async {
            let lease = while_busy(LONGEST, || self.api.get_opt(LEASE)).await?;
            let Some(lease) = lease.map(sighting) else {
                return Ok(false);
            };
            let Some(put) = self.elector.release(&lease) else {
                return Ok(false);
            };
            let write = while_busy(LONGEST, || write(&self.api, &put, self.timing));
            write.await.map(|_| true)
        };
        match released.await {
            Ok(true) => tracing::info!(lease = LEASE, "Lease given back"),
            Ok(false) => {}
            Err::<_, Error>(error) => tracing::warn!(%error, "the Lease cannot be given back"),
        }
    }
}

/// Does a step and tells the elector how it ended.
async fn carry_out(api: &Api<Lease>, elector: &mut Elector, timing: Timing, step: &Step) {
    let started = since_boot();
    let failed = |elector: &mut Elector, refusal, error: &dyn std::fmt::Display| {
        tracing::debug!(%error, ?refusal, lease = LEASE, "request failed");
        let delay = pause(elector.failures(), LONGEST);
        elector.failed(refusal, since_boot(), delay);
    };
    match step {
        Step::Wait(until) => tokio::time::sleep(until.saturating_sub(started)).await,
        Step::Look => match timeout(timing.request(), api.get_opt(LEASE)).await {
            Ok(Ok(lease)) => elector.looked(lease.map(sighting), started, since_boot()),
            Ok(Err(error)) => failed(elector, Refusal::Unknown, &error),
            Err(error) => failed(elector, Refusal::Unknown, &error),
        },
        Step::Write(put) => match timeout(timing.request(), write(api, put, timing)).await {
            Ok(Ok(lease)) => elector.wrote(sighting(lease), started, since_boot()),
            Ok(Err(Error::Api(status))) if [404, 409].contains(&status.code) => {
                failed(elector, Refusal::Conflict, &status.message);
            }
            Ok(Err(error)) => failed(elector, Refusal::Unknown, &error),
            Err(error) => failed(elector, Refusal::Unknown, &error),
        },
    }
}

async fn write(api: &Api<Lease>, put: &Put, timing: Timing) -> Result<Lease, Error> {
    let now = MicroTime(Timestamp::now());
    let held = !put.holder.is_empty();
    // A Lease given back is stated to last as short as the API allows, for those who do
    // not look at the holder.
    let seconds = if held { timing.duration.as_secs() } else { 1 };
    let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
    let Some(version) = &put.version else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(put.holder.clone()),
                lease_duration_seconds: Some(seconds),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(put.transitions),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams {
            field_manager: Some(MANAGER_CONTROLLER.into()),
            ..PostParams::default()
        };
        return api.create(&params, &lease).await;
    };
    let holder = if held {
        Value::from(put.holder.as_str())
    } else {
        Value::Null
    };
    let mut spec = json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "renewTime": now,
        "leaseTransitions": put.transitions,
    });
    if put.acquires {
        spec["acquireTime"] = json!(now);
    }
    let patch = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
    let params = PatchParams {
        field_manager: Some(MANAGER_CONTROLLER.into()),
        ..PatchParams::default()
    };
    api.patch(LEASE, &params, &Patch::Merge(patch)).await
}

fn sighting(lease: Lease) -> Sighting {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds;
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Sighting {
        version: lease.metadata.resource_version.unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map(Duration::from_secs),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}
