//! The Kubernetes client.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client from a kubeconfig file if one is given, else from the Pod's service account.
///
/// It does not talk to the API server yet, so it works while that is away.
///
/// # Errors
/// If the file or the service account cannot be read or is incomplete.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
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
    Client::try_from(config).context("cannot set up the Kubernetes client")
}
