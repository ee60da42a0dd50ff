//! The sockets of the path test ([`lightship_core::path`]).
//!
//! A tap on the uplink hears the frames before routing, netfilter and the host's own sockets; what
//! those make of them does not matter. The UDP port is that of the heartbeats, which networks
//! between nodes let pass anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use lightship_frames::{Mac, udp};
use lightship_membership::Keys;
use lightship_membership::path::{LABEL, MAGIC, Probe, decode, encode};
use lightship_netio::{Filter, PacketSocket};
use tokio::sync::watch;

use crate::director;
use crate::uplink::{Current, tell};
use lightship_core::path::{Family, Host, Kept, Peers, Shot, Tester, Verdict};
use lightship_core::world::{NodeName, World};

/// Where the test sends and hears.
pub struct Place {
    /// The own node.
    pub me: NodeName,
    /// The MAC of its director, if it has one.
    pub director: Option<Mac>,
    /// That of the heartbeats.
    pub boot_id: u64,
    /// The UDP port of the heartbeats.
    pub port: u16,
}

/// What the test hears of, and where it is kept what it finds.
pub struct Inputs {
    /// The uplink.
    pub uplink: watch::Receiver<Current>,
    /// The nodes to be asked.
    pub peers: watch::Receiver<Arc<Peers>>,
    /// The cluster: the own node's addresses may change.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// The heartbeat secrets, newest first.
    pub secrets: watch::Receiver<Vec<Vec<u8>>>,
    /// What the next start of the speaker should know.
    pub kept: watch::Sender<Kept>,
    /// True once the speaker is to stop.
    pub stop: watch::Receiver<bool>,
}

/// At most this many frames are taken before questions are sent.
const BURST: usize = 64;

/// The test as it begins at `now`, with what it had found when the speaker last ran, which is published.
pub fn begin(
    place: &Place,
    current: &Current,
    world: &World,
    kept: &Kept,
    verdicts: &watch::Sender<Arc<Verdict>>,
    now: Duration,
) -> Tester {
    let own = own(place, current, Some(world)).unwrap_or(NOBODY);
    let tester = Tester::new(&place.me, place.boot_id, own, kept, now);
    publish(verdicts, tester.verdict(now));
    tester
}

/// Runs the test until the speaker stops. `origin` is when its time began.
///
/// # Errors
/// When a socket cannot be opened or fails for good.
pub async fn run(
    place: Place,
    mut tester: Tester,
    mut inputs: Inputs,
    verdicts: watch::Sender<Arc<Verdict>>,
    origin: Instant,
) -> anyhow::Result<()> {
    let filter = Filter::Udp {
        port: place.port,
        first: MAGIC,
    };
    let mut current = inputs.uplink.borrow_and_update().clone();
    let mut uplink =
        PacketSocket::open(current.link.index, filter).context("cannot listen for test frames")?;
    let mut mouth = Mouth::default();
    let world = inputs.world.borrow_and_update().clone();
    if let Some(own) = own(&place, &current, world.as_deref()) {
        tester.set_own(own, origin.elapsed());
    }
    let mut keys = keys(&inputs.secrets.borrow_and_update());
    let mut frame = vec![0; 2048];
    loop {
        let now = origin.elapsed();
        let shots = tester.tick(now);
        if shots.iter().any(|shot| shot.by_director) {
            mouth.open(filter, now).await;
        }
        if let Some(keys) = &keys {
            let shots = shots.iter();
            shots.for_each(|shot| mouth.send(shot, place.port, keys, &uplink));
        }
        let verdict = tester.verdict(now);
        tell(&inputs.kept, tester.kept(&verdict, now));
        publish(&verdicts, verdict);
        let deadline = tester
            .next_deadline()
            .unwrap_or(now + Duration::from_secs(60));
        tokio::select! {
            received = uplink.recv(&mut frame) => match received {
                Ok((length, _)) => uplink.pass(length, &mut frame, BURST, |heard| {
                    let Some(keys) = &keys else { return };
                    let answer = read(heard, keys).and_then(|(probe, family)| {
                        tester.on_probe(&probe, family, origin.elapsed())
                    });
                    if let Some(answer) = answer {
                        mouth.send(&answer, place.port, keys, &uplink);
                    }
                }),
                Err(error) if error.is_retryable() => {
                    // Down; when it is back, somebody may have moved the cable.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    tester.again(origin.elapsed());
                }
                Err(error) => return Err(error).context("cannot hear test frames"),
            },
            Ok(()) = inputs.peers.changed() => {
                let peers = inputs.peers.borrow_and_update().clone();
                tester.set_peers(Peers::clone(&peers), origin.elapsed());
            }
            Ok(()) = inputs.world.changed() => {
                let world = inputs.world.borrow_and_update().clone();
                if let Some(own) = self::own(&place, &current, world.as_deref()) {
                    tester.set_own(own, origin.elapsed());
                }
            }
            Ok(()) = inputs.uplink.changed() => {
                let before = std::mem::replace(&mut current, inputs.uplink.borrow_and_update().clone());
                if current.link.index != before.link.index {
                    match PacketSocket::open(current.link.index, filter) {
                        Ok(socket) => uplink = socket,
                        // It is gone again; the next notice tells of another one.
                        Err(error) => tracing::debug!(%error, "cannot listen for test frames"),
                    }
                }
                let world = inputs.world.borrow().clone();
                if let Some(own) = self::own(&place, &current, world.as_deref()) {
                    tester.set_own(own, origin.elapsed());
                }
                // Another switch port, perhaps with other rules.
                tester.again(origin.elapsed());
            }
            Ok(()) = inputs.secrets.changed() => {
                keys = self::keys(&inputs.secrets.borrow_and_update()).or(keys);
            }
            Ok(()) = inputs.stop.changed() => return Ok(()),
            () = tokio::time::sleep_until((origin + deadline).into()) => {}
        }
    }
}

