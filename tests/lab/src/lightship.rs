//! Lightship itself in the lab: the objects of `deploy/`, and the daemons as processes that
//! use the service accounts and roles from there, so that every run proves those.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::agent_config::Daemon;
use crate::binaries;
use crate::lab::Lab;
use crate::net;
use crate::pki;
use crate::sh;
use crate::substrate::LAB_NETNS;

/// Name of the controller's process and service account.
pub(crate) const CONTROLLER: &str = "lightship-controller";

/// Name of the speakers' service account.
pub(crate) const SPEAKER: &str = "lightship-speaker";

/// Namespace of `deploy/`.
pub(crate) const NAMESPACE: &str = "lightship-system";

/// Applies `deploy/` without its workloads (the lab has no scheduler and no
/// images; it runs the same programs itself) and issues tokens for its service accounts.
pub(crate) fn install(lab: &Lab) -> Result<()> {
    let folder = binaries::checkout().join("deploy");
    let all = sh::run({
        let mut command = lab.kubectl_command(&["kustomize"]);
        command.arg(&folder);
        command
    })
    .context("deploy/ does not build")?;
    lab.apply(&without_workloads(&all))?;
    let crds = ["addresspools", "l2announcements", "speakers", "virtualips"]
        .map(|name| format!("crd/{name}.lightship.dev"));
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=30s"];
    wait.extend(crds.iter().map(String::as_str));
    lab.kubectl(&wait)?;
    for account in [CONTROLLER, SPEAKER] {
        let token = lab.kubectl(&[
            "create",
            "token",
            account,
            "--namespace",
            NAMESPACE,
            "--duration=24h",
        ])?;
        pki::write_token_kubeconfig(&lab.dir, account, lab.state.options.families, token.trim())?;
    }
    Ok(())
}

/// The documents of a manifest that are neither Deployment nor DaemonSet.
fn without_workloads(manifest: &str) -> String {
    manifest
        .split("\n---\n")
        .filter(|document| {
            !document
                .lines()
                .any(|line| matches!(line, "kind: Deployment" | "kind: DaemonSet"))
        })
        .collect::<Vec<_>>()
        .join("\n---\n")
}

/// Starts the controller in the control plane's namespace.
pub(crate) fn start_controller(lab: &mut Lab, program: &Path) -> Result<()> {
    let mut command = net::command_in(LAB_NETNS, &[program]);
    command.env("KUBECONFIG", lab.dir.kubeconfig(CONTROLLER));
    lab.spawn(CONTROLLER, &command)
}

/// How the agent of `node` is to run the speaker.
pub(crate) fn speaker(lab: &Lab, program: &Path, node: &str) -> Daemon {
    let kubeconfig = lab.dir.kubeconfig(SPEAKER);
    Daemon {
        argv: vec![
            program.display().to_string(),
            "--node-name".to_owned(),
            node.to_owned(),
        ],
        env: BTreeMap::from([("KUBECONFIG".to_owned(), kubeconfig.display().to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_left_out_and_nothing_else() {
        let manifest = "kind: Namespace\n---\nkind: DaemonSet\nspec: {}\n---\nkind: Role\n";
        assert_eq!(
            without_workloads(manifest),
            "kind: Namespace\n---\nkind: Role\n"
        );
    }
}
