//! `cargo xtask lab …`: thin words around `lightship_lab`.

use std::fs;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use crate::substrate::Substrate;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, ProxyMode, UplinkKind};
use lightship_lab::progress::{self, Progress};
use lightship_lab::state::{LabDir, PortFilter};
use lightship_lab::{How, Lab, status};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Bring the lab up (or make sure it is up).
    Up(Up),
    /// What runs, where, and since when.
    Status,
    /// Run kubectl with all rights.
    Kubectl {
        /// kubectl's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command on a node, or a shell when none is given.
    Exec {
        /// Name of a node, or `client`.
        who: String,
        /// Program and arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Run a command on the client host, or a shell when none is given.
    Client {
        /// Program and arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Print a log; without a name, say which there are.
    Logs {
        /// A process (`etcd`, `node1`, …) or a daemon of a node (`node1/speaker`).
        who: Option<String>,
    },
    /// Make a node fail.
    Fail {
        /// Name of the node.
        node: String,
        /// What happens to it.
        #[arg(long)]
        how: HowName,
        /// With `--how partition`: cut it off from the API server too.
        #[arg(long)]
        also_api: bool,
    },
    /// Undo every fault of a node.
    Heal {
        /// Name of the node.
        node: String,
    },
    /// Stop or start the API server.
    Api {
        /// What to do.
        action: ApiAction,
    },
    /// End the lab and remove all it made.
    Down {
        /// Keep the logs.
        #[arg(long)]
        keep_logs: bool,
    },
}

#[derive(Args)]
pub(crate) struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// What nodes are made of. `auto`: namespaces where this machine's kernel has
    /// ip_vs and macvlan, else User Mode Linux.
    #[arg(long, default_value = "auto")]
    substrate: Substrate,
    /// How kube-proxy works. Default: nftables on netns and qemu, iptables on uml.
    #[arg(long)]
    proxy_mode: Option<ProxyMode>,
    /// ipv4, ipv6 or dual.
    #[arg(long, default_value = "dual")]
    families: Families,
    /// What the nodes' uplinks are, in turn: plain, bridge, bond or vlan. Bonds and VLANs need a
    /// kernel that has them; User Mode Linux does.
    #[arg(long, value_delimiter = ',', value_name = "KIND,KIND…")]
    uplinks: Vec<UplinkKind>,
    /// Kubernetes alone, without controller and speakers.
    #[arg(long)]
    without_lightship: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum HowName {
    /// Its kernel is killed.
    Crash,
    /// Its cable is pulled.
    Unplug,
    /// It stands still.
    Pause,
    /// It is cut off from the other nodes, not from the API server (but see --also-api).
    Partition,
    /// Its switch port lets only frames from its own MAC in.
    FilterSourceMac,
    /// Its switch port passes only frames to its own MAC.
    FilterTargetMac,
    /// Its switch port lets only packets from its own addresses in.
    FilterSourceAddress,
    /// Its switch port lets only packets with a node's address out that come from other nodes.
    FilterForeignAddress,
    /// Its speaker is killed with SIGKILL and started again by the node.
    KillSpeaker,
    /// Its speaker gets SIGTERM and stays away until `heal`.
    StopSpeaker,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ApiAction {
    Stop,
    Start,
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let progress = Progress::on_stderr();
    match command {
        Command::Up(options) => up(&options, progress)?,
        Command::Down { keep_logs } => {
            progress::watch_signals()?;
            lightship_lab::down(keep_logs, progress)?;
        }
        Command::Status => print!("{}", status::table(&Lab::open()?)),
        Command::Kubectl { arguments } => return stream(Lab::open()?.kubectl_command(&arguments)),
        Command::Exec { who, argv } if who == "client" => return client(argv),
        Command::Exec { who, argv } => {
            return stream(Lab::open()?.exec_command(&who, &or_shell(argv))?);
        }
        Command::Client { argv } => return client(argv),
        Command::Logs { who } => logs(who.as_deref())?,
        Command::Fail {
            node,
            how,
            also_api,
        } => {
            let how = fault(how, also_api)?;
            progress.step(&format!("{node}: {how:?}"), || {
                Lab::open()?.fail(&node, how)
            })?;
            if how == (How::Partition { also_api: false }) {
                progress.say(
                    "The API server still reaches the node; --also-api cuts that off as well.",
                );
            }
        }
        Command::Heal { node } => {
            progress.step(&format!("{node} healed"), || Lab::open()?.heal(&node))?;
        }
        Command::Api { action } => match action {
            ApiAction::Stop => {
                progress.step("API server stopped", || Lab::open()?.stop_api())?;
            }
            ApiAction::Start => {
                progress.step("API server started", || Lab::open()?.start_api())?;
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn up(wanted: &Up, progress: Progress) -> Result<()> {
    let options = Options::resolve(
        wanted.nodes,
        wanted.substrate.kind(),
        wanted.proxy_mode,
        wanted.families,
        !wanted.without_lightship,
    )?
    .with_uplinks(&wanted.uplinks);
    progress::watch_signals()?;
    let start = std::time::Instant::now();
    progress.say(&format!("Lab: {options}"));
    let lab = lightship_lab::up(&options, progress)?;
    progress.say(&format!(
        "Up after {:.1} s.\n",
        start.elapsed().as_secs_f64()
    ));
    print!("{}", status::table(&lab));
    println!("\nTry: cargo xtask lab kubectl -- get nodes -o wide");
    Ok(())
}

fn fault(how: HowName, also_api: bool) -> Result<How> {
    if also_api && !matches!(how, HowName::Partition) {
        bail!("--also-api goes with --how partition");
    }
    Ok(match how {
        HowName::Crash => How::Crash,
        HowName::Unplug => How::Unplug,
        HowName::Pause => How::Pause,
        HowName::Partition => How::Partition { also_api },
        HowName::FilterSourceMac => How::Filter(PortFilter::OwnMacSends),
        HowName::FilterTargetMac => How::Filter(PortFilter::OwnMacReceives),
        HowName::FilterSourceAddress => How::Filter(PortFilter::OwnAddressSends),
        HowName::FilterForeignAddress => How::Filter(PortFilter::NodeAddressReceives),
        HowName::KillSpeaker => How::KillSpeaker,
        HowName::StopSpeaker => How::StopSpeaker,
    })
}

fn client(argv: Vec<String>) -> Result<ExitCode> {
    stream(Lab::open()?.client_command(&or_shell(argv)))
}

fn or_shell(argv: Vec<String>) -> Vec<String> {
    if argv.is_empty() {
        vec!["bash".to_owned()]
    } else {
        argv
    }
}

/// Runs a command with this process's own standard streams and ends as it ends.
fn stream(mut command: process::Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn logs(who: Option<&str>) -> Result<()> {
    let folder = LabDir::from_environment().logs();
    let Some(who) = who else {
        for name in names(&folder)? {
            println!("{name}");
        }
        return Ok(());
    };
    let path = folder.join(format!("{who}.log"));
    let text = fs::read(&path).with_context(|| {
        let names = names(&folder).unwrap_or_default().join(" ");
        format!("no log of {who:?}; there are: {names}")
    })?;
    print!("{}", String::from_utf8_lossy(&text));
    Ok(())
}

/// Names of the logs below a folder, as `lab logs` takes them.
fn names(folder: &PathBuf) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).context("there is no lab")? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            for inner in self::names(&path)? {
                names.push(format!("{name}/{inner}"));
            }
        } else {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}
