//! Whether kube-proxy is replaced by programs of Cilium on this node.
//!
//! They take a VIP's packets on the interfaces that Cilium is given, and nothing of what the director
//! hands to the host by `ls-host` or on behalf of another node would find its way as by kube-proxy. So
//! with `--mode auto` such a node only announces: Cilium takes the traffic of the VIPs that it owns, as it
//! would for any external address, and balances it itself.
//!
//! Cilium beside a kube-proxy is nothing special.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use lightship_netio::Rtnl;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The link that Cilium makes on each node, in all of its modes.
const LINK: &str = "cilium_host";

/// Where its configuration is, and the entry that says whether it replaces kube-proxy.
const NAMESPACE: &str = "kube-system";
const CONFIG: &str = "cilium-config";
const ENTRY: &str = "kube-proxy-replacement";

/// Where kube-proxy says that it is healthy (`--healthz-bind-address`).
const HEALTHZ: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10256);

const PATIENCE: Duration = Duration::from_secs(3);

/// What Cilium's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Config {
    /// The entry; empty if there is none.
    Read(String),
    /// The API server did not answer.
    Unknown,
}

/// Says why, if kube-proxy is replaced here.
///
/// # Errors
/// The kernel does not tell its links.
pub async fn by_cilium(client: &Client) -> lightship_netio::Result<Option<String>> {
    if Rtnl::open()?.link_by_name(LINK).await?.is_none() {
        return Ok(None);
    }
    let config = read(client).await;
    let answers = match config {
        Config::Read(_) => false,
        Config::Unknown => {
            let asked = timeout(PATIENCE, TcpStream::connect(HEALTHZ)).await;
            asked.is_ok_and(|connected| connected.is_ok())
        }
    };
    Ok(judge(&config, answers))
}

/// Why kube-proxy is taken for replaced, if it is. A healthy one counts only where Cilium's word
/// cannot be had, as it starts later than a speaker.
fn judge(config: &Config, kube_proxy_answers: bool) -> Option<String> {
    let found = match config {
        Config::Read(value) if matches!(value.as_str(), "true" | "strict") => {
            format!("{ENTRY} is {value} in ConfigMap {NAMESPACE}/{CONFIG}")
        }
        Config::Unknown if !kube_proxy_answers => {
            format!(
                "it has the link {LINK} and no kube-proxy on port {}",
                HEALTHZ.1
            )
        }
        Config::Read(_) | Config::Unknown => return None,
    };
    Some(format!(
        "Cilium replaces kube-proxy on this node ({found}), and does not take what a director \
         hands on; --mode direct-routing has a director all the same"
    ))
}

async fn read(client: &Client) -> Config {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    match timeout(PATIENCE, maps.get_opt(CONFIG)).await {
        Ok(Ok(map)) => {
            let mut data = map.and_then(|map| map.data).unwrap_or_default();
            Config::Read(data.remove(ENTRY).unwrap_or_default())
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot read Cilium's configuration");
            Config::Unknown
        }
        Err(_) => Config::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cilium_beside_a_kube_proxy_is_nothing_special() {
        let read = |value: &str| Config::Read(value.into());
        for (config, answers, replaced) in [
            (read("true"), false, true),
            (read("strict"), false, true),
            (read("false"), false, false),
            (read("partial"), false, false),
            // Not said: a kube-proxy that has not started yet must not be taken for replaced.
            (read(""), false, false),
            (Config::Unknown, true, false),
            (Config::Unknown, false, true),
        ] {
            let judged = judge(&config, answers);
            assert_eq!(
                judged.is_some(),
                replaced,
                "{config:?} {answers}: {judged:?}"
            );
        }
    }
}
