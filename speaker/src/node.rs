//! The core's thread: the sockets and the clock around [`Core`].
//!
//! It has an OS thread and a runtime of its own, so that nothing the API server sends
//! can hold up a heartbeat or an ARP reply. One loop waits for a datagram, a frame, a
//! change from another thread or the next deadline, lets the core decide, and carries out
//! what it says. Nothing here waits for the network or the kernel but in that one `select`.

mod further;
mod inputs;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use ipnet::IpNet;
use lightship_membership::Keys;
use lightship_netio::{Alarm, Filter, PacketSocket, Watched};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, watch};

use self::inputs::Input;
use crate::datagrams::Datagrams;
use crate::memory::Memory;
use crate::uplink::Current;
use lightship_core::cache::Saved;
use lightship_core::core::{
    Core, DirectorIntent, DirectorReport, HANDOVER, Listen, Output, Ownership, Snapshot,
};
use lightship_core::further::{Own, Via};
use lightship_core::path::{Kept, Peers, Verdict};
use lightship_core::world::World;

/// At most this many frames or datagrams are taken before the core decides, so that a flood
/// on the LAN delays a heartbeat by no more than the time to look at these.
const BURST: usize = 64;

/// How often the core's counts are told.
const COUNT: Duration = Duration::from_secs(1);

/// The threads' ends of the channels to the rest of the speaker.
pub struct Links {
    /// The world, as the watches see it.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// The heartbeat secrets, newest first.
    pub secrets: watch::Receiver<Vec<Vec<u8>>>,
    /// The main uplink.
    pub uplink: watch::Receiver<Current>,
    /// The networks whose hosts are neighbours on it.
    pub networks: watch::Receiver<Arc<[IpNet]>>,
    /// The further uplinks that can be used.
    pub further: watch::Receiver<Arc<[Own]>>,
    /// Those of them that are in use.
    pub used: watch::Sender<Arc<[Own]>>,
    /// The IPv6 VIPs to listen for, each on its uplink.
    pub groups: watch::Sender<BTreeSet<(Via, Ipv6Addr)>>,
    /// Whether this node can take a share.
    pub serves: watch::Receiver<bool>,
    /// What the director says.
    pub reports: mpsc::UnboundedReceiver<DirectorReport>,
    /// Whether there is a director.
    pub has_director: bool,
    /// What the director should hold.
    pub director: watch::Sender<Arc<DirectorIntent>>,
    /// Whom the path test may ask.
    pub paths: watch::Sender<Arc<Peers>>,
    /// What the path test says.
    pub verdict: watch::Receiver<Arc<Verdict>>,
    /// What of that the next start of the speaker should know.
    pub kept: watch::Receiver<Kept>,
    /// What is owned.
    pub ownership: watch::Sender<Arc<Ownership>>,
    /// How things stand, for the monitoring port.
    pub snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    /// How late the clock of this thread is, in seconds.
    pub lateness: Histogram,
    /// What is kept over a restart.
    pub saved: watch::Sender<Saved>,
    /// True once the speaker is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Where the core's sockets are.
#[derive(Clone, Copy, Debug)]
pub struct Sockets {
    /// The UDP port of heartbeats.
    pub port: u16,
}

/// The heartbeat keys from the secrets, or `None` while there is no secret.
pub fn keys(secrets: &[Vec<u8>]) -> Option<Keys> {
    let current = secrets.first()?;
    Some(Keys::new(current, secrets.get(1).map(Vec::as_slice)))
}

/// Has the kernel keep out what is about other machines: on a busy LAN each of them would wake this
/// thread.
fn listen(packets: &PacketSocket, to: &Listen) {
    let watched = Watched {
        asked: to.vips.clone(),
        claimed: to.vips.iter().chain(&to.nodes).copied().collect(),
    };
    if let Err(error) = packets.watch(&watched) {
        tracing::warn!(%error, "all ARP and NDP frames are looked at, which only costs time");
    }
}

/// A packet socket on an interface that has just become the uplink; none if it is gone again, of
/// which there will be news.
fn open(index: u32) -> anyhow::Result<Option<PacketSocket>> {
    match PacketSocket::open(index, Filter::ArpAndNdp) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).context("cannot listen on the uplink"),
    }
}

