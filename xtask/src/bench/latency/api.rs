//! Plain requests to the API server: `kubectl` takes long to start, and prints events late.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lightship_e2e::probe::now_ns;
use lightship_lab::substrate::LAB_NETNS;
use lightship_lab::{Lab, addressing, sh};
use serde_json::Value;

/// Path of the Services.
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// How long an event may take.
const LIMIT: Duration = Duration::from_secs(60);

/// `curl` to a path of the API server, with all rights.
fn curl(lab: &Lab, path: &str) -> Command {
    let pki = lab.dir().pki();
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", LAB_NETNS, "curl", "-sS", "--no-buffer"])
        .arg("--cacert")
        .arg(pki.join("ca.crt"))
        .arg("--cert")
        .arg(pki.join("admin.crt"))
        .arg("--key")
        .arg(pki.join("admin.key"))
        .arg(format!(
            "{}{path}",
            addressing::api_url(lab.state().options.families)
        ));
    command
}

/// Creates a Service and gives the moment at which the request went out, or a
/// little before (ns since 1970).
pub(super) fn create(lab: &Lab, service: &Value) -> Result<u64> {
    let mut command = curl(lab, SERVICES);
    command
        .args(["--header", "Content-Type: application/json"])
        .args(["--data-binary", "@-", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code} %{time_pretransfer}"]);
    let started = now_ns();
    let said = sh::run_with_input(command, Some(&service.to_string()))?;
    let (code, ready) = said.split_once(' ').context("curl said nothing")?;
    if code != "201" {
        bail!("the API server refused the Service: HTTP status {code}");
    }
    let ready = Duration::try_from_secs_f64(ready.trim().parse()?)?;
    Ok(started + u64::try_from(ready.as_nanos())?)
}

/// A Service as a watcher sees it.
pub(super) struct Watch {
    child: Child,
    events: Receiver<(u64, Value)>,
}

impl Watch {
    /// Watches the Service of that name, which need not be there yet.
    pub(super) fn start(lab: &Lab, name: &str) -> Result<Self> {
        let path = format!("{SERVICES}?watch=1&fieldSelector=metadata.name%3D{name}");
        let mut child = curl(lab, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run curl")?;
        let stdout = child.stdout.take().context("curl has no output")?;
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let at = now_ns();
                let Ok(event) = serde_json::from_str(&line) else {
                    return;
                };
                if sender.send((at, event)).is_err() {
                    return;
                }
            }
        });
        // There is nothing to hear while there is nothing to see.
        thread::sleep(Duration::from_secs(1));
        Ok(Self { child, events })
    }

    /// When the Service got an address.
    pub(super) fn address(&self) -> Result<u64> {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let (at, event) = self.events.recv_timeout(LIMIT).context("the watch ended")?;
            if event["object"]["status"]["loadBalancer"]["ingress"][0]["ip"].is_string() {
                return Ok(at);
            }
        }
        bail!("the Service got no address")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
