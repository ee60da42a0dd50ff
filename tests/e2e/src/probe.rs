//! The measuring programs of `lightship-lab-agent probe`, run on the client, and their figures.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use lightship_lab::workload::{PORT, RESERVED_PORTS};
use lightship_lab::{Lab, process, progress};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long a probe may take to sum up once it was told to end.
const SUM_UP: Duration = Duration::from_secs(20);

/// Now, in nanoseconds since 1970: the clock of all probes.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// Milliseconds from one moment of that clock to a later one; 0 when it is not later.
#[expect(
    clippy::cast_precision_loss,
    reason = "spans here are far below 2^53 ns"
)]
pub fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e6
}

/// What became of many connections; times in milliseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Flows {
    /// Connections asked for.
    pub flows: usize,
    /// Connections that stood.
    pub opened: usize,
    /// Those of them that lived to the end.
    pub kept: usize,
    /// Opened ones by the node that served them.
    pub nodes: BTreeMap<String, usize>,
    /// Kept ones by node.
    pub kept_nodes: BTreeMap<String, usize>,
    /// Those that ended early, by `node: error`.
    pub lost: BTreeMap<String, usize>,
    /// Those that were answered by more than one node: must never be.
    pub changed_node: usize,
    /// Longest time between two answers on a kept connection.
    pub longest_gap_ms: f64,
    /// How long those that ended early had been silent, at most.
    pub longest_silence_before_end_ms: f64,
}

/// A time in which new connections failed.
#[derive(Clone, Debug, Deserialize)]
pub struct Outage {
    /// Begin of the first that failed (ns since 1970).
    pub first_failure_ns: u64,
    /// Begin of the first that succeeded again; `None`: never.
    pub first_success_ns: Option<u64>,
    /// How many failed.
    pub failures: usize,
    /// From the last success before to the first after.
    pub length_ms: Option<f64>,
}

/// What became of new connections at a steady pace.
#[derive(Clone, Debug, Deserialize)]
pub struct Stream {
    /// Connections begun.
    pub requests: usize,
    /// Those without an answer.
    pub failures: usize,
    /// The failures by kind.
    pub errors: BTreeMap<String, usize>,
    /// Answers by node.
    pub nodes: BTreeMap<String, usize>,
    /// The client addresses that pods saw.
    pub clients: BTreeMap<String, usize>,
    /// Median, 99th percentile and worst latency of answers.
    pub latency_ms: Option<[f64; 3]>,
    /// Longest time between the begins of two that succeeded.
    pub longest_gap_ms: f64,
    /// Every time in which they failed.
    pub outages: Vec<Outage>,
}

impl Stream {
    /// That connections were lost in no way but one: in mode `Announce` one that is open at the moment of a move is
    /// reset, and a request takes about half a millisecond.
    ///
    /// # Errors
    /// When others were lost, or more than one in each of so many moves.
    pub fn lost_by_moves_alone(&self, moves: usize) -> Result<()> {
        let resets = self.errors.get("reset").copied().unwrap_or(0);
        if self.failures > resets || resets > moves {
            bail!("more was lost than {moves} moves explain: {self:?}");
        }
        Ok(())
    }
}

/// Who answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// When the answer came (ns since 1970).
    pub at_ns: u64,
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: String,
    /// The client's address and port that the pod saw.
    pub client: SocketAddr,
}

/// A probe that runs on the client. Dropped, it is ended.
#[derive(Debug)]
pub struct Probe {
    child: Child,
    lines: Receiver<String>,
    /// Events so far, in order.
    seen: Vec<Value>,
}

/// The Service port of an address.
pub fn target(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, PORT)
}

