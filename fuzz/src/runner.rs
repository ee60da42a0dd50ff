//! Runs of one target.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::mutate::{Rng, mutate};
use crate::targets::Target;

/// How many inputs are tried between two looks at the clock.
const BATCH: u32 = 64;

/// The most inputs that are kept. What combines many outcomes would find new ones for ever.
const KEPT: usize = 4096;

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// Inputs given to the target.
    pub inputs: u64,
    /// Different things that the target did with them, and how often.
    pub outcomes: HashMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} inputs", self.inputs)?;
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        for (outcome, count) in outcomes {
            write!(f, "\n{count:>10}  {outcome}")?;
        }
        Ok(())
    }
}

/// An input that the target does not stand.
#[derive(Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// The panic's words.
    pub message: String,
}

/// A target with its inputs.
#[derive(Debug)]
pub struct Runner {
    target: &'static Target,
    pool: Vec<Vec<u8>>,
    report: Report,
    rng: Rng,
}

/// Where the corpus of a target lies.
pub fn corpus(target: &Target) -> PathBuf {
    // Target directories are copied and shared, so what was compiled in may be another checkout.
    let here = env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.join("corpus").join(target.name)
}

impl Runner {
    /// With the target's corpus.
    ///
    /// # Errors
    /// When the corpus cannot be read, or is empty.
    pub fn new(target: &'static Target, seed: u64) -> Result<Self> {
        let folder = corpus(target);
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| format!("cannot read the corpus {}", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()?;
        paths.sort();
        ensure!(!paths.is_empty(), "no corpus in {}", folder.display());
        let pool = paths.iter().map(fs::read).collect::<std::io::Result<_>>()?;
        Ok(Self {
            target,
            pool,
            report: Report {
                inputs: 0,
                outcomes: HashMap::new(),
            },
            rng: Rng::new(seed),
        })
    }

    /// Tries the corpus as it is, and then made-up inputs for `time`.
    ///
    /// # Errors
    /// The first input that the target does not stand.
    pub fn run(mut self, time: Duration) -> Result<Report, Failure> {
        let end = Instant::now() + time;
        for at in 0..self.pool.len() {
            let input = self.pool[at].clone();
            self.attempt(input, false)?;
        }
        while Instant::now() < end {
            for _ in 0..BATCH {
                let mut input = self.pool[self.rng.below(self.pool.len())].clone();
                let other = self.rng.below(self.pool.len());
                mutate(&mut input, &self.pool[other], &mut self.rng);
                // Now and then the door itself is tried.
                if self.rng.below(8) != 0 {
                    (self.target.repair)(&mut input);
                }
                self.attempt(input, true)?;
            }
        }
        Ok(self.report)
    }

    fn attempt(&mut self, input: Vec<u8>, keep: bool) -> Result<(), Failure> {
        let run = self.target.run;
        match panic::catch_unwind(AssertUnwindSafe(|| run(&input))) {
            Ok(outcome) => {
                self.report.inputs += 1;
                let count = self.report.outcomes.entry(outcome).or_default();
                *count += 1;
                if keep && *count == 1 && self.pool.len() < KEPT {
                    self.pool.push(input);
                }
                Ok(())
            }
            Err(cause) => {
                let text = cause.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
                Err(Failure {
                    message: text.unwrap_or("a panic without words").to_owned(),
                    input,
                })
            }
        }
    }
}
