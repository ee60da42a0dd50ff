//! One pod's life: sandbox, server, readiness, status, end.
//!
//! One task owns all of a pod; dropping it kills the server. The API server may be away at
//! any time: what could not be told it is told again later, and the pod goes on serving.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

use super::sandbox::{Sandbox, Slot};
use super::{Node, status};

/// Time between two attempts of the readiness probe until it succeeds.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// Time between two attempts to tell the API server something.
const RETRY: Duration = Duration::from_millis(500);

/// How often a pod's status in the API server is compared with what it should be, as a kubelet
/// does (`syncPeriod` in kubernetes/pkg/kubelet/status/status_manager.go).
const RECONCILE: Duration = Duration::from_secs(10);

/// Pause before a server that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Ports of a container that names none.
const DEFAULT_PORT: u16 = 8080;

type Latest = watch::Receiver<Option<Arc<Pod>>>;

/// Looks after one pod until it is gone.
pub(super) async fn run(node: Arc<Node>, slot: Slot, latest: Latest) {
    let Some(pod) = latest.borrow().clone() else {
        return;
    };
    let namespace = pod.namespace().unwrap_or_default();
    let name = format!("pod-{namespace}-{}", pod.name_any());
    let (config, sandbox_name) = (Arc::clone(&node.config), name.clone());
    let made = blocking(move || Sandbox::create(&sandbox_name, slot, &config)).await;
    let sandbox = match made {
        Ok(sandbox) => sandbox,
        Err(error) => return tracing::error!("{error:#}"),
    };
    let now = status::now();
    let worker = Worker {
        addresses: slot.addresses(&node.config),
        server: status::Server {
            ready: false,
            since: now.clone(),
            started: now,
            restarts: 0,
        },
        told: None,
        sandbox: sandbox.clone(),
        pods: Api::namespaced(node.client.clone(), &namespace),
        node,
        name,
        pod,
        latest,
    };
    worker.live().await;
    let _ = blocking(move || {
        sandbox.remove();
        Ok(())
    })
    .await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

struct Worker {
    node: Arc<Node>,
    pods: Api<Pod>,
    name: String,
    sandbox: Sandbox,
    addresses: Vec<IpAddr>,
    /// The latest version seen; also the last one, when the pod is gone.
    pod: Arc<Pod>,
    latest: Latest,
    server: status::Server,
    /// What the API server was told last.
    told: Option<status::Server>,
}

/// Why a server is no longer attended.
enum End {
    /// It ended by itself.
    Crashed,
    /// The pod shall end.
    Deleted,
    /// The pod is no longer in the API server.
    Gone,
}

impl Worker {
    async fn live(mut self) {
        loop {
            match self.spawn().await {
                Ok(mut child) => match self.attend(&mut child).await {
                    End::Crashed => tracing::warn!("{}: the server ended", self.name),
                    End::Deleted => {
                        self.terminate(&mut child).await;
                        return self.confirm_deletion().await;
                    }
                    End::Gone => {
                        let _ = child.kill().await;
                        return;
                    }
                },
                Err(error) => tracing::error!("{}: {error:#}", self.name),
            }
            self.server.restarts += 1;
            self.set_ready(false);
            self.tell().await;
            sleep(RESTART_PAUSE).await;
        }
    }

    /// Starts the server inside the sandbox.
    async fn spawn(&self) -> Result<Child> {
        let log_path = self.node.config.log_dir.join(format!("{}.log", self.name));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot open {}", log_path.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("pod")
            .args(["--name", &self.pod.name_any()])
            .args(["--node", &self.node.config.node_name])
            .args(port_arguments(&self.pod))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let sandbox = self.sandbox.clone();
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            sandbox.enter(move || {
                let _runtime = runtime.enter();
                command.spawn().context("cannot start the server")
            })
        })
        .await
    }

    /// Keeps the API server up to date until something ends.
    async fn attend(&mut self, child: &mut Child) -> End {
        let probe = answers(self.probe_address());
        tokio::pin!(probe);
        let mut answering = false;
        let mut reconcile = interval(RECONCILE);
        loop {
            self.set_ready(answering && !status::is_held_unready(&self.pod));
            if answering {
                self.tell().await;
            }
            let untold = answering && self.told.as_ref() != Some(&self.server);
            tokio::select! {
                () = &mut probe, if !answering => answering = true,
                _ = child.wait() => return End::Crashed,
                changed = self.latest.changed() => {
                    let latest = self.latest.borrow_and_update().clone();
                    let (Ok(()), Some(pod)) = (changed, latest) else {
                        return End::Gone;
                    };
                    self.pod = pod;
                }
                () = sleep(RETRY), if untold => {}
                // Somebody else wrote its readiness.
                _ = reconcile.tick() => {
                    if status::contradicts(&self.pod, &self.server) {
                        self.told = None;
                    }
                }
            }
            if self.pod.metadata.deletion_timestamp.is_some() {
                return End::Deleted;
            }
        }
    }

    fn set_ready(&mut self, ready: bool) {
        if self.server.ready != ready {
            self.server.ready = ready;
            self.server.since = status::now();
        }
    }

    /// Posts the pod's status unless it was posted already. A failure is not an
    /// error here: [`Worker::told`] shows that it must be tried again.
    async fn tell(&mut self) {
        if self.told.as_ref() == Some(&self.server) {
            return;
        }
        let config = &self.node.config;
        let patch = status::pod_patch(&self.pod, config, &self.addresses, &self.server);
        let params = PatchParams::default();
        let name = self.pod.name_any();
        match self
            .pods
            .patch_status(&name, &params, &Patch::Merge(patch))
            .await
        {
            Ok(_) => self.told = Some(self.server.clone()),
            Err(error) => tracing::warn!("{}: status: {error}", self.name),
        }
    }

    /// Where the readiness probe connects: the first TCP port, if there is one.
    fn probe_address(&self) -> Option<SocketAddr> {
        let port = tcp_ports(&self.pod).first().copied()?;
        Some(SocketAddr::new(*self.addresses.first()?, port))
    }

    /// SIGTERM after the time that the pod's `preStop` asks for, and SIGKILL when its grace period is over.
    async fn terminate(&mut self, child: &mut Child) {
        let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let pre_stop = pre_stop(&self.pod).clamp(0, grace);
        tokio::select! {
            () = sleep(seconds(pre_stop)) => {}
            // Deleted without grace in the meantime.
            _ = self.latest.wait_for(Option::is_none) => {}
        }
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        tokio::select! {
            _ = timeout(seconds(grace - pre_stop), child.wait()) => {}
            _ = self.latest.wait_for(Option::is_none) => {}
        }
        let _ = child.kill().await;
    }

    /// Tells the API server that nothing of the pod is left.
    async fn confirm_deletion(&self) {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.pod.uid(),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        loop {
            match self.pods.delete(&self.pod.name_any(), &params).await {
                Ok(_) => return,
                // Gone already, or another pod of that name.
                Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => return,
                Err(error) => tracing::warn!("{}: deletion: {error}", self.name),
            }
            sleep(RETRY).await;
        }
    }
}

