//! Plain requests to the API server: `kubectl` takes long to start, and prints events late.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lightship_e2e::probe::now_ns;
use lightship_lab::substrate::LAB_NETNS;
use lightship_lab::{Lab, addressing};
use serde_json::Value;

/// Path of the Services.
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// How long `curl` is given to connect.
const CONNECT: Duration = Duration::from_secs(1);

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

/// Creates a Service and gives the moment at which it was sent (ns since 1970), over a connection that is
/// there already, as clients have one: the request is begun before, and gets its body then.
pub(super) fn create(lab: &Lab, service: &Value) -> Result<u64> {
    let mut child = curl(lab, SERVICES)
        .args(["--request", "POST", "--upload-file", "-"])
        .args(["--header", "Content-Type: application/json"])
        .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run curl")?;
    let mut body = child.stdin.take().context("curl has no input")?;
    thread::sleep(CONNECT);
    let sent = now_ns();
    body.write_all(service.to_string().as_bytes())?;
    drop(body);
    let output = child.wait_with_output()?;
    let code = String::from_utf8_lossy(&output.stdout);
    if code != "201" {
        bail!("the API server refused the Service: HTTP status {code}");
    }
    Ok(sent)
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
        thread::sleep(CONNECT);
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
