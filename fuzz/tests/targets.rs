//! Each target for some seconds, from its corpus.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lightship_fuzz::{Runner, TARGETS};
use nix::sys::resource::{Resource, setrlimit};

/// Per target; all run at once.
const TIME: Duration = Duration::from_secs(6);
/// A decoder that asks for more is broken, in bytes; stacks of the tests' threads included.
const MEMORY: u64 = 2 << 30;

fn fuzz(name: &str) {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).unwrap();
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    // The chance is new with each run: over many runs more is tried.
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = clock.as_nanos() as u64;
    match Runner::new(target, seed).unwrap().run(TIME) {
        Ok(report) => {
            println!("{name}: {report}");
            // A target that refuses everything at the door tests nothing.
            assert!(report.inputs > 100, "only {} inputs", report.inputs);
            assert!(report.outcomes.len() > 4, "{report}");
        }
        Err(failure) => panic!(
            "{name}, seed {seed}: {}\ninput: {}",
            failure.message,
            failure
                .input
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        ),
    }
}

#[test]
fn arp() {
    fuzz("arp");
}

#[test]
fn ndp() {
    fuzz("ndp");
}

#[test]
fn heartbeat() {
    fuzz("heartbeat");
}

#[test]
fn snapshot() {
    fuzz("snapshot");
}

#[test]
fn ipvs() {
    fuzz("ipvs");
}
