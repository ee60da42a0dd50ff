//! A lab that runs: what the demo, the tests and every command hold.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::net;
use crate::pki;
use crate::process::Process;
use crate::sh;
use crate::state::{LabDir, Lock, Phase, State};
use crate::substrate::{self, CLIENT_NETNS, LAB_NETNS, Substrate};

/// A lab and what is known about it. Methods that change it take its lock, so
/// that two commands at once do not undo each other's work.
#[derive(Debug)]
pub struct Lab {
    pub(crate) dir: LabDir,
    pub(crate) state: State,
}

impl Lab {
    /// The lab that is up.
    ///
    /// # Errors
    /// When there is none; the message says how to get one.
    pub fn open() -> Result<Self> {
        let dir = LabDir::from_environment();
        match State::load(&dir)? {
            Some(state) if state.phase == Phase::Up => Ok(Self { dir, state }),
            Some(_) => bail!("the lab is not complete; `cargo xtask lab up` starts it afresh"),
            None => bail!("there is no lab; `cargo xtask lab up` makes one"),
        }
    }

    /// What is known about it, as of the last change through this value.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its folder.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// The nodes' names, in order.
    pub fn node_names(&self) -> Vec<String> {
        let nodes = self.state.nodes.iter();
        nodes.map(|node| node.spec.name.clone()).collect()
    }

    /// What its nodes are made of.
    pub fn substrate(&self) -> Box<dyn Substrate> {
        substrate::of(self.state.options.substrate)
    }

    /// A limit of time for what usually takes at most `usual`: longer where nodes are emulated.
    pub fn within(&self, usual: Duration) -> Duration {
        usual * self.state.pace
    }

    /// A command that runs `argv` on the client host.
    pub fn client_command<S: AsRef<std::ffi::OsStr>>(&self, argv: &[S]) -> Command {
        net::command_in(CLIENT_NETNS, argv)
    }

    /// Runs `argv` on the client host.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn client<S: AsRef<std::ffi::OsStr>>(&self, argv: &[S]) -> Result<Output> {
        sh::output(self.client_command(argv), None)
    }

    /// A command that runs `argv` on a node.
    ///
    /// # Errors
    /// When there is no such node, or it does not run.
    pub fn exec_command(&self, node: &str, argv: &[String]) -> Result<Command> {
        let process = self.node_process(node)?;
        let spec = &self.state.node(node)?.spec;
        self.substrate().exec(spec, process.pid, argv)
    }

    /// Runs `argv` on a node.
    ///
    /// # Errors
    /// When there is no such node, or it does not run or cannot be reached.
    pub fn exec(&self, node: &str, argv: &[&str]) -> Result<Output> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        sh::output(self.exec_command(node, &argv)?, None)
    }

    /// Runs a line of shell on a node and gives what it says.
    ///
    /// # Errors
    /// As [`Lab::exec`], or when it fails, with what it said then.
    pub fn shell(&self, node: &str, line: &str) -> Result<String> {
        let output = self.exec(node, &["sh", "-c", line])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{line} on {node}: {}", said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The process that is the node.
    pub(crate) fn node_process(&self, node: &str) -> Result<&Process> {
        self.state.node(node)?;
        self.state
            .processes
            .get(node)
            .filter(|process| process.is_alive())
            .with_context(|| format!("{node} does not run (`cargo xtask lab heal {node}`)"))
    }

    /// `kubectl` with all rights, with the caller's standard streams.
    pub fn kubectl_command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = net::command_in(LAB_NETNS, &[&self.state.kubernetes.kubectl]);
        command
            .env("KUBECONFIG", self.dir.kubeconfig(pki::ADMIN))
            .args(arguments);
        command
    }

    /// What `kubectl` printed.
    ///
    /// # Errors
    /// When it failed, with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        sh::run(self.kubectl_command(arguments))
    }

    /// An object or list, from `kubectl … -o json`.
    ///
    /// # Errors
    /// When `kubectl` failed.
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Creates or changes the objects of a manifest (YAML or JSON).
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let command =
            self.kubectl_command(&["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        sh::run_with_input(command, Some(manifest))
    }

    /// Starts a process of this lab and remembers it.
    pub(crate) fn spawn(&mut self, name: &str, command: &Command) -> Result<()> {
        let process = Process::spawn(command, &self.dir.log(name), self.dir.root())?;
        self.state.processes.insert(name.to_owned(), process);
        self.state.save(&self.dir)
    }

    /// Waits until a process of this lab serves, or ends.
    pub(crate) fn wait_serving(
        &self,
        name: &str,
        serves: impl Fn(&Self) -> Result<bool>,
    ) -> Result<()> {
        let process = self.state.processes.get(name);
        sh::wait_for(
            &format!("{name} serves"),
            Duration::from_secs(90),
            Duration::from_millis(50),
            || {
                if !process.is_some_and(Process::is_alive) {
                    bail!("{name} ended: see {}", self.dir.log(name).display());
                }
                Ok(serves(self)?.then_some(()))
            },
        )
    }

    /// Takes the lock and reads the state again, as it may have changed meanwhile.
    pub(crate) fn lock(&mut self) -> Result<Lock> {
        let lock = self.dir.lock()?;
        self.state = State::load(&self.dir)?.context("the lab is gone")?;
        Ok(lock)
    }
}
