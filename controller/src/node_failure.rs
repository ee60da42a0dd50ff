//! Early word of a dead node: tells Kubernetes within about a second that a node's pods do
//! not answer any more, which Kubernetes itself finds out after 40 to 50 s.
//!
//! Until then kube-proxy on the other nodes goes on choosing those pods under
//! `externalTrafficPolicy: Cluster` and for ClusterIPs. So what the node-lifecycle controller does
//! late is done early, and nothing else: the condition `Ready` of the node's pods becomes `False`
//! (kubernetes/pkg/controller/util/node/controller_utils.go, `MarkPodsNotReady`). No pod is
//! deleted, and the Node is not touched. Off unless asked for.
//!
//! ```text
//!  Speakers (who lost whom) ─┐
//!  Nodes (Ready, boot) ──────┼─▶ Judge (pure: decides) ──Action──▶ Pods ──▶ API server
//!  Leases (whose kubelet ────┘           ▲                          │
//!          is renewing)                  └────────── Done ──────────┘
//! ```
//!
//! Undone by the kubelet of a node that lives after all: its status manager compares
//! each pod's status in the API with its own every 10 s and writes its own (`syncPeriod` and
//! `needsReconcile` in kubernetes/pkg/kubelet/status/status_manager.go). What it has not undone
//! some seconds after the node is back is undone here.
//!
//! Nothing is in memory only. Who lost whom stands in the Speakers, what was marked in the pods;
//! a new leader begins with neither knowledge nor trust, and gains both within seconds.

mod judge;
mod pods;
mod view;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::leader::Authority;
use crate::model::{Notice, Subject};
use crate::publish::Publisher;
use crate::watch::Starter;

use judge::{Action, Input, Judge};
pub use judge::{BadLimit, Limit};
use pods::Pods;

/// Where kubelets renew the Leases of their nodes.
const LEASES: &str = "kube-node-lease";

/// Inputs on their way at most; beyond that the watchers wait.
const QUEUE: usize = 1024;

/// The task, which ends when this is dropped.
pub struct Watchman {
    _tasks: JoinSet<()>,
}

/// Starts watching for dead nodes, for as long as this replica leads.
pub fn start(
    client: &Client,
    authority: Authority,
    publisher: Publisher,
    limit: Limit,
) -> Watchman {
    let (sender, mut inputs) = mpsc::channel(QUEUE);
    let mut starter = Starter::new(client, sender.clone());
    starter.watch("nodes", view::node, Input::Nodes);
    starter.watch("speakers", view::speaker, Input::Speakers);
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    starter.watch_in(leases, "node leases", view::lease, Input::Leases);
    let mut tasks = starter.tasks;
    let pods = Pods::new(client.clone(), authority);
    tasks.spawn(async move {
        let origin = Instant::now();
        let mut judge = Judge::new(limit);
        let mut work = JoinSet::new();
        loop {
            let due = judge.deadline();
            let input = tokio::select! {
                Some(input) = inputs.recv() => input,
                Some(done) = work.join_next() => match done {
                    Ok(input) => input,
                    Err(error) => {
                        tracing::error!(%error, "marking pods failed badly");
                        continue;
                    }
                },
                () = until(due, origin) => Input::Tick,
            };
            for action in judge.apply(input, origin.elapsed()) {
                match action {
                    Action::Mark(mark) => {
                        let pods = pods.clone();
                        work.spawn(async move {
                            let result = pods.mark(&mark).await;
                            Input::Marked(mark.node, result)
                        });
                    }
                    Action::Restore { node, boot } => {
                        let pods = pods.clone();
                        work.spawn(async move {
                            let result = pods.restore(&node, &boot).await;
                            Input::Restored(node, result)
                        });
                    }
                    Action::Tell(said) => {
                        let subject = Subject::Node {
                            name: said.node,
                            uid: said.uid,
                        };
                        let (reason, note) = (said.reason, said.note);
                        if said.warning {
                            tracing::warn!(%subject, reason, note);
                        } else {
                            tracing::info!(%subject, reason, note);
                        }
                        publisher.notify(Notice {
                            subject,
                            warning: said.warning,
                            reason,
                            note,
                        });
                    }
                }
            }
        }
    });
    Watchman { _tasks: tasks }
}

/// Waits until a moment given since `origin`, or for ever.
async fn until(moment: Option<Duration>, origin: Instant) {
    match moment {
        Some(moment) => tokio::time::sleep_until((origin + moment).into()).await,
        None => std::future::pending().await,
    }
}
