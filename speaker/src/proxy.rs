//! When a node that has booted can take a share: its kube-proxy has its rules, and the path test has asked all.
//!
//! A node that boots runs its speaker long before its kube-proxy has written the first rule, and
//! what a director hands to it meanwhile meets the loop guard. So it says in its heartbeats that it
//! should get no share yet, until it reaches the API server by the ClusterIP of the Service
//! `default/kubernetes`: kube-proxy writes its first rules for all Services at once, in each of its
//! modes, and replacements of kube-proxy serve that address too. (kube-proxy's own `/healthz` says
//! yes before it has written anything.)
//!
//! What is forwarded to it may also not reach it, or its replies not the clients. So the first round of the path test
//! is waited for too, where other nodes answer it.
//!
//! Only a node that booted is in doubt: a speaker that restarts finds its state file and asks
//! nothing. And the doubt ends after [`LIMIT`] whatever happens, as an API server that is away must
//! not keep a node out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use lightship_core::path::Verdict;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a node stays without a share at most.
const LIMIT: Duration = Duration::from_secs(60);

/// How long one answer is waited for, and the pause before the next try: a packet that left before
/// the rules were there is not answered, nor are its repetitions.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(250);

/// How long after the answer: the rules of the other address family are written at the same time,
/// by another loop.
const MARGIN: Duration = Duration::from_secs(2);

/// How long the path test has from the speaker's start at least: what others find lost on their ways to here they know
/// after eight questions in four seconds, and tell it with the next ones, two seconds later.
const TOLD: Duration = Duration::from_secs(8);

/// How long its own first round is waited for after that: hundreds of nodes are not all asked by then.
const TESTED: Duration = Duration::from_secs(5);

/// Sets `serves` once kube-proxy has its rules, or after [`LIMIT`], and the path test has had its time.
pub async fn wait(
    client: Client,
    mut tested: watch::Receiver<Arc<Verdict>>,
    serves: watch::Sender<bool>,
) {
    let started = Instant::now();
    match timeout(LIMIT, answered(client)).await {
        Ok(address) => {
            tracing::info!(%address, "kube-proxy has its rules");
            sleep(MARGIN).await;
        }
        Err(_) => tracing::warn!(
            "the API server was not reached by its ClusterIP for {} s: the node gets its share all the same",
            LIMIT.as_secs()
        ),
    }
    sleep_until(started + TOLD).await;
    if timeout(TESTED, tested.wait_for(|verdict| verdict.judged))
        .await
        .is_err()
    {
        tracing::info!("the path test has not asked all nodes yet; the node gets its share");
    }
    serves.send_replace(true);
}

async fn answered(client: Client) -> IpAddr {
    let services: Api<Service> = Api::namespaced(client, "default");
    let mut target = None;
    loop {
        if target.is_none() {
            match look(&services).await {
                Ok(found) => target = Some(found),
                Err(error) => tracing::debug!(%error, "the ClusterIP of the API server"),
            }
        }
        if let Some(target) = target
            && let Ok(Ok(_)) = timeout(PATIENCE, TcpStream::connect(target)).await
        {
            return target.0;
        }
        sleep(PAUSE).await;
    }
}

async fn look(services: &Api<Service>) -> anyhow::Result<(IpAddr, u16)> {
    let spec = services
        .get("kubernetes")
        .await?
        .spec
        .context("it has no spec")?;
    let address = spec.cluster_ip.context("it has no clusterIP")?.parse()?;
    let port = spec.ports.iter().flatten().next();
    let port = port.context("it has no port")?.port;
    Ok((address, port.try_into()?))
}
