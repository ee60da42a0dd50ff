//! A kubelet as small as the lab can do with.
//!
//! It does to the API server what a real one does, since the controllers that
//! the lab runs judge a node by it: it renews the node's Lease and posts its status
//! ([`heartbeat`]), runs the pods that are bound to the node ([`worker`], one task for each) in
//! network namespaces ([`sandbox`]) and posts their status ([`status`]). It does not pull
//! images: every container is the lab's own server ([`crate::pod`]), on the container's ports.

mod heartbeat;
mod sandbox;
mod status;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, ResourceExt};
use lightship_lab::agent_config::AgentConfig;
use tokio::sync::watch;

use sandbox::Slot;

/// What all of the kubelet's tasks share.
pub(crate) struct Node {
    config: Arc<AgentConfig>,
    client: Client,
}

/// Runs until the process ends.
///
/// # Errors
/// When the client configuration is of no use.
pub(crate) async fn run(config: Arc<AgentConfig>) -> Result<()> {
    let client = client(&config).await?;
    let node = Arc::new(Node { config, client });
    tokio::spawn(heartbeat::run(Arc::clone(&node)));
    Pods::new(node).run().await
}

async fn client(config: &AgentConfig) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(&config.kubeconfig)
        .with_context(|| format!("cannot read {}", config.kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The pods of this node and who looks after them.
struct Pods {
    node: Arc<Node>,
    /// By UID: a pod that was replaced under its old name is another pod.
    workers: HashMap<String, Worker>,
    /// UIDs that a restarted watch has named so far.
    seen: Vec<String>,
}

struct Worker {
    slot: Slot,
    /// The latest version of the pod; `None` once it is gone from the API server.
    pod: watch::Sender<Option<Arc<Pod>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Pods {
    fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            workers: HashMap::new(),
            seen: Vec::new(),
        }
    }

    async fn run(mut self) -> Result<()> {
        let pods: Api<Pod> = Api::all(self.node.client.clone());
        let mine = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.node.config.node_name));
        let mut events = Box::pin(watcher(pods, mine).default_backoff());
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.handle(event),
                Ok(None) => anyhow::bail!("the watch of pods ended"),
                // The watcher tries again by itself; the API server may well be away.
                Err(error) => tracing::warn!("watch of pods: {error}"),
            }
        }
    }

    fn handle(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => self.gone(&pod.uid().unwrap_or_default()),
            watcher::Event::Init => self.seen.clear(),
            watcher::Event::InitApply(pod) => {
                self.seen.extend(pod.uid());
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let seen = std::mem::take(&mut self.seen);
                let lost: Vec<_> = self
                    .workers
                    .keys()
                    .filter(|uid| !seen.contains(uid))
                    .cloned()
                    .collect();
                lost.iter().for_each(|uid| self.gone(uid));
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        if let Some(worker) = self.workers.get(&uid) {
            let _ = worker.pod.send(Some(Arc::new(pod)));
            return;
        }
        if status::is_over(&pod) {
            return;
        }
        self.workers.retain(|_, worker| !worker.task.is_finished());
        let taken: Vec<Slot> = self.workers.values().map(|worker| worker.slot).collect();
        let Some(slot) = Slot::choose(&self.node.config, &pod, &taken) else {
            tracing::error!("no address is left for pod {}", pod.name_any());
            return;
        };
        let (sender, receiver) = watch::channel(Some(Arc::new(pod)));
        let task = tokio::spawn(worker::run(Arc::clone(&self.node), slot, receiver));
        self.workers.insert(
            uid,
            Worker {
                slot,
                pod: sender,
                task,
            },
        );
    }

    fn gone(&mut self, uid: &str) {
        // The entry stays until the task has ended: its slot is still in use.
        if let Some(worker) = self.workers.get(uid) {
            let _ = worker.pod.send(None);
        }
    }
}