impl Probe {
    fn start(lab: &Lab, words: &[&str]) -> Result<Self> {
        let agent = &lab.state().nodes[0].spec.agent;
        let mut argv = vec![agent.as_os_str(), "probe".as_ref()];
        argv.extend(words.iter().map(std::ffi::OsStr::new));
        let mut child = lab
            .client_command(&argv)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a probe on the client")?;
        let stdout = child.stdout.take().context("a probe without output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            seen: Vec::new(),
        })
    }

    /// Opens `count` connections and keeps them until [`Probe::end`], each with a question every 100 ms.
    /// Returns when all that can be are open.
    ///
    /// # Errors
    /// When the probe does not start.
    pub fn flows(lab: &Lab, vip: IpAddr, count: usize) -> Result<Self> {
        let (target, count) = (target(vip).to_string(), count.to_string());
        let words = ["flows", "--target", &target, "--count", &count];
        let mut probe = Self::start(lab, &[&words[..], &["--duration", "10m"]].concat())?;
        probe.wait_event("all-open", Duration::from_secs(30))?;
        Ok(probe)
    }

    /// Begins a connection every `every` milliseconds until [`Probe::end`]. One has failed
    /// when it has no answer after 900 ms: before TCP would send a lost SYN again.
    ///
    /// # Errors
    /// When the probe does not start.
    pub fn stream(lab: &Lab, vip: IpAddr, every: u32, udp: bool) -> Result<Self> {
        Self::stream_with(lab, vip, every, if udp { &["--udp"] } else { &[] })
    }

    fn stream_with(lab: &Lab, vip: IpAddr, every: u32, more: &[&str]) -> Result<Self> {
        let (target, every) = (target(vip).to_string(), format!("{every}ms"));
        let mut words = vec!["stream", "--target", &target, "--every", &every];
        words.extend(["--timeout", "900ms", "--duration", "10m", "--records"]);
        words.extend(more);
        let mut probe = Self::start(lab, &words)?;
        probe.wait_event("started", Duration::from_secs(10))?;
        Ok(probe)
    }

    /// Tries every 5 ms until somebody answers; [`Probe::first_answer`] gives the outcome.
    ///
    /// # Errors
    /// When the probe does not start.
    pub fn wait(lab: &Lab, vip: IpAddr) -> Result<Self> {
        let target = target(vip).to_string();
        Self::start(lab, &["wait", "--target", &target, "--timeout", "2m"])
    }

    /// Who answered first.
    ///
    /// # Errors
    /// When nobody did within `limit`.
    pub fn first_answer(mut self, limit: Duration) -> Result<Answer> {
        let line = self.next_line(limit)?.context("nobody answered")?;
        serde_json::from_value(line.clone()).with_context(|| format!("nobody answered: {line}"))
    }

    /// The events so far that have that name.
    pub fn events(&mut self, name: &str) -> Vec<&Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.extend(serde_json::from_str::<Value>(&line));
        }
        let named = |event: &&Value| event["event"] == name;
        self.seen.iter().filter(named).collect()
    }

    /// Ends it and gives the sum of what it saw.
    ///
    /// # Errors
    /// When it ended before, or sums up in another way than expected.
    pub fn end<T: DeserializeOwned>(&mut self) -> Result<T> {
        process::send(self.child.id(), Signal::SIGTERM)?;
        // It may have ended by itself, when there was nothing left to see.
        let summary = match self.events("summary").first() {
            Some(summary) => (*summary).clone(),
            None => self.wait_event("summary", SUM_UP)?,
        };
        serde_json::from_value(summary).context("a probe's figures are not as expected")
    }

    fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let end = Instant::now() + limit;
        while let Some(event) = self.next_line(end.saturating_duration_since(Instant::now()))? {
            self.seen.push(event.clone());
            if event["event"] == name {
                return Ok(event);
            }
        }
        bail!("a probe ended without {name:?}")
    }

    /// The next line; `None` when the probe has ended.
    fn next_line(&mut self, limit: Duration) -> Result<Option<Value>> {
        let end = Instant::now() + limit;
        loop {
            progress::check()?;
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    let value = serde_json::from_str(&line);
                    return value
                        .map(Some)
                        .with_context(|| format!("a probe said {line:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if Instant::now() > end => {
                    bail!("a probe is silent for {} s", limit.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection (or datagram) through an address.
///
/// # Errors
/// When nobody answers within 2 s.
pub fn ask(lab: &Lab, vip: IpAddr, udp: bool) -> Result<Answer> {
    let target = target(vip).to_string();
    let mut words = vec!["once", "--target", &target, "--timeout", "2s"];
    words.extend(udp.then_some("--udp"));
    Probe::start(lab, &words)?
        .first_answer(Duration::from_secs(5))
        .with_context(|| format!("{vip} does not answer"))
}

/// Whether new connections succeed yet: one every 10 ms for a second, from [`RESERVED_PORTS`]. In one run
/// none of these comes again within the minute in which the client's own kernel would refuse it.
///
/// # Errors
/// As [`stream_for`].
pub fn try_out(lab: &Lab, vip: IpAddr) -> Result<Stream> {
    /// More than one second takes, also if the probe is told of its end late.
    const PORTS: u16 = 160;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let places = (RESERVED_PORTS.end() - RESERVED_PORTS.start() + 1) / PORTS;
    let place = NEXT.fetch_add(1, Ordering::Relaxed) % places;
    let from = (RESERVED_PORTS.start() + place * PORTS).to_string();
    let mut probe = Probe::stream_with(lab, vip, 10, &["--from-port", &from])?;
    thread::sleep(Duration::from_secs(1));
    probe.end()
}

/// New connections every `every` milliseconds for `span`.
///
/// # Errors
/// When the probe fails; failed connections are figures, not errors.
pub fn stream_for(lab: &Lab, vip: IpAddr, every: u32, span: Duration, udp: bool) -> Result<Stream> {
    let mut probe = Probe::stream(lab, vip, every, udp)?;
    thread::sleep(span);
    probe.end()
}
