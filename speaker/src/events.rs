//! Kubernetes events: on VirtualIPs, that another machine uses the address, or does so no more; on the
//! node's Speaker, that somebody changed what it made.
//!
//! The conditions in the status say the same for as long as it lasts; events are for who looks
//! later, or watches. Nothing waits for them, and one that cannot be sent is dropped.

mod ledger;
mod mended;

use std::fmt::Debug;
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
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use ledger::{Conflict, Ledger};
use lightship_core::core::Ownership;
use lightship_core::world::{NodeName, World};
pub use mended::run as mended;

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
            send::<VirtualIP>(&client, &node, &object, said(vip, now)).await;
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

/// What an event says.
struct Said {
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// Sends an event about the object of this name, which has no namespace.
async fn send<K>(client: &Client, node: &NodeName, name: &str, said: Said)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let sent = async {
        // `kubectl describe` finds events by the object's uid.
        let objects = Api::<K>::all(client.clone());
        let object = while_busy(LONGEST_PAUSE, || objects.get(name)).await?;
        // Such events go where it looks for them.
        let api: Api<Event> = Api::namespaced(client.clone(), "default");
        let event = event(&object, node, said, Timestamp::now());
        let params = PostParams::default();
        while_busy(LONGEST_PAUSE, || api.create(&params, &event)).await
    };
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(object = name, %error, "event not sent"),
        Err(_) => {
            tracing::warn!(
                object = name,
                "event not sent: the API server does not answer"
            );
        }
    }
}

fn said(vip: IpAddr, conflict: Option<Conflict>) -> Said {
    let (warning, reason, note) = match conflict {
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
            (true, "AddressConflict", note)
        }
        None => {
            let note = format!("no other machine was heard to use {vip} any more");
            (false, "AddressConflictOver", note)
        }
    };
    Said {
        warning,
        reason,
        action: "AnnounceAddress",
        note,
    }
}

fn event<K>(object: &K, node: &NodeName, said: Said, now: Timestamp) -> Event
where
    K: Resource<DynamicType = ()>,
{
    let kind = if said.warning { "Warning" } else { "Normal" };
    let name = object.meta().name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", rand::random::<u64>())),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(kind.into()),
        reason: Some(said.reason.into()),
        action: Some(said.action.into()),
        note: Some(said.note),
        regarding: Some(ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: Some(name),
            uid: object.meta().uid.clone(),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("lightship.dev/{MANAGER_SPEAKER}")),
        // The API server takes no more than 128 bytes.
        reporting_instance: Some(node.chars().take(128).collect()),
        ..Event::default()
    }
}
