//! Kubernetes events on VirtualIPs: another machine uses the address, or does so no more.
//!
//! The conditions in the status say the same for as long as it lasts; events are for who looks
//! later, or watches. Nothing waits for them, and one that cannot be sent is dropped.

mod ledger;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use lightship_crds::{MANAGER_SPEAKER, VirtualIP};
use lightship_kit::while_busy;
use tokio::sync::watch;

use crate::core::Ownership;
use crate::world::{NodeName, World};
use ledger::{Conflict, Ledger};

/// How long one event may take, all attempts included; it is given up then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest pause between attempts while the API server is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Sends events until the sender is gone.
pub async fn run(
    client: Client,
    node: NodeName,
    mut ownership: watch::Receiver<Arc<Ownership>>,
    world: watch::Receiver<Option<Arc<World>>>,
) {
    let origin = Instant::now();
    let mut ledger = Ledger::default();
    loop {
        let owned = ownership.borrow_and_update().clone();
        let conflicts = owned.vips.iter().map(|(vip, report)| {
            let announced = report.announced;
            (*vip, report.conflict.map(|mac| Conflict { mac, announced }))
        });
        let (due, next) = ledger.due(&conflicts.collect(), origin.elapsed());
        for (vip, now) in due {
            let known = world.borrow().clone();
            let object = known.and_then(|w| w.vips.get(&vip).map(|v| v.object.clone()));
            let Some(object) = object else { continue };
            let sent = send(&client, &node, vip, &object, now);
            match tokio::time::timeout(PATIENCE, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%vip, %error, "event not sent"),
                Err(_) => tracing::warn!(%vip, "event not sent: the API server does not answer"),
            }
        }
        let next = async {
            match next {
                Some(at) => tokio::time::sleep_until((origin + at).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = next => {}
            changed = ownership.changed() => if changed.is_err() { return },
        }
    }
}

async fn send(
    client: &Client,
    node: &NodeName,
    vip: IpAddr,
    object: &str,
    now: Option<Conflict>,
) -> kube::Result<()> {
    // `kubectl describe` finds events by the object's uid.
    let vips = Api::<VirtualIP>::all(client.clone());
    let object = while_busy(LONGEST_PAUSE, || vips.get(object)).await?;
    // Events about objects without a namespace go where `kubectl describe` looks for them.
    let api: Api<Event> = Api::namespaced(client.clone(), "default");
    let event = event(&object, node, vip, now, Timestamp::now());
    let params = PostParams::default();
    let create = while_busy(LONGEST_PAUSE, || api.create(&params, &event));
    create.await.map(drop)
}

fn event(
    object: &VirtualIP,
    node: &NodeName,
    vip: IpAddr,
    conflict: Option<Conflict>,
    now: Timestamp,
) -> Event {
    let (kind, reason, note) = match conflict {
        Some(Conflict { mac, announced }) => {
            let does = if announced {
                "claims it too: it is announced anew, at most once per 10 s"
            } else {
                "has it already: it is not announced, and asked for again every 10 s"
            };
            let note = format!(
                "{mac}, which is no node of this cluster that is heard, {does}. \
                 Give that machine another address, or take {vip} out of the pool"
            );
            ("Warning", "AddressConflict", note)
        }
        None => {
            let note = format!("no other machine was heard to use {vip} any more");
            ("Normal", "AddressConflictOver", note)
        }
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", rand::random::<u64>())),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(kind.into()),
        reason: Some(reason.into()),
        action: Some("AnnounceAddress".into()),
        note: Some(note),
        regarding: Some(ObjectReference {
            api_version: Some(VirtualIP::api_version(&()).into_owned()),
            kind: Some(VirtualIP::kind(&()).into_owned()),
            name: Some(name),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("lightship.dev/{MANAGER_SPEAKER}")),
        // The API server takes no more than 128 bytes.
        reporting_instance: Some(node.chars().take(128).collect()),
        ..Event::default()
    }
}
