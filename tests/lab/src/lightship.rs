//! Lightship itself in the lab: the objects of `deploy/`, and the daemons as processes that
//! use the service accounts and roles from there, so that every run proves those.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

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
pub(crate) fn start_controller(lab: &mut Lab, program: &Path, flags: &[&str]) -> Result<()> {
    let mut command = net::command_in(LAB_NETNS, &[program]);
    command.env("KUBECONFIG", lab.dir.kubeconfig(CONTROLLER));
    command.args(flags);
    lab.spawn(CONTROLLER, &command)
}

impl Lab {
    /// Turns the early word of a dead node on, as its documentation says, or off again: gives the
    /// controller the rights and starts it anew with the flag, and waits until it acts.
    ///
    /// # Errors
    /// When the controller does not come to act.
    pub fn early_node_failure(&mut self, on: bool) -> Result<()> {
        let _lock = self.lock()?;
        let rights = binaries::checkout().join("deploy/rbac-early-node-failure.yaml");
        let rights = std::fs::read_to_string(rights)?;
        let program = binaries::build(self.state.options.profile())?.controller;
        if let Some(process) = self.state.processes.remove(CONTROLLER) {
            process.stop(Duration::from_secs(5))?;
        }
        let flag = "--early-node-failure";
        if on {
            self.apply(&rights)?;
        } else {
            let delete = self.kubectl_command(&["delete", "--ignore-not-found", "-f", "-"]);
            sh::run_with_input(delete, Some(&rights))?;
        }
        let log = self.dir.log(CONTROLLER);
        let before = acts(&log);
        let flags: Vec<&str> = on.then_some(flag).into_iter().collect();
        start_controller(self, &program, &flags)?;
        sh::wait_for(
            "the controller acts",
            Duration::from_secs(30),
            Duration::from_millis(100),
            || Ok((acts(&log) > before).then_some(())),
        )
    }
}

/// How often a controller has said in its log that it is ready to act.
fn acts(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(": ready "))
        .count()
}

/// How the agent of `node` is to run the speaker.
pub(crate) fn speaker(lab: &Lab, program: &Path, node: &str) -> Daemon {
    let kubeconfig = lab.dir.kubeconfig(SPEAKER);
    let mut argv = vec![
        program.display().to_string(),
        "--node-name".to_owned(),
        node.to_owned(),
    ];
    argv.extend(lab.state.options.speaker_flags.iter().cloned());
    Daemon {
        argv,
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
