//! Kubernetes events.
//!
//! Not `kube::runtime::events::Recorder`: it takes events that differ in their text alone for
//! repeats and keeps the old text, whereas here the text is the news (which pools were
//! considered) and comes once per change, so that there is nothing to aggregate.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use lightship_crds::{AddressPool, MANAGER_CONTROLLER};
use lightship_kit::while_busy;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::leader::Authority;
use crate::model::{Notice, Subject};

/// Notices waiting to be sent at most; more are dropped with a line in the log, as events are
/// a courtesy and memory is not.
const QUEUE: usize = 20_000;
/// Requests under way at most.
const CONCURRENT: usize = 8;
/// How long an event waits at most while anything is being written.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1024;
/// How long one event may take, all attempts included; it is given up then.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Longest pause between attempts while the API server is busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Sends events from a task of its own, which ends when this and its clones are dropped and the events are sent,
/// or when this replica does not lead any more.
#[derive(Clone)]
pub struct Publisher {
    queue: mpsc::Sender<Notice>,
    busy: watch::Sender<bool>,
}

impl Publisher {
    /// Starts the task. `instance` tells replicas apart.
    pub fn start(client: Client, authority: Authority, instance: String) -> Self {
        let (queue, mut notices) = mpsc::channel::<Notice>(QUEUE);
        let (busy, calm) = watch::channel(false);
        tokio::spawn(async move {
            let stream = futures::stream::poll_fn(move |context| notices.poll_recv(context));
            let send = |notice| {
                let (client, instance, mut calm) = (client.clone(), instance.clone(), calm.clone());
                let authority = &authority;
                async move {
                    turn(&mut calm).await;
                    if authority.holds() {
                        publish(client, instance, notice).await;
                    }
                }
            };
            stream.for_each_concurrent(CONCURRENT, send).await;
        });
        Self { queue, busy }
    }

    /// Whether events are to wait: addresses come first, word of them after.
    pub fn wait(&self, busy: bool) {
        self.busy.send_if_modified(|before| {
            let changed = *before != busy;
            *before = busy;
            changed
        });
    }

    /// Sends an event when its turn comes.
    pub fn notify(&self, notice: Notice) {
        if let Err(error) = self.queue.try_send(notice) {
            tracing::warn!(%error, "event dropped");
        }
    }
}

/// Waits while anything is being written, but not for ever.
async fn turn(calm: &mut watch::Receiver<bool>) {
    // However the wait ends, the event goes.
    let _ = timeout(LONGEST_WAIT, calm.wait_for(|busy| !busy)).await;
}

async fn publish(client: Client, instance: String, notice: Notice) {
    let event = event(&notice, &instance, Timestamp::now());
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client, &namespace);
    let params = PostParams::default();
    let create = while_busy(LONGEST_PAUSE, || api.create(&params, &event));
    let sent = timeout(ATTEMPT, create).await;
    match sent {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, note = notice.note, "event not sent"),
        Err(_) => tracing::warn!(note = notice.note, "event not sent in time"),
    }
}

fn event(notice: &Notice, instance: &str, now: Timestamp) -> Event {
    let regarding = match &notice.subject {
        Subject::Service { id, uid } => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(id.namespace.to_string()),
            name: Some(id.name.to_string()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
        Subject::Pool { name, uid } => ObjectReference {
            api_version: Some(AddressPool::api_version(&()).into_owned()),
            kind: Some(AddressPool::kind(&()).into_owned()),
            name: Some(name.to_string()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
        Subject::Node { name, uid } => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
    };
    let action = match &notice.subject {
        Subject::Node { .. } => "WatchNode",
        Subject::Service { .. } | Subject::Pool { .. } => "AllocateAddress",
    };
    let mut name = regarding.name.clone().unwrap_or_default();
    // Room for the random part within the 253 characters of a name.
    name.truncate(200);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", rand::random::<u64>())),
            // Events about objects without a namespace go where `kubectl describe` looks for them.
            namespace: Some(
                regarding
                    .namespace
                    .clone()
                    .unwrap_or_else(|| "default".into()),
            ),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(notice.reason.into()),
        action: Some(action.into()),
        note: Some(shortened(&notice.note)),
        regarding: Some(regarding),
        reporting_controller: Some(format!("lightship.dev/{MANAGER_CONTROLLER}")),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let more = " … (shortened; see the controller's log)";
    let mut end = LONGEST_NOTE - more.len();
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{more}", &note[..end])
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[test]
    fn long_notes_are_cut_at_a_character() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ä".repeat(2000));
        assert!(long.len() <= LONGEST_NOTE && long.ends_with("log)"));
    }

    #[tokio::test(start_paused = true)]
    async fn events_wait_until_the_writes_are_through_or_long_enough() {
        let (busy, mut calm) = watch::channel(true);
        let start = Instant::now();
        tokio::join!(turn(&mut calm), async {
            sleep(Duration::from_secs(3)).await;
            busy.send_replace(false);
        });
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        turn(&mut calm).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        busy.send_replace(true);
        turn(&mut calm).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3) + LONGEST_WAIT);
        drop(busy);
        turn(&mut calm).await;
    }

    #[test]
    fn pool_events_go_to_the_default_namespace() {
        let notice = Notice {
            subject: Subject::Pool {
                name: "p".into(),
                uid: "u".into(),
            },
            warning: true,
            reason: "RangeRefused",
            note: "n".into(),
        };
        let event = event(&notice, "pod-1", Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
