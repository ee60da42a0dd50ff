//! `lab up`: from nothing, from leftovers, or from a lab that lost a process, to a lab that runs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries::{self, Binaries};
use crate::control_plane::{apiserver, controller_manager, etcd};
use crate::deps;
use crate::down;
use crate::k8s_build;
use crate::lab::Lab;
use crate::lightship;
use crate::net;
use crate::nodes;
use crate::options::Options;
use crate::pki;
use crate::progress::{self, Progress};
use crate::state::{self, Fault, LabDir, Phase, State};
use crate::substrate;

/// Brings up a lab with these options, or makes sure that one is up.
///
/// On failure and on interrupt (see [`progress::watch_signals`]) all of it is cleared away
/// again, but for the logs.
///
/// # Errors
/// When another lab is up, something is missing on this machine, or a part does not start.
pub fn up(options: &Options, progress: Progress) -> Result<Lab> {
    deps::require_root()?;
    let mut needs = deps::LAB.to_vec();
    needs.extend(substrate::of(options.substrate).needs());
    deps::install(&needs, progress)?;
    let dir = LabDir::from_environment();
    refuse_second(&dir)?;
    let lock = dir.lock()?;

    // A state that cannot be read was left by another version: cleared like any leftover.
    let found = State::load(&dir).unwrap_or(None);
    if let Some(state) = found.clone()
        && state.phase == Phase::Up
        && state.boot == state::boot_id()?
    {
        if state.options != *options {
            bail!(
                "a lab is up with other options ({}); `cargo xtask lab down` ends it",
                state.options
            );
        }
        let mut lab = Lab { dir, state };
        repair(&mut lab, progress)?;
        return Ok(lab);
    }
    if found.is_some() || !net::ours().is_empty() {
        progress.step("leftovers of an earlier lab cleared", || {
            down::clear(&dir, found.as_ref(), false)
        })?;
    }

    let sources = binaries::checkout().join("tests/lab/k8s");
    let kubernetes = k8s_build::kubernetes(&sources, progress)?;
    let ours = compile(options, progress)?;
    let mut lab = Lab {
        state: State {
            boot: state::boot_id()?,
            phase: Phase::Starting,
            options: options.clone(),
            made_netns_mount: !net::names_are_mounted(),
            pace: 1,
            processes: BTreeMap::new(),
            nodes: nodes::plan(&dir, options, &ours.agent, &kubernetes.built),
            kubernetes,
        },
        dir,
    };
    let outcome = start(&mut lab, &ours, progress);
    if let Err(error) = outcome {
        progress.say(&format!(
            "Cannot bring the lab up: {error:#}. Clearing away …"
        ));
        progress::forget_interrupt();
        if let Err(second) = down::clear(&lab.dir, Some(&lab.state), true) {
            progress.say(&format!("Not all could be cleared: {second:#}"));
        }
        let logs = lab.dir.logs();
        return Err(error.context(format!(
            "the lab did not come up (logs are kept in {})",
            logs.display()
        )));
    }
    drop(lock);
    Ok(lab)
}

/// Another folder's lab would want the same names and addresses.
fn refuse_second(dir: &LabDir) -> Result<()> {
    if let Some((pid, other)) = net::other_owner(dir.root()) {
        bail!(
            "a lab is up from another folder, {} (process {pid}); end it with \
             `LIGHTSHIP_LAB_DIR={} cargo xtask lab down`",
            other.display(),
            other.display()
        );
    }
    Ok(())
}

