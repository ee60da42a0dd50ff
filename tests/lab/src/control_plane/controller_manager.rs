//! The Kubernetes controllers that Services, nodes and namespaces live by.

use std::path::Path;
use std::process::Command;

use crate::net;
use crate::pki::{self, Pki};
use crate::state::LabDir;
use crate::substrate::LAB_NETNS;

/// Name of the process and of its log.
pub const NAME: &str = "kube-controller-manager";

/// Node IPAM and taint eviction stay out (the lab gives out pod networks itself, and a
/// test may keep a node dead for longer than eviction would wait); there is no scheduler, so
/// DaemonSets stay out as well: pods name their node.
const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
];

/// The command that runs it.
pub fn command(program: &Path, dir: &LabDir) -> Command {
    let pki = Pki::at(dir);
    let mut command = net::command_in(LAB_NETNS, &[program]);
    command
        .arg("--kubeconfig")
        .arg(dir.kubeconfig(pki::CONTROLLER_MANAGER))
        .arg("--authentication-kubeconfig")
        .arg(dir.kubeconfig(pki::CONTROLLER_MANAGER))
        .arg("--authorization-kubeconfig")
        .arg(dir.kubeconfig(pki::CONTROLLER_MANAGER))
        .arg(format!("--controllers={}", CONTROLLERS.join(",")))
        .arg("--use-service-account-credentials=true")
        .arg("--service-account-private-key-file")
        .arg(pki.service_account_key)
        .arg("--root-ca-file")
        .arg(pki.ca)
        .arg("--cert-dir")
        .arg(dir.pki())
        // One copy: it must survive `lab api stop`, and has nobody to hand over to.
        .args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
    command
}
