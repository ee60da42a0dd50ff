//! `probe once` and `probe wait`: who answers, and since when.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::exchange::{Failure, ask};
use super::{Span, Target, emit, interrupted, realtime_ns};
use crate::pod::Identity;

/// Arguments of `probe once` and `probe wait`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// How long an answer may take in all.
    #[arg(long, default_value = "30s")]
    timeout: Span,
    /// Only with `wait`: time between two attempts, each begun whether or not those
    /// before it have ended.
    #[arg(long, default_value = "5ms")]
    every: Span,
}

#[derive(Serialize)]
struct Answer {
    /// When the answer came (CLOCK_REALTIME, ns).
    at_ns: u64,
    /// When the attempt that was answered was begun.
    asked_ns: u64,
    /// Attempts begun until then.
    attempts: usize,
    #[serde(flatten)]
    identity: Identity,
}

#[derive(Serialize)]
struct NoAnswer {
    error: Failure,
    attempts: usize,
}

/// Asks once.
pub(super) async fn once(args: &Args) -> Result<ExitCode> {
    let asked_ns = realtime_ns();
    match ask(args.target, args.timeout.0).await {
        Ok(identity) => answered(asked_ns, 1, identity),
        Err(error) => nobody(error, 1),
    }
}

/// Asks until somebody answers. An attempt that hangs (a lost SYN is sent again after a
/// second only) must not hide that a later one would succeed: so they overlap.
pub(super) async fn first(args: &Args) -> Result<ExitCode> {
    let end = Instant::now() + args.timeout.0;
    let mut attempts = tokio::task::JoinSet::new();
    let mut begun = 0;
    let mut last = Failure::Timeout;
    let mut pace = tokio::time::interval(args.every.0);
    let stop = interrupted();
    tokio::pin!(stop);
    while Instant::now() < end {
        tokio::select! {
            () = &mut stop => break,
            _ = pace.tick() => {
                begun += 1;
                let target = args.target;
                attempts.spawn(async move {
                    (realtime_ns(), ask(target, Duration::from_millis(900)).await)
                });
            }
            Some(Ok((asked_ns, answer))) = attempts.join_next() => match answer {
                Ok(identity) => return answered(asked_ns, begun, identity),
                Err(error) => last = error,
            }
        }
    }
    nobody(last, begun)
}

fn answered(asked_ns: u64, attempts: usize, identity: Identity) -> Result<ExitCode> {
    emit(&Answer {
        at_ns: realtime_ns(),
        asked_ns,
        attempts,
        identity,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn nobody(error: Failure, attempts: usize) -> Result<ExitCode> {
    emit(&NoAnswer { error, attempts })?;
    Ok(ExitCode::FAILURE)
}
