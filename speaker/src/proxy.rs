//! When a node that has booted can take a share: its kube-proxy has its rules, and the path test has judged it.
//!
//! A node that boots runs its speaker long before its kube-proxy has written the first rule, and
//! what a director hands to it meanwhile meets the loop guard. So it says in its heartbeats that it
//! should get no share yet, until it reaches the API server by the ClusterIP of the Service
//! `default/kubernetes`: kube-proxy writes its first rules for all Services at once, in each of its
//! modes, and replacements of kube-proxy serve that address too. (kube-proxy's own `/healthz` says
//! yes before it has written anything.)
//!
//! What is forwarded to it may also not reach it, or its replies not the clients. So the path test's word is waited for too.
//! A node that hears no other has the whole time to find one, for it counts without a share only while another serves.
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
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a node stays without a share at most.
const LIMIT: Duration = Duration::from_secs(60);

/// How long one answer is waited for, and the pause before the next try: a packet that left before
/// the rules were there is not answered, nor are its repetitions.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(250);

/// How long after the answer: the rules of the other address family are written at the same time,
/// by another loop.
const MARGIN: Duration = Duration::from_secs(2);

/// Sets `serves` once kube-proxy has its rules and the path test has judged the node, or after [`LIMIT`].
pub async fn wait(
    client: Client,
    tested: watch::Receiver<Arc<Verdict>>,
    serves: watch::Sender<bool>,
) {
    let limit = Instant::now() + LIMIT;
    match timeout_at(limit, answered(client)).await {
        Ok(address) => {
            tracing::info!(%address, "kube-proxy has its rules");
            sleep(MARGIN).await;
        }
        Err(_) => tracing::warn!(
            "the API server was not reached by its ClusterIP for {} s: the node gets its share all the same",
            LIMIT.as_secs()
        ),
    }
    if !judged(tested, limit).await {
        tracing::info!("not judged by the path test yet: the node gets its share all the same");
    }
    serves.send_replace(true);
}

/// Waits until the path test has judged the node; false if it has not by `limit`.
async fn judged(mut tested: watch::Receiver<Arc<Verdict>>, limit: Instant) -> bool {
    let judged = tested.wait_for(|verdict| verdict.judged);
    matches!(timeout_at(limit, judged).await, Ok(Ok(_)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_path_tests_word_is_waited_for_but_not_for_ever() {
        let (sender, tested) = watch::channel(Arc::new(Verdict::default()));
        let begin = Instant::now();
        assert!(!judged(tested.clone(), begin + LIMIT).await);
        assert_eq!(begin.elapsed(), LIMIT);
        let word = async {
            sleep(PATIENCE).await;
            sender.send_modify(|verdict| Arc::make_mut(verdict).judged = true);
        };
        let begin = Instant::now();
        let (found, ()) = tokio::join!(judged(tested.clone(), begin + LIMIT), word);
        assert!(found);
        assert_eq!(begin.elapsed(), PATIENCE);
        // Known already, also if nobody tests any more.
        drop(sender);
        assert!(judged(tested, begin + LIMIT).await);
        let (_, gone) = watch::channel(Arc::new(Verdict::default()));
        assert!(!judged(gone, Instant::now() + LIMIT).await);
    }
}
