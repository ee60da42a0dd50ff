//! One lab for all tests of a file, and what they share.
//!
//! The tests of a file run one after another on one lab. When the last has ended, well or
//! not, the lab is ended too, and what is left on the machine is itself a test. With
//! `LIGHTSHIP_KEEP_LAB=1` the lab stays up, for a look at it or for the next run.

use std::env;
use std::net::IpAddr;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use lightship_e2e::drops::Drops;
use lightship_e2e::leftovers::Snapshot;
use lightship_e2e::{scene, vip};
use lightship_lab::options::Options;
use lightship_lab::progress::{self, Progress};
use lightship_lab::{How, Lab, deps};

/// A test: it gets a healthy lab with pods, and may break what [`scene::heal`] heals.
pub(crate) type Test = fn(&mut Lab) -> Result<()>;

/// Runs a file's lists of tests on a lab of those options, each under its name after `prefix`.
pub(crate) fn main(
    options: Result<Options>,
    prefix: &str,
    lists: &[&[(&'static str, Test)]],
) -> ExitCode {
    let arguments = Arguments::from_args();
    let options = match options {
        Ok(options) => options,
        Err(error) => {
            eprintln!("these tests cannot run here: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let shared: Arc<Mutex<Option<Shared>>> = Arc::default();
    let trials = lists
        .iter()
        .copied()
        .flatten()
        .map(|(name, test)| {
            let (lab, test, options) = (Arc::clone(&shared), *test, options.clone());
            Trial::test(format!("{prefix}{name}"), move || {
                run(&lab, &options, test).map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let before = match ready() {
        Ok(before) => before,
        Err(error) => {
            eprintln!("these tests cannot run here: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let arguments = Arguments {
        // There is one lab.
        test_threads: Some(1),
        ..arguments
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    let used = shared
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .is_some();
    if let Err(error) = end(used, &before, conclusion.has_failed()) {
        eprintln!("test lab_down_leaves_nothing ... FAILED: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Checks what all of it needs, before the first test.
fn ready() -> Result<Snapshot> {
    deps::require_root()?;
    progress::watch_signals()?;
    deps::install(deps::LAB, Progress::on_stderr())?;
    Snapshot::take()
}

fn keep() -> bool {
    env::var_os("LIGHTSHIP_KEEP_LAB").is_some()
}

/// The one lab, and whether its pool and pods are there.
struct Shared {
    lab: Lab,
    prepared: bool,
}

fn run(shared: &Mutex<Option<Shared>>, options: &Options, test: Test) -> Result<()> {
    progress::check()?;
    // A test that panicked left its lock poisoned, and the lab to be healed as after any other.
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let Shared { lab, prepared } = match &mut *shared {
        Some(shared) => shared,
        none => none.insert(Shared {
            lab: lightship_lab::up(options, Progress::on_stderr())?,
            prepared: false,
        }),
    };
    scene::heal(lab).context("the lab is not whole before the test")?;
    // Again when it failed before the first test: no later one can do without.
    if !*prepared {
        scene::prepare(lab)?;
        *prepared = true;
        figure("lab and pods up after", start.elapsed());
    }
    let outcome = timed(lab, test);
    let Err(error) = outcome else {
        return Ok(());
    };
    // Real kernels, real kube-proxy, and a machine with other work: what fails once and then
    // passes is said aloud, and is worth a look, but does not stop everybody's work.
    eprintln!("    FAILED, tried once more: {error:#}");
    progress::check()?;
    revive(lab)?;
    scene::heal(lab).context("the lab is not whole again after the failure")?;
    timed(lab, test).with_context(|| format!("failed twice, first: {error:#}"))?;
    eprintln!("    PASSED ONLY AT THE SECOND ATTEMPT");
    Ok(())
}

/// Boots nodes anew whose timers stand still: in a kernel of User Mode Linux the one clock interrupt can
/// get lost for good, and then nothing there that sleeps wakes again, kube-proxy for one.
fn revive(lab: &mut Lab) -> Result<()> {
    for node in lab.node_names() {
        // One that a fault has stopped is healed otherwise.
        let Ok(mut command) = lab.exec_command(&node, &["sleep".to_owned(), "0.1".to_owned()])
        else {
            continue;
        };
        let mut sleeper = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut ended = false;
        while !ended && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            ended = sleeper.try_wait()?.is_some();
        }
        if !ended {
            let _ = sleeper.kill();
            sleeper.wait()?;
            eprintln!("    the timers of {node} stand still; it is booted anew");
            lab.fail(&node, How::Crash)?;
        }
    }
    Ok(())
}

fn timed(lab: &mut Lab, test: Test) -> Result<()> {
    let before = Drops::read(lab)?;
    let start = Instant::now();
    let outcome = test(lab);
    figure("took", start.elapsed());
    if outcome.is_err() {
        match before.since(lab) {
            Ok(dropped) => eprintln!("    counted meanwhile: {}", dropped.join(", ")),
            Err(error) => eprintln!("    what was dropped meanwhile is not known: {error:#}"),
        }
    }
    outcome
}

/// Prints a time that was measured.
pub(crate) fn figure(what: &str, span: Duration) {
    eprintln!("    {what} {:.1} s", span.as_secs_f64());
}

/// Ends the lab and sees that nothing is left of it.
fn end(used: bool, before: &Snapshot, failed: bool) -> Result<()> {
    if !used {
        return Ok(());
    }
    if keep() {
        eprintln!("The lab stays up (LIGHTSHIP_KEEP_LAB); `cargo xtask lab down` ends it.");
        return Ok(());
    }
    progress::forget_interrupt();
    lightship_lab::down(failed, Progress::on_stderr())?;
    let mut left = before.added_since()?;
    // The logs of a failure are kept on purpose.
    left.retain(|what| !(failed && what.starts_with("folder")));
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    eprintln!("test lab_down_leaves_nothing ... ok");
    Ok(())
}

/// A Service that is deleted when the test has ended, and with it its addresses.
pub(crate) struct Served {
    name: String,
    /// Its addresses, IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Served {
    /// Makes it and waits until all nodes serve it.
    pub(crate) fn new(lab: &Lab, wish: &scene::Wish) -> Result<Self> {
        let mut served = Self {
            name: wish.name.to_owned(),
            addresses: Vec::new(),
        };
        match scene::service(lab, wish) {
            Ok(addresses) => served.addresses = addresses,
            Err(error) => {
                let _ = scene::delete_service(lab, wish.name);
                return Err(error);
            }
        }
        Ok(served)
    }

    /// Runs the test on it, then deletes it.
    pub(crate) fn during(
        lab: &mut Lab,
        wish: &scene::Wish,
        test: impl FnOnce(&mut Lab, &[IpAddr]) -> Result<()>,
    ) -> Result<()> {
        let served = Self::new(lab, wish)?;
        let outcome = test(lab, &served.addresses);
        let healed = scene::heal(lab);
        let deleted = scene::delete_service(lab, &served.name);
        outcome.and(healed).and(deleted)
    }
}

/// Waits until another node than `old` owns an address, and says why it moved.
pub(crate) fn moved_from(lab: &Lab, address: IpAddr, old: &str) -> Result<vip::Vip> {
    let limit = Duration::from_secs(20);
    let vip = vip::wait(lab, address, "has another owner", limit, |vip| {
        vip.owner.as_deref().is_some_and(|owner| owner != old)
    })?;
    ensure!(
        vip.moved.as_ref().is_some_and(|(from, ..)| from == old),
        "the last move does not tell where it came from: {vip:?}"
    );
    Ok(vip)
}
