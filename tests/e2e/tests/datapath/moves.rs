//! Moves by hand under load.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lightship_e2e::probe::{Probe, Stream};
use lightship_e2e::scene::Wish;
use lightship_e2e::vip;
use lightship_lab::Lab;

use crate::common::{Served, figure};

/// Requests that have to be answered, each on a connection of its own.
const REQUESTS: usize = 10_000;

/// Two streams of connections, and one of datagrams, with so many milliseconds between two requests each.
const EVERY: u32 = 4;

/// How long that takes at least.
const SPAN: Duration = Duration::from_secs(REQUESTS as u64 * EVERY as u64 / 2 / 1000);

/// The address goes from node to node while clients ask, by TCP and by UDP: not one request is lost.
pub(crate) fn ten_thousand(lab: &mut Lab) -> Result<()> {
    Served::during(lab, &Wish::local("moves").fresh(), |lab, vips| {
        let address = vips[0];
        let names = lab.node_names();
        let start = Instant::now();
        let mut streams = [
            Probe::stream(lab, address, EVERY, false)?,
            Probe::stream(lab, address, EVERY, false)?,
        ];
        let mut datagrams = Probe::stream(lab, address, EVERY, true)?;
        let mut moves = 0;
        while start.elapsed() < SPAN + Duration::from_secs(6) {
            let owner = vip::owner(lab, address)?;
            let at = names.iter().position(|name| *name == owner);
            let next = &names[(at.context("an unknown owner")? + 1) % names.len()];
            vip::move_to(lab, address, next)?;
            vip::wait(lab, address, "moves", Duration::from_secs(20), |vip| {
                vip.owner.as_ref() == Some(next)
            })?;
            moves += 1;
            thread::sleep(Duration::from_secs(1));
        }
        let (mut requests, mut failures) = (0, 0);
        for stream in &mut streams {
            let seen: Stream = stream.end()?;
            ensure!(seen.failures == 0, "after {moves} moves: {seen:?}");
            requests += seen.requests;
            failures += seen.failures;
        }
        let seen: Stream = datagrams.end()?;
        ensure!(seen.failures == 0, "UDP, after {moves} moves: {seen:?}");
        eprintln!("    0 of {} datagrams lost", seen.requests);
        figure("the streams ran for", start.elapsed());
        eprintln!("    {failures} of {requests} requests lost over {moves} moves");
        ensure!(moves >= 5, "{moves} moves only");
        // A busy machine may send fewer than it should.
        ensure!(requests >= REQUESTS, "{requests} requests only");
        ensure!(
            seen.requests >= REQUESTS / 4,
            "{} datagrams only",
            seen.requests
        );
        Ok(())
    })
}
