//! Who answers for an address on the LAN, as the client hears it.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use lightship_lab::substrate::CLIENT_NETNS;
use lightship_lab::{Lab, process, sh};
use nix::sys::signal::Signal;

/// The client's interface on the LAN.
const LINK: &str = "eth0";

/// A capture of frames that runs until it is ended.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    /// Reads what it prints: it stands still when nobody does, and what comes then is lost.
    reader: Option<JoinHandle<io::Result<String>>>,
}

impl Capture {
    /// Captures on an interface of a network namespace of this machine what `filter`
    /// (in the language of `tcpdump`) selects.
    ///
    /// # Errors
    /// When `tcpdump` does not start.
    pub fn start(namespace: &str, link: &str, filter: &str) -> Result<Self> {
        Self::with(namespace, link, filter, &[])
    }

    /// As [`Self::start`], with all that tcpdump can tell of each frame.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn verbose(namespace: &str, link: &str, filter: &str) -> Result<Self> {
        Self::with(namespace, link, filter, &["-vv"])
    }

    /// As [`Self::start`], with each frame's time before it, in seconds since 1970.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn timed(namespace: &str, link: &str, filter: &str) -> Result<Self> {
        // Given twice, `-t` says so instead of nothing. With as much of each frame as it takes by default, its
        // buffer has room for thirty of them, and what comes in a burst is lost.
        Self::with(namespace, link, filter, &["-t", "-s", "256"])
    }

    fn with(namespace: &str, link: &str, filter: &str, options: &[&str]) -> Result<Self> {
        let mut command = std::process::Command::new("ip");
        let child = command
            .args(["netns", "exec", namespace, "tcpdump"])
            .args(["-l", "-n", "-e", "-t", "--immediate-mode", "-i", link])
            .args(options)
            .arg(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start tcpdump")?;
        let mut capture = Self {
            tcpdump: child,
            reader: None,
        };
        if let Some(mut stdout) = capture.tcpdump.stdout.take() {
            capture.reader = Some(thread::spawn(move || {
                let mut text = String::new();
                stdout.read_to_string(&mut text).map(|_| text)
            }));
        }
        // It says "listening on …" once the socket is there.
        let mut said = [0; 1024];
        let errors = capture.tcpdump.stderr.as_mut();
        let errors = errors.context("tcpdump has no output")?;
        let mut text = String::new();
        while !text.contains("listening on") {
            let length = errors.read(&mut said)?;
            anyhow::ensure!(length > 0, "tcpdump ended: {}", text.trim());
            text += &String::from_utf8_lossy(&said[..length]);
        }
        Ok(capture)
    }

    /// Ends it; one line for each frame.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub fn end(mut self) -> Result<Vec<String>> {
        process::send(self.tcpdump.id(), Signal::SIGINT)?;
        self.tcpdump.wait()?;
        let reader = self.reader.take().context("tcpdump has no output")?;
        let text = reader.join();
        let text = text.map_err(|_| anyhow::anyhow!("what tcpdump said was not read"))??;
        let mut frames: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            // What is indented goes on about the frame before.
            match frames
                .last_mut()
                .filter(|_| line.starts_with(char::is_whitespace))
            {
                Some(frame) => {
                    frame.push(' ');
                    frame.push_str(line.trim());
                }
                None => frames.push(line.to_owned()),
            }
        }
        Ok(frames)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// Makes the client forget what it knows about an address.
///
/// # Errors
/// When `ip` fails.
pub fn forget(vip: IpAddr) -> Result<()> {
    forget_on(LINK, vip)
}

fn forget_on(link: &str, vip: IpAddr) -> Result<()> {
    // Deleting an entry that is not there is an error of no interest.
    let mut command = std::process::Command::new("ip");
    command.args(["-n", CLIENT_NETNS, "neigh", "delete"]);
    command.args([&vip.to_string(), "dev", link]);
    sh::output(command, None).map(drop)
}

/// Makes the client send an address's packets to a MAC address, whoever answers, until [`forget`].
///
/// # Errors
/// When `ip` fails.
pub fn pin(vip: IpAddr, mac: &str) -> Result<()> {
    sh::ip(&format!(
        "-n {CLIENT_NETNS} neigh replace {vip} dev {LINK} lladdr {mac} nud permanent"
    ))
}

/// Asks for an address several times and gives the MAC addresses that answered.
///
/// # Errors
/// When `tcpdump` or `ip` fails.
pub fn who_answers(lab: &Lab, vip: IpAddr) -> Result<BTreeSet<String>> {
    who_answers_on(lab, LINK, vip)
}

/// As [`who_answers`], by another interface of the client's.
///
/// # Errors
/// As [`who_answers`].
pub fn who_answers_on(lab: &Lab, link: &str, vip: IpAddr) -> Result<BTreeSet<String>> {
    let filter = match vip {
        IpAddr::V4(_) => format!("arp and arp[6:2] = 2 and src host {vip}"),
        // 136: neighbour advertisement; its target is the address that was asked for.
        IpAddr::V6(_) => "icmp6 and ip6[40] = 136".to_owned(),
    };
    let capture = Capture::start(CLIENT_NETNS, link, &filter)?;
    for _ in 0..3 {
        forget_on(link, vip)?;
        // Any packet makes the kernel ask; the discard port is nobody's.
        let script = format!("echo > /dev/udp/{vip}/9");
        lab.client(&["bash", "-c", &script])?;
        thread::sleep(Duration::from_millis(200));
    }
    forget_on(link, vip)?;
    let target = format!("tgt is {vip},");
    let frames = capture.end()?;
    Ok(frames
        .iter()
        .filter(|frame| vip.is_ipv4() || frame.contains(&target))
        .filter_map(|frame| frame.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// The MAC address that the client's kernel has for an address, if it has one.
///
/// # Errors
/// When `ip` fails.
pub fn cached(lab: &Lab, vip: IpAddr) -> Result<Option<String>> {
    let output = lab.client(&["ip", "neigh", "show", &vip.to_string(), "dev", LINK])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    words.find(|word| *word == "lladdr");
    Ok(words.next().map(str::to_owned))
}

/// Has the client's kernel believe that an address is at a MAC address, as after a time in which it
/// was: the entry is to be confirmed before its next use, and whoever announces may change it.
///
/// # Errors
/// When `ip` fails.
pub fn believe(vip: IpAddr, mac: &str) -> Result<()> {
    sh::ip(&format!(
        "-n {CLIENT_NETNS} neigh replace {vip} dev {LINK} lladdr {mac} nud stale"
    ))
}
