//! A control plane on loopback and the controller beside it.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lightship_lab::k8s_build::{self, Kubernetes};
use lightship_lab::progress::Progress;
use lightship_lab::{binaries, sh};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::kube::Kubectl;

/// Namespace of `deploy/`.
pub(crate) const SYSTEM: &str = "lightship-system";

/// A running control plane, ended when dropped.
pub(crate) struct Cluster {
    dir: PathBuf,
    programs: Kubernetes,
    controller_program: PathBuf,
    ports: Ports,
    etcd: Daemon,
    api: Daemon,
    controller: Option<Daemon>,
    /// What controllers log that are started from now on.
    pub(crate) log_filter: &'static str,
    /// `kubectl` with all rights.
    pub(crate) kubectl: Kubectl,
}

#[derive(Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
    etcd_peer: u16,
}

impl Ports {
    fn server(self) -> String {
        format!("https://127.0.0.1:{}", self.api)
    }
}

impl Cluster {
    /// Brings everything up, the controller included.
    pub(crate) fn start() -> Result<Self> {
        let progress = Progress::on_stderr();
        let programs =
            k8s_build::kubernetes(&binaries::checkout().join("tests/lab/k8s"), progress)?;
        let controller_program = progress.step("lightship-controller compiled", || {
            Ok(binaries::build(binaries::Profile::Lab)?.controller)
        })?;
        let dir = std::env::temp_dir().join(format!("lightship-api-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        write_credentials(&dir)?;
        let ports = Ports {
            api: free_port()?,
            etcd: free_port()?,
            etcd_peer: free_port()?,
        };
        let etcd = start_etcd(&programs, &dir, ports)?;
        let api = start_api(&programs, &dir, ports)?;
        let admin = kubeconfig(&dir, "admin", ADMIN_TOKEN, &ports.server())?;
        let mut cluster = Self {
            kubectl: Kubectl::new(&programs.kubectl, &admin),
            dir,
            programs,
            controller_program,
            ports,
            etcd,
            api,
            controller: None,
            log_filter: "info,lightship_controller=debug",
        };
        progress.step("kube-apiserver serves", || cluster.wait_api())?;
        progress.step("deploy/ applied", || cluster.install())?;
        cluster.start_controller()?;
        Ok(cluster)
    }

    /// Ends everything; `keep` leaves the logs and says where they are.
    pub(crate) fn stop(mut self, keep: bool) {
        self.kill_controller();
        self.api.kill();
        self.etcd.kill();
        if keep {
            eprintln!("logs: {}", self.dir.display());
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }

    fn wait_api(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.kubectl.run(&["get", "--raw", "/readyz"]).is_err() {
            for (name, daemon) in [("etcd", &mut self.etcd), ("kube-apiserver", &mut self.api)] {
                if let Some(status) = daemon.0.try_wait()? {
                    bail!("{name} ended ({status}): see {}", self.dir.display());
                }
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("kube-apiserver is not ready: see {}", self.dir.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn install(&self) -> Result<()> {
        let deploy = binaries::checkout().join("deploy");
        let deploy = deploy.to_str().context("odd path")?;
        self.kubectl
            .run(&["apply", "--server-side", "-k", deploy])?;
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ];
        self.kubectl.run(&wait)?;
        Ok(())
    }

    /// Starts the controller with the token of its service account, and waits until it has
    /// listed everything.
    pub(crate) fn start_controller(&mut self) -> Result<()> {
        self.start_controller_with(&[])
    }

    /// The same with more flags.
    pub(crate) fn start_controller_with(&mut self, flags: &[&str]) -> Result<()> {
        let before = self.controller_log().matches(" ready ").count();
        let mut command = self.controller_command()?;
        command.args(flags);
        self.controller = Some(Daemon::spawn(command, &self.dir.join("controller.log"))?);
        let ready =
            || Ok((self.controller_log().matches(" ready ").count() > before).then_some(()));
        sh::wait_for(
            "the controller is ready",
            Duration::from_secs(20),
            Duration::from_millis(20),
            ready,
        )
    }

    /// A controller with the token of its service account, to be started.
    pub(crate) fn controller_command(&self) -> Result<Command> {
        self.controller_command_at(&self.server())
    }

    /// The URL of the API server.
    pub(crate) fn server(&self) -> String {
        self.ports.server()
    }

    /// A controller that is told of an API server at this URL.
    pub(crate) fn controller_command_at(&self, server: &str) -> Result<Command> {
        let account = "lightship-controller";
        let token =
            self.kubectl
                .run(&["create", "token", account, "-n", SYSTEM, "--duration=2h"])?;
        let config = kubeconfig(&self.dir, account, token.trim(), server)?;
        let mut command = Command::new(&self.controller_program);
        command
            .env("KUBECONFIG", config)
            .env("LIGHTSHIP_LOG", self.log_filter);
        Ok(command)
    }

    /// The process that [`Cluster::start_controller`] started.
    pub(crate) fn controller_pid(&self) -> Option<u32> {
        self.controller.as_ref().map(|running| running.0.id())
    }

    /// Seconds of processor time that the API server with its etcd, and the controller, have used.
    pub(crate) fn processor_time(&self) -> Result<[f64; 2]> {
        let servers = processor_time(self.api.0.id())? + processor_time(self.etcd.0.id())?;
        let controller = self.controller_pid().map(processor_time).transpose()?;
        Ok([servers, controller.unwrap_or_default()])
    }

    /// What makes `curl --config` ask for a path with all rights.
    pub(crate) fn curl_config(&self, path: &str) -> String {
        format!(
            "url = \"https://127.0.0.1:{}{path}\"\ninsecure\nheader = \"Authorization: Bearer {ADMIN_TOKEN}\"\n",
            self.ports.api
        )
    }

    /// A path of the API, as JSON; kubectl takes long for long lists.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let command = sh::command(&["curl", "--silent", "--show-error", "--config", "-"]);
        let said = sh::run_with_input(command, Some(&self.curl_config(path)))?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Where logs go.
    pub(crate) fn folder(&self) -> &Path {
        &self.dir
    }

    /// SIGTERM, as an orderly end would.
    pub(crate) fn stop_controller(&mut self) -> Result<()> {
        if let Some(mut controller) = self.controller.take() {
            controller.signal(Signal::SIGTERM)?;
            let end = controller.0.wait()?;
            ensure!(end.success(), "the controller ended with {end}");
        }
        Ok(())
    }

    /// Makes the API server stand still, or go on.
    pub(crate) fn signal_api(&self, signal: Signal) -> Result<()> {
        self.api.signal(signal)
    }

    /// SIGKILL, as a crash would.
    pub(crate) fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// Kills the API server and starts it again on the same data.
    pub(crate) fn restart_api(&mut self) -> Result<()> {
        self.api.kill();
        self.api = start_api(&self.programs, &self.dir, self.ports)?;
        self.wait_api()
    }

    /// All that the controllers of this run have logged.
    pub(crate) fn controller_log(&self) -> String {
        fs::read_to_string(self.dir.join("controller.log")).unwrap_or_default()
    }

    /// The end of it, for a failure's message.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.controller_log();
        let lines: Vec<_> = log.lines().collect();
        let from = lines.len().saturating_sub(25);
        format!("the controller's last lines:\n{}", lines[from..].join("\n"))
    }

    /// Makes sure that a controller runs and that there are no Services, pools, VirtualIPs or
    /// events of an earlier test.
    pub(crate) fn clear(&mut self) -> Result<()> {
        if self
            .controller
            .as_mut()
            .is_none_or(|running| running.0.try_wait().is_ok_and(|end| end.is_some()))
        {
            self.start_controller()?;
        }
        for namespace in ["default", "gold"] {
            let keep = "--field-selector=metadata.name!=kubernetes";
            let _ =
                self.kubectl
                    .run(&["delete", "services", keep, "-n", namespace, "--wait=false"])?;
            let _ =
                self.kubectl
                    .run(&["delete", "events.events.k8s.io", "--all", "-n", namespace])?;
        }
        self.kubectl.run(&[
            "delete",
            "addresspools,l2announcements,speakers,nodes",
            "--all",
        ])?;
        self.kubectl.wait("no VirtualIPs are left", |kubectl| {
            Ok(kubectl.items(&["get", "virtualips"])?.is_empty())
        })?;
        self.kubectl
            .run(&["delete", "events.events.k8s.io", "--all", "-n", "default"])?;
        // Addresses that were released without a pool rest; a new controller knows of none.
        self.stop_controller()?;
        self.start_controller()
    }
}

/// A process that is killed when dropped, and by the kernel should this program die first.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn spawn(command: Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(name, value);
            }
        }
        wrapped
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = wrapped
            .spawn()
            .with_context(|| format!("cannot start {}", sh::show(&command)))?;
        Ok(Self(child))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?);
        Ok(signal::kill(pid, signal)?)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        if let Ok(status) = self.0.wait()
            && status.signal().is_none()
        {
            eprintln!("process {} had ended before: {status}", self.0.id());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ADMIN_TOKEN: &str = "admin-of-a-throw-away-cluster";

/// The administrator's token, and the key that signs service accounts' tokens.
/// Of all threads of a process, in user and kernel mode, in seconds (proc(5), fields 14 and 15).
fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may contain anything.
    let rest = stat.rsplit_once(')').context("no name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    // USER_HZ, 100 on all that Linux runs on here.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn write_credentials(dir: &Path) -> Result<()> {
    fs::write(
        dir.join("tokens.csv"),
        format!("{ADMIN_TOKEN},admin,admin,system:masters\n"),
    )?;
    let key = rcgen::KeyPair::generate()?;
    fs::write(dir.join("sa.key"), key.serialize_pem())?;
    fs::write(dir.join("sa.pub"), key.public_key_pem())?;
    Ok(())
}

fn start_etcd(programs: &Kubernetes, dir: &Path, ports: Ports) -> Result<Daemon> {
    let client = format!("http://127.0.0.1:{}", ports.etcd);
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    let mut command = Command::new(&programs.etcd);
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args([
            "--initial-cluster",
            &format!("default={peer}"),
            "--unsafe-no-fsync",
        ]);
    Daemon::spawn(command, &dir.join("etcd.log"))
}

fn start_api(programs: &Kubernetes, dir: &Path, ports: Ports) -> Result<Daemon> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    let mut command = Command::new(&programs.apiserver);
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd))
        .arg(format!("--secure-port={}", ports.api))
        .arg("--bind-address=127.0.0.1")
        // Named for machines without a default route; no Pod is here to ask for it.
        .arg("--advertise-address=192.0.2.1")
        .arg("--authorization-mode=Node,RBAC")
        // Speakers are privileged; deploy/ must be accepted as a real cluster would.
        .arg("--allow-privileged=true")
        .args(["--service-cluster-ip-range=203.0.113.0/25,2001:db8:113::/112"])
        .arg(file("token-auth-file", "tokens.csv"))
        .args([
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
        ])
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(file("cert-dir", "certs"));
    Daemon::spawn(command, &dir.join("apiserver.log"))
}

/// Writes a kubeconfig and returns its path. The server's certificate is its own and made at
/// start, so it is not checked; nothing leaves loopback.
fn kubeconfig(dir: &Path, user: &str, token: &str, server: &str) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": user } }],
    });
    let path = dir.join(format!("{user}.kubeconfig"));
    serde_json::to_writer(File::create(&path)?, &config)?;
    Ok(path)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
