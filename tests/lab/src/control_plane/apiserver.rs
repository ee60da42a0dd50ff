//! The API server, with RBAC on.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::etcd;
use crate::addressing::{self, API_PORT, Families};
use crate::net;
use crate::pki::Pki;
use crate::sh;
use crate::state::LabDir;
use crate::substrate::LAB_NETNS;

/// Name of the process and of its log.
pub const NAME: &str = "kube-apiserver";

/// The command that runs it.
pub fn command(program: &Path, dir: &LabDir, families: Families) -> Command {
    let pki = Pki::at(dir);
    let services: Vec<_> = addressing::service_cidrs(families)
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut command = net::command_in(LAB_NETNS, &[program]);
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    command
        .arg(format!("--etcd-servers={}", etcd::URL))
        .arg("--bind-address=::")
        .arg(format!("--secure-port={API_PORT}"))
        .arg(format!(
            "--advertise-address={}",
            addressing::host(families)[0].addr()
        ))
        .arg(format!("--service-cluster-ip-range={}", services.join(",")))
        .arg("--authorization-mode=Node,RBAC")
        .arg(file("tls-cert-file", &pki.server))
        .arg(file("tls-private-key-file", &pki.server_key))
        .arg(file("client-ca-file", &pki.ca))
        .arg(file("requestheader-client-ca-file", &pki.front_proxy_ca))
        .arg("--requestheader-allowed-names=front-proxy")
        .arg("--requestheader-username-headers=X-Remote-User")
        .arg("--requestheader-group-headers=X-Remote-Group")
        .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(file(
            "service-account-key-file",
            &pki.service_account_public_key,
        ))
        .arg(file(
            "service-account-signing-key-file",
            &pki.service_account_key,
        ))
        .arg(file("cert-dir", &dir.pki()))
        .args(["--allow-privileged=true", "--profiling=false"]);
    command
}

/// Whether it serves, with its first objects (namespaces, roles) in place.
///
/// # Errors
/// When it cannot be asked.
pub fn serves(dir: &LabDir) -> Result<bool> {
    let authority = Pki::at(dir).ca.display().to_string();
    let url = format!("https://127.0.0.1:{API_PORT}/readyz");
    let words = ["curl", "-fsS", "-m", "2", "--cacert", &authority, &url];
    let probe = net::command_in(LAB_NETNS, &words);
    Ok(sh::output(probe, None)?.status.success())
}
