//! The run loop: the one task that owns the state.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;

use crate::adapter::Classes;
use crate::core::Core;
use crate::heartbeat_key;
use crate::model::{Action, Clock, Input};
use crate::publish::Publisher;
use crate::sink::ApiServer;
use crate::watch;
use crate::writer::Writer;

/// How long writes under way may take after the signal to stop. What is not written by
/// then the next start writes.
const GRACE: Duration = Duration::from_secs(2);

/// What the command line decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which Services are ours.
    pub classes: Classes,
    /// Where the heartbeat key lives.
    pub namespace: String,
    /// Tells replicas apart in events.
    pub instance: String,
}

/// Runs until `shutdown` ends.
pub async fn run(client: Client, options: Options, shutdown: impl Future<Output = &'static str>) {
    let origin = Instant::now();
    let mut inputs = watch::start(&client, options.classes);
    tokio::spawn(heartbeat_key::ensure(client.clone(), options.namespace));
    let publisher = Publisher::start(client.clone(), options.instance);
    let mut writer = Writer::new(ApiServer::new(client));
    let mut core = Core::default();

    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            signal = &mut shutdown => {
                tracing::info!(signal, "stopping");
                break;
            }
            recheck = writer.step() => {
                let Some(key) = recheck else {
                    continue;
                };
                for action in core.apply(Input::Recheck(key), now(origin)) {
                    act(action, &mut writer, &publisher);
                }
            }
            input = inputs.recv() => {
                let Some(input) = input else {
                    tracing::error!("all watchers ended");
                    break;
                };
                let was_ready = core.ready();
                let actions = core.apply(input, now(origin));
                if core.ready() && !was_ready {
                    let (addresses, writes) = (core.allocator().holdings().count(), actions.len());
                    tracing::info!(addresses, writes, "ready");
                }
                for action in actions {
                    act(action, &mut writer, &publisher);
                }
            }
        }
    }
    let drained = tokio::time::timeout(GRACE, async {
        while !writer.idle() {
            writer.step().await;
        }
    });
    if drained.await.is_err() {
        tracing::warn!("stopped with writes under way");
    }
}

fn act(action: Action, writer: &mut Writer<ApiServer>, publisher: &Publisher) {
    match action {
        Action::Write(write) => writer.submit(write),
        Action::Notify(notice) => {
            let (subject, reason, note) = (&notice.subject, notice.reason, &notice.note);
            if notice.warning {
                tracing::warn!(%subject, reason, note);
            } else {
                tracing::info!(%subject, reason, note);
            }
            publisher.notify(notice);
        }
    }
}

fn now(origin: Instant) -> Clock {
    let wall = Timestamp::now();
    Clock {
        mono: origin.elapsed(),
        // Objects carry whole seconds.
        wall: Timestamp::from_second(wall.as_second()).unwrap_or(wall),
    }
}