/// Waits for a datagram, but at least until `begin`, so that others come in with it: not for the time alone, of
/// which nothing follows. Safe to cancel.
async fn from_peers(
    udp: &mut Datagrams,
    datagram: &mut [u8],
    begin: Instant,
) -> Option<(usize, std::net::IpAddr)> {
    udp.readable().await;
    if begin > Instant::now() {
        tokio::time::sleep_until(begin.into()).await;
    }
    udp.try_recv(datagram)
}

/// Runs the core until it is told to stop and has handed its VIPs over.
///
/// # Errors
/// When a socket cannot be opened or fails for good.
pub async fn run(
    mut core: Core,
    origin: Instant,
    at: Sockets,
    mut links: Links,
) -> anyhow::Result<()> {
    let mut udp = Datagrams::new(at.port);
    let bound = udp.follow(&core.own_addresses(), origin.elapsed());
    bound.context("cannot receive heartbeats")?;
    let mut uplink = links.uplink.borrow_and_update().clone();
    let mut packets = PacketSocket::open(uplink.link.index, Filter::ArpAndNdp)?;
    let mut further = further::Further::default();
    let mut listening: Option<Listen> = None;
    let mut datagram = vec![0; 2048];
    let mut frame = vec![0; 2048];
    let mut leaving: Option<Duration> = None;
    let mut counted: Option<Duration> = None;
    let mut read_again = Instant::now();
    let mut memory = Memory::new(origin.elapsed());
    let mut alarm = Alarm::new()?;
    let mut changes = inputs::changes(&links);
    loop {
        let now = origin.elapsed();
        udp.poll(core.is_sparse());
        if udp.retry_at().is_some_and(|at| at <= now) {
            let _ = udp.follow(&core.own_addresses(), now);
        }
        core.tick(now);
        // A heartbeat is due more often than that, so nothing else has to wake for it.
        if counted.is_none_or(|at| now >= at + COUNT) {
            counted = Some(now);
            links.snapshot.send_replace(Some(Arc::new(core.snapshot())));
            // One whose socket failed is there again.
            let used = links.used.borrow().clone();
            further.set(&used, listening.as_ref());
        }
        let (mut save, mut beat) = (false, false);
        for output in core.outputs() {
            match output {
                Output::Heartbeat(to, bytes) => {
                    udp.send(to, &bytes, now);
                    beat = true;
                }
                // Waiting would delay heartbeats.
                Output::Frame(Via::Main, bytes) => {
                    if let Err(error) = packets.try_send(&bytes) {
                        tracing::debug!(%error, "frame not sent");
                        core.on_unsent(&bytes, now);
                    }
                }
                Output::Frame(Via::Further(interface), bytes) => {
                    if !further.send(&interface, &bytes) {
                        core.on_unsent(&bytes, now);
                    }
                }
                Output::Director(intent) => drop(links.director.send_replace(intent)),
                Output::Paths(peers) => drop(links.paths.send_replace(peers)),
                Output::Report(report) => drop(links.ownership.send_replace(report)),
                Output::Uplinks(used) => {
                    further.set(&used, listening.as_ref());
                    links.used.send_replace(used);
                }
                Output::Groups(vips) => drop(links.groups.send_replace(vips)),
                Output::Listen(to) => {
                    listen(&packets, &to);
                    further.listen(&to);
                    listening = Some(to);
                }
                Output::Save => save = true,
                // Logged by the core.
                Output::Peer(..) => {}
            }
        }
        // The next heartbeat is an interval away.
        if beat {
            memory.look_after(now);
        }
        if save {
            links.saved.send_modify(|saved| core.save(saved));
        }
        if let Some(since) = leaving
            && (core.handed_over() || now - since >= HANDOVER)
        {
            return Ok(());
        }
        let deadline = origin + core.next_deadline(now);
        tokio::select! {
            received = from_peers(&mut udp, &mut datagram, read_again) => {
                let (mut next, mut left) = (received, BURST);
                while let Some((length, from)) = next {
                    core.on_datagram(from, &datagram[..length], origin.elapsed());
                    left -= 1;
                    next = (left > 0).then(|| udp.try_recv(&mut datagram)).flatten();
                }
                if left > 0 {
                    read_again = Instant::now() + core.gather();
                }
            }
            received = packets.recv(&mut frame) => match received {
                Ok((length, _)) => {
                    packets.pass(length, &mut frame, BURST, |heard| {
                        core.on_frame(&Via::Main, heard, origin.elapsed());
                    });
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, "the uplink is away");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error).context("cannot listen on the uplink"),
            },
            (at, received) = further.recv() => match received {
                Ok(length) => further.pass(at, length, |via, frame| {
                    core.on_frame(via, frame, origin.elapsed());
                }),
                // It went down, of which there is other news.
                Err(error) if error.is_retryable() => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot listen on a further uplink");
                    further.close(at);
                }
            },
            report = links.reports.recv(), if links.has_director => match report {
                Some(report) => core.on_director(report),
                None => bail!("the director's thread ended; starting anew"),
            },
            Some(changed) = changes.next() => match changed {
                Input::World => {
                    let world = links.world.borrow().clone();
                    if let Some(world) = world {
                        links.saved.send_modify(|saved| saved.world = world.clone());
                        core.on_world(world, origin.elapsed());
                        let _ = udp.follow(&core.own_addresses(), origin.elapsed());
                    }
                }
                Input::Secrets => {
                    let secrets = links.secrets.borrow().clone();
                    if let Some(keys) = keys(&secrets) {
                        links.saved.send_modify(|saved| saved.secrets = secrets);
                        core.on_keys(keys);
                    }
                }
                Input::Uplink => {
                    let before = std::mem::replace(&mut uplink, links.uplink.borrow().clone());
                    let (index, now) = (uplink.link.index, origin.elapsed());
                    let moved = index != before.link.index;
                    if moved && let Some(opened) = open(index)? {
                        packets = opened;
                        if let Some(to) = &listening {
                            listen(&packets, to);
                        }
                    }
                    core.on_link(uplink.link.name.as_str().into(), uplink.link.mac, now);
                    if moved || uplink.reroutes != before.reroutes {
                        core.say_anew(now);
                    }
                    // Last: what was cut off compares claims before it says anything.
                    core.on_uplink(uplink.state, now);
                }
                Input::Verdict => {
                    let verdict = links.verdict.borrow().clone();
                    core.on_path(&verdict, origin.elapsed());
                }
                Input::Kept => {
                    let kept = links.kept.borrow().clone();
                    links.saved.send_modify(|saved| saved.paths = kept);
                }
                Input::Networks => {
                    let networks = links.networks.borrow().clone();
                    core.on_networks(networks, origin.elapsed());
                }
                Input::Further => {
                    let found = links.further.borrow().clone();
                    core.on_further(found, origin.elapsed());
                }
                Input::Serves => {
                    let serves = *links.serves.borrow();
                    links.saved.send_modify(|saved| saved.idle = !serves);
                    core.on_serves(serves, origin.elapsed());
                }
                Input::Stop if leaving.is_some() => {}
                Input::Stop => {
                    tracing::info!("handing VIPs over before stopping");
                    let now = origin.elapsed();
                    leaving = Some(now);
                    core.leave(now);
                }
            },
            woken = alarm.wait_until(deadline) => {
                woken.context("the timer of heartbeats fails")?;
                links.lateness.observe(deadline.elapsed().as_secs_f64());
                // Who is awake anyway need not be woken for it later.
                if core.is_sparse() {
                    read_again = Instant::now();
                }
            }
        }
    }
}
