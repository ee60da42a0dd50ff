//! Moments from the speakers' logs, on the client's clock.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_lab::substrate::LAB_NETNS;
use lightship_lab::{Lab, control_address, sh};
use serde_json::Value;

/// Days from 1970-01-01 to a date of the Gregorian calendar (after Howard Hinnant's
/// `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Nanoseconds since 1970 of a time such as `2026-11-23T17:00:00.123456Z`.
fn parse_time(text: &str) -> Option<u64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |part: &str, by: char| -> Option<Vec<i64>> {
        part.split(by).map(|n| n.parse().ok()).collect()
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date, '-')?[..] else {
        return None;
    };
    let [hour, minute, second] = numbers(clock, ':')?[..] else {
        return None;
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(u64::try_from(seconds).ok()? * 1_000_000_000 + nanoseconds)
}

/// A line of a speaker's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// When, on this machine's clock (ns since 1970).
    pub at_ns: u64,
    /// All of it.
    pub text: String,
}

/// What the speaker of a node has logged, with the times moved to this machine's clock.
///
/// # Errors
/// When its log cannot be read, or the node does not tell its clock.
pub fn speaker(lab: &Lab, node: &str) -> Result<Vec<Line>> {
    let ahead = clock_ahead_ns(lab, node)?;
    let path = lab.dir().log(&format!("{node}/speaker"));
    let log = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let lines = log.lines().filter_map(|line| {
        let at = parse_time(line.split_whitespace().next()?)?;
        Some(Line {
            at_ns: at.saturating_add_signed(-ahead),
            text: line.to_owned(),
        })
    });
    Ok(lines.collect())
}

/// The moment of the first line from `since_ns` on that contains all of `parts`, waited for.
///
/// # Errors
/// When there is none within `limit`.
pub fn wait_line(
    lab: &Lab,
    node: &str,
    since_ns: u64,
    parts: &[&str],
    limit: Duration,
) -> Result<u64> {
    sh::wait_for(
        &format!("the speaker of {node} logs {parts:?}"),
        lab.within(limit),
        Duration::from_millis(200),
        || {
            let lines = speaker(lab, node)?;
            let found = lines.iter().find(|line| {
                line.at_ns >= since_ns && parts.iter().all(|part| line.text.contains(part))
            });
            Ok(found.map(|line| line.at_ns))
        },
    )
}

/// Waits until a speaker that ended after `since_ns` is back, with the state that it had kept.
///
/// # Errors
/// When it is not within `limit`.
pub fn wait_resumed(lab: &Lab, node: &str, since_ns: u64, limit: Duration) -> Result<()> {
    for part in ["last known state read", "speaker starts"] {
        wait_line(lab, node, since_ns, &[part], limit)?;
    }
    Ok(())
}

/// How far a node's clock is ahead of this machine's, in ns; 0 where they are one.
fn clock_ahead_ns(lab: &Lab, node: &str) -> Result<i64> {
    if !lab.substrate().has_management() {
        return Ok(0);
    }
    let spec = &lab.state().node(node)?.spec;
    let mut command = std::process::Command::new("ip");
    command
        .args(["netns", "exec", LAB_NETNS])
        .arg(&spec.agent)
        .args(["ctl", &control_address(spec).to_string(), "clock"]);
    let text = sh::run(command)?;
    let clock: Value = serde_json::from_str(&text).context("a clock is not JSON")?;
    let ahead = clock["ahead_us"].as_i64();
    Ok(1000 * ahead.with_context(|| format!("a clock without ahead_us: {text}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        let leap = parse_time("2000-02-29T12:00:00.25Z");
        assert_eq!(leap, Some(951_825_600_250_000_000));
        let now = parse_time("2026-11-23T17:24:39.123456Z");
        assert_eq!(now, Some(1_795_454_679_123_456_000));
        assert_eq!(parse_time("INFO"), None);
    }
}