fn start(lab: &mut Lab, ours: &Binaries, progress: Progress) -> Result<()> {
    let options = lab.state.options.clone();
    lab.dir.create()?;
    lab.state.save(&lab.dir)?;
    lab.state.pace = lab.substrate().provide(&lab.dir.nodes(), progress)?;
    progress.step("networks: control plane, LAN and client", || {
        net::create(options.families)
    })?;
    progress.step("keys and certificates", || {
        pki::create(&lab.dir, options.families)
    })?;
    start_control_plane(lab, progress)?;
    if options.lightship {
        progress.step("Lightship's CRDs, roles and service accounts", || {
            lightship::install(lab)
        })?;
        progress.step("lightship-controller", || {
            lightship::start_controller(lab, &ours.controller, &[])
        })?;
    }
    let names = lab.node_names();
    progress.step(&format!("{} nodes booted", names.len()), || {
        let objects = nodes::objects(&lab.state.nodes, &options);
        lab.apply(&objects.to_string())?;
        nodes::write_configs(lab, |node| {
            let lightship = options.lightship;
            lightship.then(|| lightship::speaker(lab, &ours.speaker, node))
        })?;
        let substrate = lab.substrate();
        for name in &names {
            nodes::start(lab, &*substrate, name)?;
        }
        names
            .iter()
            .try_for_each(|name| nodes::wait_ready(lab, name))
    })?;
    let limit = lab.within(Duration::from_secs(60)).as_secs();
    progress.step("nodes Ready in Kubernetes", || {
        lab.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "node",
            "--all",
            &format!("--timeout={limit}s"),
        ])
    })?;
    progress.step(
        &format!(
            "kube-proxy ({}) has its rules on every node",
            options.proxy_mode
        ),
        || {
            names
                .iter()
                .try_for_each(|name| nodes::wait_proxy(lab, name))
        },
    )?;
    lab.state.phase = Phase::Up;
    lab.state.save(&lab.dir)
}

fn start_control_plane(lab: &mut Lab, progress: Progress) -> Result<()> {
    progress.step("etcd", || start_etcd(lab))?;
    progress.step("kube-apiserver", || start_api(lab))?;
    progress.step("kube-controller-manager", || start_controller_manager(lab))
}

fn start_etcd(lab: &mut Lab) -> Result<()> {
    fs::create_dir_all(lab.dir.etcd()).context("cannot make etcd's folder")?;
    let command = etcd::command(&lab.state.kubernetes.etcd, &lab.dir);
    lab.spawn(etcd::NAME, &command)?;
    lab.wait_serving(etcd::NAME, |_| etcd::serves())
}

/// Starts the API server and waits until it serves.
pub(crate) fn start_api(lab: &mut Lab) -> Result<()> {
    let program = &lab.state.kubernetes.apiserver;
    let command = apiserver::command(program, &lab.dir, lab.state.options.families);
    let mut tries = 0;
    loop {
        lab.spawn(apiserver::NAME, &command)?;
        let served = lab.wait_serving(apiserver::NAME, |lab| apiserver::serves(&lab.dir));
        let running = lab.state.processes.get(apiserver::NAME);
        tries += 1;
        // Right after one was killed, its port may still be in use: then the next one ends at once.
        if served.is_ok() || tries == 3 || running.is_some_and(crate::process::Process::is_alive) {
            return served;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Starts the controller manager, which comes to serve by itself.
pub(crate) fn start_controller_manager(lab: &mut Lab) -> Result<()> {
    let program = &lab.state.kubernetes.controller_manager;
    let command = controller_manager::command(program, &lab.dir);
    lab.spawn(controller_manager::NAME, &command)
}

fn compile(options: &Options, progress: Progress) -> Result<Binaries> {
    progress.step("controller, speaker and lab agent compiled", || {
        binaries::build(options.profile())
    })
}

/// Starts again what ended by itself, in a lab that is otherwise up.
fn repair(lab: &mut Lab, progress: Progress) -> Result<()> {
    let dead: Vec<String> = lab
        .state
        .processes
        .iter()
        .filter(|(_, process)| !process.is_alive())
        .map(|(name, _)| name.clone())
        .collect();
    if dead.is_empty() {
        progress.say("The lab is up already.");
        return Ok(());
    }
    let ours = compile(&lab.state.options, progress)?;
    for name in dead {
        progress.step(&format!("{name} started again"), || match name.as_str() {
            etcd::NAME => start_etcd(lab),
            apiserver::NAME => start_api(lab),
            controller_manager::NAME => start_controller_manager(lab),
            lightship::CONTROLLER => lightship::start_controller(lab, &ours.controller, &[]),
            node => restart_node(lab, node),
        })?;
    }
    Ok(())
}

/// Boots a node that has ended.
pub(crate) fn restart_node(lab: &mut Lab, name: &str) -> Result<()> {
    let substrate = lab.substrate();
    substrate.clear(&lab.state.node(name)?.spec)?;
    nodes::start(lab, &*substrate, name)?;
    nodes::wait_ready(lab, name)?;
    // What was unplugged or cut off meanwhile is so no more: its port is new.
    let node = lab.state.node_mut(name)?;
    node.faults.remove(&Fault::Crash);
    node.faults.remove(&Fault::Unplug);
    node.faults.remove(&Fault::Pause);
    lab.state.save(&lab.dir)
}
