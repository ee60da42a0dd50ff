//! `cargo xtask demo`: the whole path for a person who sees it for the first time.

mod steps;
mod story;

use std::process::ExitCode;
use std::time::Instant;

use crate::substrate::Substrate;
use anyhow::Result;
use lightship_lab::Lab;
use lightship_lab::addressing::Families;
use lightship_lab::options::{Options, SubstrateKind};
use lightship_lab::progress::{self, Progress};
use lightship_lab::state::LabDir;

use story::Story;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the lab up, also after a failure.
    #[arg(long)]
    keep: bool,
    /// What nodes are made of. Default: what this machine's kernel can do (see `lab up`).
    #[arg(long, default_value = "auto")]
    substrate: Substrate,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    progress::watch_signals()?;
    let start = Instant::now();
    let mut story = Story::new();
    story.title("Lightship: one floating address, three nodes, and the crash of one of them.");
    // Somebody's lab is used as it is, and left to them.
    let existing = Lab::open().ok();
    let ours = existing.is_none();
    let outcome = match existing {
        Some(lab) => {
            story.say("A lab is up already: it is used, and stays up.");
            Ok(lab)
        }
        None => up(args, &mut story),
    }
    .and_then(|mut lab| {
        let told = steps::tell(&mut lab, &mut story);
        let stays = told.is_ok() && (args.keep || !ours);
        told.and_then(|()| match stays {
            true => steps::clean(&mut lab, !args.keep),
            false => Ok(()),
        })
    });
    finish(args, ours, &mut story, &outcome)?;
    match outcome {
        Ok(()) => {
            let seconds = start.elapsed().as_secs();
            story.say(&format!("Done after {seconds} s."));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let logs = LabDir::from_environment().logs();
            eprintln!("\nThe demo failed: {error:#}");
            eprintln!("Logs are in {}.", logs.display());
            if !args.keep && ours {
                eprintln!("To look around after a failure: cargo xtask demo --keep");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn up(args: &Args, story: &mut Story) -> Result<Lab> {
    let substrate = args.substrate.kind();
    let options = Options::resolve(3, substrate, None, Families::Dual, true)?;
    story.chapter("A Kubernetes cluster");
    story.say(match options.substrate {
        SubstrateKind::Uml => {
            "A real control plane and three nodes, each with a Linux kernel of its own\n\
             (User Mode Linux), real kube-proxy and a Lightship speaker; and a client on the\n\
             same LAN. All of it lives in namespaces of this machine and is removed at the end."
        }
        SubstrateKind::Qemu => {
            "A real control plane and three nodes, virtual machines with Debian's own kernel, with\n\
             real kube-proxy and a Lightship speaker on each; and a client on the same LAN. All of\n\
             it is removed at the end."
        }
        SubstrateKind::Netns => {
            "A real control plane and three nodes that are namespaces of this machine's kernel,\n\
             with real kube-proxy and a Lightship speaker on each; and a client on the same LAN.\n\
             All of it is removed at the end."
        }
    });
    lightship_lab::up(&options, Progress::on_stderr())
}

/// Ends the lab, unless it is to be kept.
fn finish(args: &Args, ours: bool, story: &mut Story, outcome: &Result<()>) -> Result<()> {
    progress::forget_interrupt();
    if !ours {
        return Ok(());
    }
    if args.keep {
        story.chapter("The lab stays up");
        story.say(
            "Look around: cargo xtask lab status, cargo xtask lab kubectl -- get vip.\n\
             End it: cargo xtask lab down.",
        );
        return Ok(());
    }
    story.chapter("Cleanup");
    lightship_lab::down(outcome.is_err(), Progress::on_stderr())
}
