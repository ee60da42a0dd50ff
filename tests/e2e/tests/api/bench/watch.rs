//! When Services came to be and when they got their addresses, as a watcher sees it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cluster::Cluster;

/// Only what is read: there are tens of thousands of these.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default, rename = "loadBalancer")]
    load_balancer: LoadBalancer,
}

#[derive(Default, Deserialize)]
struct LoadBalancer {
    #[serde(default)]
    ingress: Vec<Ingress>,
}

#[derive(Deserialize)]
struct Ingress {
    ip: String,
}

/// What became of a Service.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) created: Instant,
    pub(super) addressed: Option<Instant>,
    address: Option<String>,
}

#[derive(Default)]
struct Record {
    services: HashMap<String, Seen>,
    addressed: usize,
    /// Why nothing more is seen.
    fault: Option<String>,
}

/// A watch of all Services, resumed where the API server broke it off: it does so with every
/// watcher that is slow for a moment.
pub(super) struct Watch {
    child: Arc<Mutex<Option<Child>>>,
    record: Arc<Mutex<Record>>,
}

impl Watch {
    /// Starts it and waits until it sees what is there.
    pub(super) fn start(cluster: &Cluster) -> Result<Self> {
        let path = "/api/v1/namespaces/default/services?watch=1&timeoutSeconds=3600";
        let config = cluster.curl_config(&format!("{path}&resourceVersion={VERSION}"));
        let (child, mut stdout) = connect(&config.replace(VERSION, ""))?;
        let current = Arc::new(Mutex::new(Some(child)));
        let shared = current.clone();
        // Read apart from being understood, so that it is rarely slow.
        let (lines, received) = mpsc::channel();
        thread::spawn(move || -> Result<()> {
            let mut version = String::new();
            loop {
                for line in stdout.lines().map_while(Result::ok) {
                    let at = Instant::now();
                    // The object's own comes first.
                    let rest = line.split("\"resourceVersion\":\"").nth(1);
                    let number = rest.and_then(|rest| rest.split('"').next());
                    version = number.unwrap_or_default().to_owned();
                    lines.send((at, line))?;
                }
                let (mut child, again) = connect(&config.replace(VERSION, &version))?;
                stdout = again;
                let mut current = lock(&shared);
                let Some(before) = current.as_mut() else {
                    return end(&mut child);
                };
                end(before)?;
                *current = Some(child);
            }
        });
        let record = Arc::new(Mutex::new(Record::default()));
        let theirs = record.clone();
        thread::spawn(move || {
            for (at, line) in received {
                match serde_json::from_str::<Event>(&line) {
                    Ok(event) => lock(&theirs).note(event, at),
                    Err(error) => {
                        lock(&theirs).fault = Some(format!("{error} in {line}"));
                        return;
                    }
                }
            }
            lock(&theirs).fault = Some("it cannot be resumed".into());
        });
        thread::sleep(Duration::from_secs(2));
        Ok(Self {
            child: current,
            record,
        })
    }

    /// Waits until this many Services have an address.
    pub(super) fn wait(&self, count: usize, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while lock(&self.record).addressed < count {
            if let Some(fault) = &lock(&self.record).fault {
                bail!("the watch failed: {fault}");
            }
            if start.elapsed() > limit {
                let addressed = lock(&self.record).addressed;
                bail!("{addressed} of {count} Services have an address after {limit:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What became of the Services whose names begin so.
    pub(super) fn seen(&self, prefix: &str) -> Vec<Seen> {
        let record = lock(&self.record);
        let matching = record.services.iter();
        matching
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, seen)| seen.clone())
            .collect()
    }

    /// Fails if an address is assigned twice.
    pub(super) fn check(&self) -> Result<()> {
        let record = lock(&self.record);
        let mut holders = HashMap::new();
        for (name, seen) in &record.services {
            if let Some(address) = &seen.address
                && let Some(other) = holders.insert(address.clone(), name)
            {
                bail!("{address} is assigned to {name} and to {other}");
            }
        }
        Ok(())
    }
}

/// A watch of whose events nothing is made: the API server serves the controller's as well.
pub(super) struct Onlooker(Child);

impl Onlooker {
    /// Watches what is at this path of the API, from now on.
    pub(super) fn start(cluster: &Cluster, path: &str) -> Result<Self> {
        let config = cluster.curl_config(&format!("{path}?watch=1&timeoutSeconds=3600"));
        let (child, mut stdout) = connect(&config)?;
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Ok(Self(child))
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        let _ = end(&mut self.0);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    fn note(&mut self, event: Event, at: Instant) {
        let name = event.object.metadata.name;
        if event.kind == "DELETED" {
            let gone = self.services.remove(&name);
            self.addressed -= usize::from(gone.is_some_and(|seen| seen.addressed.is_some()));
            return;
        }
        let seen = self.services.entry(name).or_insert(Seen {
            created: at,
            addressed: None,
            address: None,
        });
        let mut ingress = event.object.status.load_balancer.ingress.into_iter();
        seen.address = ingress.next().map(|entry| entry.ip);
        if seen.address.is_some() && seen.addressed.is_none() {
            seen.addressed = Some(at);
            self.addressed += 1;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(mut child) = lock(&self.child).take() {
            let _ = end(&mut child);
        }
    }
}

/// Stands for the version from which a watch is resumed.
const VERSION: &str = "@version@";

fn connect(config: &str) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut child = Command::new("curl")
        .args(["--silent", "--no-buffer", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run curl")?;
    let mut stdin = child.stdin.take().context("curl has no input")?;
    stdin.write_all(config.as_bytes())?;
    drop(stdin);
    let stdout = child.stdout.take().context("curl has no output")?;
    Ok((child, BufReader::new(stdout)))
}

fn end(child: &mut Child) -> Result<()> {
    let _ = child.kill();
    child.wait()?;
    Ok(())
}
