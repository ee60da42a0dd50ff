//! `node`: makes a machine (or a set of namespaces) a node of the lab's cluster.
//!
//! Tasks, all on one thread (the kernels of the lab have one processor):
//! the control socket ([`crate::control::server`]), one supervisor for each daemon
//! ([`crate::supervise`]), and the little kubelet ([`crate::kubelet`]). On SIGTERM the
//! daemons get SIGTERM and are waited for, so that a speaker can hand its VIPs over.

pub(crate) mod network;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use lightship_lab::agent_config::AgentConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{control, kubelet, supervise};

/// Arguments of `node`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The node's configuration, as the lab wrote it.
    #[arg(long)]
    pub(crate) config: PathBuf,
}

/// Runs the node until SIGTERM.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let config = Arc::new(AgentConfig::read(&args.config)?);
    network::set_up(&config).context("cannot set up the node's network")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Arc<AgentConfig>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);

    let mut daemons = JoinSet::new();
    for (name, daemon) in [
        ("kube-proxy", &config.kube_proxy),
        ("speaker", &config.speaker),
    ] {
        if let Some(daemon) = daemon {
            let supervisor = supervise::Supervisor::new(name, daemon.clone(), &config);
            daemons.spawn(supervisor.run(stopping.clone()));
        }
    }
    let mut services = JoinSet::new();
    if let Some(address) = config.control {
        services.spawn(control::server::serve(address));
    }
    services.spawn(kubelet::run(Arc::clone(&config)));
    write_synced(&config.state_dir.join("ready"), b"ready\n")?;
    tracing::info!("node {} is set up", config.node_name);

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = services.join_next() => ended?,
    };
    stop.send(true)?;
    daemons.join_all().await;
    ended
}

/// Writes a small file that the lab reads: on disk when this returns, because a
/// guest kernel would otherwise keep it to itself for a while.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_synced(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
