//! The Kubernetes client.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a connection may take to stand. The library's 30 s would be lost whenever an API
/// server vanishes without a word, before another attempt may find it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client from a kubeconfig file if one is given, else from the Pod's service account.
///
/// It does not talk to the API server yet, so it works while that is away.
///
/// # Errors
/// If the file or the service account cannot be read or is incomplete.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} is incomplete", path.display()))?
        }
        None => Config::incluster()
            .context("not in a Pod with a service account; give --kubeconfig or KUBECONFIG")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).context("cannot set up the Kubernetes client")
}
