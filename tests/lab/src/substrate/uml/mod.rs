//! Nodes with a kernel of their own: User Mode Linux processes.
//!
//! Each node is one Linux kernel (Debian's 6.1) that runs as a process of this
//! machine, inside [`LAB_NETNS`], with two taps: the uplink on the LAN's bridge and a
//! management link. It boots from this machine's files ([`init`] says how it is kept
//! from writing to them). Killing the process is a real crash of a node.
//!
//! UML runs each process of the guest in a child of its own; those share the
//! main process's session, as the lab starts every node in one.

mod init;
mod xstate;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{LAB_NETNS, NodeSpec, Substrate, guest};
use crate::agent_config::AgentConfig;
use crate::deps::{self, Need, need};
use crate::{net, process};

/// Memory of a node. UML keeps it in an unlinked file in `/dev/shm` (or `$TMPDIR`), which
/// grows as the guest uses it.
const MEMORY: &str = "512M";

/// The kernels whose modules Debian's package brings.
const MODULES: &str = "/usr/lib/uml/modules";

/// Nodes as User Mode Linux processes.
#[derive(Clone, Copy, Debug)]
pub struct Uml;

impl Substrate for Uml {
    fn name(&self) -> &'static str {
        "uml"
    }

    fn needs(&self) -> &'static [Need] {
        const NEEDS: &[Need] = &[
            need("linux.uml", "user-mode-linux"),
            need("iptables-legacy", "iptables"),
            need("cc", "gcc"),
            need("taskset", "util-linux"),
        ];
        NEEDS
    }

    fn has_management(&self) -> bool {
        true
    }

    fn prepare(&self, node: &NodeSpec) -> Result<Command> {
        let config = AgentConfig::read(&node.config)?;
        guest::check_visible(node, &config)?;
        let uml = deps::find("linux.uml").context("linux.uml is not installed")?;
        // One for all nodes.
        let library = xstate::build(node.dir.parent().unwrap_or(&node.dir))?;
        let script = write_script(node, &config)?;
        guest::add_taps(node)?;

        let mut command = net::command_in(LAB_NETNS, &["sh", "-c", guest::BOOT, "boot"]);
        command
            .arg("env")
            .arg(preload(&library))
            .args(["taskset", "--cpu-list", &processor(node.index)?.to_string()])
            .arg(uml)
            .args([
                format!("mem={MEMORY}"),
                format!("umid={}", node.name),
                format!("uml_dir={}", node.dir.join("uml").display()),
            ])
            // Read-only: the script mounts what may be written.
            .args(["rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init={}", script.display()))
            .arg(vector("vec0", &node.port(), &node.mac))
            .arg(vector(
                "vec1",
                &node.management_port(),
                &guest::management_mac(node.index),
            ))
            // Nearly a second of each boot went to measuring RAID checksums.
            .arg("initcall_blacklist=raid6_select_algo")
            // The console is the log. A panic (the agent ended) ends the process.
            .args([
                "con=null",
                "con0=null,fd:1",
                "quiet",
                "panic=-1",
                "noreboot",
            ]);
        Ok(command)
    }

    fn crash(&self, node: &NodeSpec, pid: u32) -> Result<()> {
        // The main process first: it alone would start others.
        process::send(pid, Signal::SIGKILL)?;
        let start = Instant::now();
        loop {
            let rest = members(node, pid);
            if rest.is_empty() {
                return Ok(());
            }
            for pid in &rest {
                process::send(*pid, Signal::SIGKILL)?;
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("processes of {} do not end: {rest:?}", node.name);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn pause(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        // The guest's processes run only as far as their next system call or interrupt, which
        // the main process would serve. They must not be signalled: UML would take
        // the signal for one of the guest's.
        process::send(pid, Signal::SIGSTOP)
    }

    fn resume(&self, _: &NodeSpec, pid: u32) -> Result<()> {
        process::send(pid, Signal::SIGCONT)
    }

    fn clear(&self, node: &NodeSpec) -> Result<()> {
        for pid in members(node, 0) {
            process::send(pid, Signal::SIGKILL)?;
        }
        guest::remove_taps(node)?;
        let control = node.dir.join("uml");
        if control.exists() {
            fs::remove_dir_all(&control)
                .with_context(|| format!("cannot remove {}", control.display()))?;
        }
        Ok(())
    }

    fn exec(&self, node: &NodeSpec, _: u32, argv: &[String]) -> Result<Command> {
        Ok(guest::exec(node, argv))
    }
}

/// The variable that loads the library before a program; `env` sets it, so that it reaches UML alone.
fn preload(library: &Path) -> OsString {
    let mut variable = OsString::from("LD_PRELOAD=");
    variable.push(library);
    variable
}

fn write_script(node: &NodeSpec, config: &AgentConfig) -> Result<PathBuf> {
    let system = deps::find("iptables-legacy")
        .and_then(|file| Some(file.parent()?.to_owned()))
        .context("iptables-legacy is not installed")?;
    let script = init::Script {
        name: &node.name,
        modules: Path::new(MODULES),
        writable: guest::writable(node, config),
        ipvs_mode: guest::wants_ipvs_mode(config),
        system: &system,
        agent: &node.agent,
        config: &node.config,
    };
    guest::write_script(node, &script.text())
}

/// The processor of this machine that node `index` runs on.
///
/// A guest has one processor, and UML hands it to and fro between its own process and that of
/// the guest's program at each system call and page fault. On one
/// processor that is a plain switch; across two, each handing over wakes the other processor up,
/// which in a virtual machine costs so much that all of UML is six times slower.
fn processor(index: u8) -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("which processors are ours?")?;
    let allowed: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let turn = usize::from(index) % allowed.len().max(1);
    allowed.get(turn).copied().context("no processor is ours")
}

/// The command line's word for a network device.
fn vector(device: &str, tap: &str, mac: &str) -> String {
    format!("{device}:transport=tap,ifname={tap},depth=128,gro=1,mac={mac}")
}

/// Every process of the node: those in the session that `main` leads, and those that
/// show the node's own control folder on their command line.
fn members(node: &NodeSpec, main: u32) -> Vec<u32> {
    let folder = format!("uml_dir={}", node.dir.join("uml").display()).into_bytes();
    process::all()
        .into_iter()
        .filter(|pid| {
            let by_session = main != 0 && session(*pid) == Some(main);
            let by_folder = || {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == folder))
            };
            let alive = process::stat(*pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'));
            alive && (by_session || by_folder())
        })
        .collect()
}

/// Session of a process: field 6 of `/proc/PID/stat`.
fn session(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(')')?.1;
    rest.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh;

    #[test]
    fn nodes_are_spread_over_the_processors() {
        let used: std::collections::BTreeSet<usize> =
            (1..=64).map(|index| processor(index).unwrap()).collect();
        let there = std::thread::available_parallelism().unwrap().get();
        // A quota may allow less than the processors that are ours, never more.
        assert!(used.len() >= there.min(64));
    }

    #[test]
    fn sessions_are_read_from_proc() {
        let own = session(std::process::id()).unwrap();
        let said = sh::run(sh::command(&[
            "ps",
            "-o",
            "sid=",
            "-p",
            &std::process::id().to_string(),
        ]))
        .unwrap();
        assert_eq!(said.trim(), own.to_string());
    }
}