/// What a node is that has no address yet: nobody is asked.
const NOBODY: Host = Host {
    v4: None,
    v6: None,
    uplink: Mac([0; 6]),
    director: None,
};

/// The own node as it is now; none while the cluster does not know it.
fn own(place: &Place, current: &Current, world: Option<&World>) -> Option<Host> {
    let node = world?.nodes.get(&place.me)?;
    Some(Host::of(node, current.link.mac, place.director))
}

fn keys(secrets: &[Vec<u8>]) -> Option<Keys> {
    let previous = secrets.get(1).map(Vec::as_slice);
    Some(Keys::labelled(secrets.first()?, previous, LABEL))
}

fn read(frame: &[u8], keys: &Keys) -> Option<(Probe, Family)> {
    let (route, payload) = udp::parse(frame).ok()?;
    Some((decode(payload, keys)?, Family::of(route.ip.1)))
}

/// Sends frames as the director does, from its link in its namespace.
#[derive(Default)]
struct Mouth {
    socket: Option<PacketSocket>,
    /// When it was last tried in vain to open it.
    tried: Option<Duration>,
}

impl Mouth {
    /// Opens the socket anew if the director's link has been made anew.
    async fn open(&mut self, filter: Filter, now: Duration) {
        let early = self
            .tried
            .is_some_and(|at| now < at + Duration::from_secs(1));
        if self.socket.is_some() || early {
            return;
        }
        self.tried = Some(now);
        // It hears nothing: what the director gets is heard on the uplink.
        match director::mouth().await {
            Ok((netns, link)) => match PacketSocket::open_in(&netns, link, filter) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => tracing::debug!(%error, "cannot send test frames"),
            },
            Err(error) => tracing::debug!(%error, "cannot send test frames"),
        }
    }

    fn send(&mut self, shot: &Shot, port: u16, keys: &Keys, uplink: &PacketSocket) {
        let socket = match (shot.by_director, &self.socket) {
            (true, Some(director)) => director,
            (true, None) => return,
            (false, _) => uplink,
        };
        let Some(frame) = udp::encode(&shot.route(port), &encode(&shot.probe, keys)) else {
            return;
        };
        // A frame that is not sent is one that does not arrive: it is sent again.
        if let Err(error) = socket.try_send(&frame) {
            tracing::debug!(%error, "test frame not sent");
            if shot.by_director && error.is_not_found() {
                self.socket = None;
            }
        }
    }
}

fn publish(verdicts: &watch::Sender<Arc<Verdict>>, verdict: Verdict) {
    verdicts.send_if_modified(|last| {
        if **last == verdict {
            return false;
        }
        let (reason, known) = (verdict.reason(), verdict.known);
        if verdict.fault.is_some() || verdict.deaf || !verdict.with.is_empty() {
            tracing::warn!(reason, known, "path test: {verdict}");
        } else if last.reason() != reason {
            tracing::info!(reason, known, "path test: {verdict}");
        }
        *last = Arc::new(verdict);
        true
    });
}
