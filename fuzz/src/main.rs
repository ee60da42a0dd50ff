//! `cargo xtask fuzz`: a target for as long as one likes, or one input again.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use lightship_fuzz::{Runner, TARGETS, runner};
use nix::sys::resource::{Resource, setrlimit};

/// A decoder that asks for more is broken, in bytes.
const MEMORY: u64 = 2 << 30;

#[derive(Parser)]
#[command(name = "cargo xtask fuzz", about = "Gives a decoder hostile input")]
struct Cli {
    /// arp, ndp, heartbeat, snapshot or ipvs.
    target: String,
    /// How long: 30s, 10m or 8h.
    #[arg(long = "for", value_parser = time, default_value = "1m")]
    time: Duration,
    /// Start of the chance; default: the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this input, as a failed run left it.
    #[arg(long, conflicts_with_all = ["seed", "write_seeds"])]
    input: Option<PathBuf>,
    /// Write the corpus anew from what the encoders say.
    #[arg(long)]
    write_seeds: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write 30s, 10m or 8h");
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(number.saturating_mul(unit)))
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let found = TARGETS.iter().find(|target| target.name == cli.target);
    let Some(target) = found else {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!("no target {:?}; there are {names}", cli.target);
    };
    if cli.write_seeds {
        let folder = runner::corpus(target);
        fs::create_dir_all(&folder)?;
        for (name, seed) in (target.seeds)() {
            fs::write(folder.join(name), seed)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).context("cannot limit the memory")?;
    if let Some(path) = cli.input {
        let input = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        println!("{}", (target.run)(&input));
        return Ok(ExitCode::SUCCESS);
    }
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = cli
        .seed
        .unwrap_or(clock.map_or(0, |now| now.as_nanos() as u64));
    println!("{}, seed {seed}", target.name);
    match Runner::new(target, seed)?.run(cli.time) {
        Ok(report) => {
            println!("{report}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            let path = PathBuf::from(format!("fuzz-{}-{seed}", target.name));
            fs::write(&path, &failure.input)?;
            eprintln!("{}\nthe input is in {}", failure.message, path.display());
            Ok(ExitCode::FAILURE)
        }
    }
}
