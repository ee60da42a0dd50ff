//! The speaker's command line.

use std::path::PathBuf;
use std::time::Duration;

use lightship_kit::{AdminAddress, LogFormat};

/// Announces virtual IPs and directs their traffic on one node.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about, subcommand_negates_reqs = true)]
pub struct Cli {
    /// Something else than to run.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How to run; none only with a command.
    #[command(flatten)]
    pub run: Option<Args>,
}

/// What the program can do besides running.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Takes everything that a speaker made off this node: the director's namespace with its
    /// links, routes and IPVS table, the loop guard, and the state file. The speaker must not
    /// run. Existing connections through this node's director end.
    Cleanup {
        /// The speaker's state file.
        #[arg(long, default_value = STATE_FILE)]
        state_file: PathBuf,
        /// Waits afterwards until it is told to stop, for a DaemonSet, which has to run something.
        #[arg(long)]
        stay: bool,
    },
}

const STATE_FILE: &str = "/run/lightship/state.json";

/// How a speaker runs.
#[derive(Clone, Debug, clap::Parser)]
pub struct Args {
    /// The name of the Node object of the machine this runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// The namespace that holds the Secret `lightship-heartbeat`.
    #[arg(long, env = "LIGHTSHIP_NAMESPACE", default_value = "lightship-system")]
    pub namespace: String,

    /// Signs heartbeats with a key that everybody knows instead of that of the Secret, which is then not
    /// read: whoever can send to the heartbeat port can take addresses over. For networks where nobody
    /// else can. The same on all nodes.
    #[arg(long, env = "LIGHTSHIP_INSECURE_HEARTBEATS")]
    pub insecure_heartbeats: bool,

    /// The main network interface, on the LAN of the nodes. Default: the one that carries the
    /// node's InternalIP. VIPs of other LANs are announced on the node's interfaces there.
    #[arg(long)]
    pub uplink: Option<String>,

    /// `auto` directs traffic over all nodes by IPVS where the kernel can, and else only
    /// announces; the others insist on one of the two.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,

    /// How often a heartbeat is sent, in milliseconds.
    #[arg(long, default_value = "70", value_parser = milliseconds, value_name = "MS")]
    pub heartbeat_interval: Duration,

    /// After how many silent intervals a node counts as gone.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub heartbeat_misses: u32,

    /// The UDP port of heartbeats.
    #[arg(long, default_value_t = 7733)]
    pub heartbeat_port: u16,

    /// What a cordon does to the addresses of a node: `keep` them until its speaker stops, or
    /// `move` them to other nodes. The same on all nodes.
    #[arg(long, value_enum, default_value_t = Cordon::Keep)]
    pub cordon: Cordon,

    /// Once ownership has been calm for so many seconds, one address is moved to even the
    /// spread out or to a preferred node, and so on. 0: never. The same on all nodes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=86_400), value_name = "S")]
    pub rebalance_after: u32,

    /// How long a node that died, drained or lost its endpoints stays in the directors' tables at
    /// weight 0, in seconds, 1 to 3600. The same on all nodes.
    #[arg(long, default_value = "30", value_parser = grace, value_name = "S")]
    pub removal_grace: Duration,

    /// How long to ask the LAN whether another machine uses an address before it is announced for
    /// the first time ever, in milliseconds, 0 to 2000.
    #[arg(long, default_value = "20", value_parser = short_wait, value_name = "MS")]
    pub conflict_wait: Duration,

    /// Where metrics and probes are served over HTTP: an address with a port, or `none`. The default
    /// is every address of the node.
    #[arg(
        long,
        env = "LIGHTSHIP_METRICS_ADDRESS",
        default_value = "[::]:7734",
        value_name = "ADDRESS"
    )]
    pub metrics_address: AdminAddress,

    /// Where the last known state is kept over a restart of the speaker. It should not
    /// outlive a boot.
    #[arg(long, default_value = STATE_FILE)]
    pub state_file: PathBuf,

    /// A kubeconfig file. Default: the Pod's service account.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// `text` for people, `json` for machines.
    #[arg(long, env = "LIGHTSHIP_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: a level, or a filter such as `info,lightship_core=debug` (what it decides and why).
    /// The client's own lines are left out by default: it logs every attempt of an outage,
    /// which the speaker reports once.
    #[arg(
        long,
        env = "LIGHTSHIP_LOG",
        default_value = "info,kube_client=off,kube_runtime=off"
    )]
    pub log_level: String,
}

/// Which forwarding modes are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// DirectRouting where the kernel can, else Announce.
    Auto,
    /// DirectRouting or fail.
    DirectRouting,
    /// Never a director.
    Announce,
}

/// What a cordon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cordon {
    /// Nothing: a cordoned node forwards as before.
    Keep,
    /// Its addresses move, as long as other nodes can own them.
    Move,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms @ 20..=10_000) => Ok(Duration::from_millis(ms)),
        _ => Err("a whole number of milliseconds from 20 to 10000 is needed".into()),
    }
}

fn grace(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=3_600) => Ok(Duration::from_secs(seconds)),
        _ => Err("a whole number of seconds from 1 to 3600 is needed".into()),
    }
}

fn short_wait(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms @ 0..=2_000) => Ok(Duration::from_millis(ms)),
        _ => Err("a whole number of milliseconds from 0 to 2000 is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn defaults_are_those_that_were_measured() {
        let args = Args::parse_from(["lightship-speaker", "--node-name", "n"]);
        let given =
            lightship_membership::Config::new(args.heartbeat_interval, args.heartbeat_misses);
        assert_eq!(given, lightship_membership::Config::default());
        assert_eq!(given.timeout(), Duration::from_millis(280));
        assert_eq!(args.removal_grace, lightship_core::grace::DEFAULT);
    }

    #[test]
    fn a_command_needs_no_node_name_and_running_does() {
        let cli = Cli::try_parse_from(["lightship-speaker", "cleanup"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Cleanup { .. })));
        let error = Cli::try_parse_from(["lightship-speaker"]).unwrap_err();
        assert!(error.to_string().contains("--node-name"), "{error}");
        let cli = Cli::try_parse_from(["lightship-speaker", "--node-name", "n"]).unwrap();
        assert_eq!(cli.run.unwrap().node_name, "n");
    }

    #[test]
    fn a_bad_interval_names_the_bounds() {
        let error = Args::try_parse_from([
            "lightship-speaker",
            "--node-name",
            "n",
            "--heartbeat-interval",
            "5",
        ]);
        assert!(error.unwrap_err().to_string().contains("from 20 to 10000"));
    }

    #[test]
    fn the_removal_grace_has_bounds() {
        for (text, fine) in [("1", true), ("3600", true), ("0", false), ("3601", false)] {
            let words = [
                "lightship-speaker",
                "--node-name",
                "n",
                "--removal-grace",
                text,
            ];
            match Args::try_parse_from(words) {
                Ok(args) => assert!(fine, "{text}: {:?}", args.removal_grace),
                Err(error) => {
                    assert!(
                        !fine && error.to_string().contains("from 1 to 3600"),
                        "{error}"
                    );
                }
            }
        }
    }
}