/// Ends when the server accepts connections; at once when there is nothing to connect to.
async fn answers(address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    while !matches!(
        timeout(Duration::from_secs(1), TcpStream::connect(address)).await,
        Ok(Ok(_))
    ) {
        sleep(PROBE_EVERY).await;
    }
}

/// The pod's ports of one protocol. A pod that names no port at all serves [`DEFAULT_PORT`].
fn ports(pod: &Pod, protocol: &str) -> Vec<u16> {
    let declared: Vec<(&str, u16)> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some((protocol, u16::try_from(port.container_port).ok()?))
        })
        .collect();
    if declared.is_empty() {
        // Not every kernel has SCTP.
        let by_default = protocol != "SCTP";
        return by_default.then_some(DEFAULT_PORT).into_iter().collect();
    }
    declared
        .into_iter()
        .filter(|(its, _)| *its == protocol)
        .map(|(_, port)| port)
        .collect()
}

/// Seconds that the first container's `preStop` sleeps; 0 without one.
fn pre_stop(pod: &Pod) -> i64 {
    let containers = pod.spec.as_ref().map(|spec| &spec.containers);
    let first = containers.and_then(|containers| containers.first());
    let hooks = first.and_then(|container| container.lifecycle.as_ref());
    let hook = hooks.and_then(|hooks| hooks.pre_stop.as_ref());
    let sleep = hook.and_then(|hook| hook.sleep.as_ref());
    sleep.map_or(0, |sleep| sleep.seconds)
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn tcp_ports(pod: &Pod) -> Vec<u16> {
    ports(pod, "TCP")
}

fn port_arguments(pod: &Pod) -> Vec<String> {
    let tcp = ports(pod, "TCP");
    let udp = ports(pod, "UDP");
    let sctp = ports(pod, "SCTP");
    let options = tcp.iter().map(|port| format!("--port={port}"));
    options
        .chain(udp.iter().map(|port| format!("--udp-port={port}")))
        .chain(sctp.iter().map(|port| format!("--sctp-port={port}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ports: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "web" },
            "spec": { "containers": [{ "name": "web", "ports": ports }] },
        }))
        .unwrap()
    }

    #[test]
    fn ports_go_to_the_server_by_protocol() {
        let subject = pod(json!([
            { "containerPort": 80 },
            { "containerPort": 53, "protocol": "UDP" },
        ]));
        assert_eq!(port_arguments(&subject), ["--port=80", "--udp-port=53"]);
    }

    #[test]
    fn a_pod_without_ports_serves_the_default_one() {
        let subject = pod(json!([]));
        assert_eq!(port_arguments(&subject), ["--port=8080", "--udp-port=8080"]);
    }
}
