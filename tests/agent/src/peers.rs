//! `peers`: the heartbeats of many nodes that are not there.
//!
//! Each has a Node object; together they are to a real speaker what the rest of a large cluster
//! is. They beat as [`lightship_membership::Rota`] says, spread evenly over the interval, and hold
//! VIPs between them. To a real speaker they react as others would: when it has started each says
//! something soon, and what it claims with a higher epoch they leave to it.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use lightship_membership::graph::Shape;
use lightship_membership::heartbeat::{MODE_ANNOUNCE, MODE_DIRECT_ROUTING};
use lightship_membership::rota::REPEATS;
use lightship_membership::{
    Claim, Draft, Flags, Heartbeat, Keys, NodeName, Rota, Scope, Turns, decode,
};
use serde::Deserialize;

/// Arguments of `peers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many.
    #[arg(long)]
    count: u16,
    /// The names of their Nodes, but for the number, which counts from 1.
    #[arg(long, default_value = "phantom-")]
    prefix: String,
    /// A real node, as NAME=ADDRESS.
    #[arg(long, required = true, value_name = "NAME=ADDRESS", value_parser = target)]
    target: Vec<(NodeName, IpAddr)>,
    /// The port of heartbeats.
    #[arg(long, default_value_t = 7733)]
    port: u16,
    /// Milliseconds between two heartbeats of a node.
    #[arg(long, default_value_t = 70)]
    interval: u64,
    /// They have directors.
    #[arg(long)]
    directors: bool,
}

/// What comes on standard input.
#[derive(Deserialize)]
struct Input {
    /// The key of the heartbeats, as the Secret has it.
    key: ByteString,
    /// The VIPs that they hold; without any they may hold none.
    vips: Vec<IpAddr>,
}

fn target(text: &str) -> Result<(NodeName, IpAddr), String> {
    let (name, address) = text.split_once('=').ok_or("not NAME=ADDRESS")?;
    let address = address.parse().map_err(|_| "no address after the =")?;
    Ok((name.into(), address))
}

/// One that is not there.
struct Peer {
    number: u16,
    rota: Rota,
    turns: Turns,
    /// So many heartbeats are to bring all claims as news.
    fresh: u32,
    beat: Heartbeat,
}

impl Peer {
    fn new(number: u16, args: &Args, vips: &[IpAddr], boot_id: u64) -> Self {
        let name = NodeName::from(format!("{}{number}", args.prefix));
        let held = vips.iter().skip(usize::from(number - 1));
        let mac = |kind| [2, kind, 0, 0, (number >> 8) as u8, number as u8];
        let beat = Heartbeat {
            sender: name.clone(),
            boot_id,
            counter: 0,
            flags: Flags {
                can_own: !vips.is_empty(),
                ..Flags::default()
            },
            uplink_mac: mac(0xee),
            director_mac: mac(0xef),
            mode: if args.directors {
                MODE_DIRECT_ROUTING
            } else {
                MODE_ANNOUNCE
            },
            table_digest: 0,
            page: 0,
            pages: 1,
            interface: "eth0".into(),
            late: Vec::new(),
            networks: [].into(),
            held_boot: None,
            further: [].into(),
            scope: None,
            // Even: as made by one who saw most of the cluster. High: it wins over what was.
            claims: held
                .step_by(args.count.into())
                .map(|vip| Claim {
                    vip: *vip,
                    epoch: 1 << 20,
                })
                .collect(),
        };
        Peer {
            number,
            rota: Rota::new(name, Shape::DEFAULT),
            turns: Turns::default(),
            fresh: REPEATS,
            beat,
        }
    }

    /// A real node's heartbeat, to whichever of them it was sent; it `starts` only now.
    fn hear(&mut self, starts: bool, theirs: &Heartbeat) {
        let before = self.beat.claims.len();
        self.beat.claims.retain(|ours| {
            let beaten = |claim: &Claim| claim.vip == ours.vip && claim.epoch > ours.epoch;
            !theirs.claims.iter().any(beaten)
        });
        if starts || self.beat.claims.len() != before {
            self.rota.tell_all();
            self.fresh = REPEATS;
        }
    }

    /// Sends what is due to the real nodes.
    fn beat(&mut self, args: &Args, keys: &Keys, socket: &UdpSocket) {
        self.beat.counter += 1;
        let mut draft = None;
        for (name, address) in &args.target {
            let Some(page) = self.rota.page(name) else {
                continue;
            };
            let draft = draft.get_or_insert_with(|| {
                let claims = self.beat.claims.iter();
                let digest = lightship_election::digest(claims.map(|c| (c.vip, c.epoch)));
                let scope = Some(Scope {
                    digest,
                    ..Scope::default()
                });
                let beat = Heartbeat {
                    scope,
                    ..self.beat.clone()
                };
                Draft::by_turns(beat, |_| self.fresh > 0, &mut self.turns)
            });
            for datagram in draft.due(page, keys) {
                // A lost one is what heartbeats are made for.
                let _ = socket.send_to(&datagram, SocketAddr::new(*address, args.port));
            }
        }
        self.rota.sent();
        self.fresh = self.fresh.saturating_sub(1);
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let input: Input = serde_json::from_str(&input).context("standard input")?;
    if args.count == 0 || args.interval == 0 {
        bail!("--count and --interval must be at least 1");
    }
    let keys = Keys::new(&input.key.0, None);
    let boot_id = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_nanos() as u64);
    let mut peers: Vec<Peer> = (1..=args.count)
        .map(|number| Peer::new(number, args, &input.vips, boot_id))
        .collect();
    let real = args.target.iter().map(|(name, _)| name.clone());
    let names: BTreeSet<NodeName> = peers
        .iter()
        .map(|peer| peer.beat.sender.clone())
        .chain(real)
        .collect();
    for peer in &mut peers {
        peer.rota.set_nodes(&names);
        peer.rota.tell_all();
    }
    let socket = UdpSocket::bind(("::", args.port)).context("the port of heartbeats")?;
    socket.set_nonblocking(true)?;
    let mut ear = Ear::new(socket.try_clone()?, keys.clone());
    let start = Instant::now();
    for step in 0_u64.. {
        let due = start + Duration::from_millis(step);
        if let Some(pause) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(pause);
        }
        for (starts, beat) in ear.hear() {
            peers.iter_mut().for_each(|peer| peer.hear(starts, &beat));
        }
        let turn = step % args.interval;
        let whose = |peer: &&mut Peer| u64::from(peer.number) % args.interval == turn;
        for peer in peers.iter_mut().filter(whose) {
            peer.beat(args, &keys, &socket);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// So many pages of real speakers' heartbeats are remembered as heard.
const MANY: usize = 10_000;

/// What real speakers send.
struct Ear {
    socket: UdpSocket,
    keys: Keys,
    boots: BTreeSet<(NodeName, u64)>,
    seen: BTreeSet<(u64, u64, u16)>,
}

impl Ear {
    /// A socket that never blocks. Nobody waits for it: on one machine the sender would pay for waking a reader.
    fn new(socket: UdpSocket, keys: Keys) -> Self {
        Ear {
            socket,
            keys,
            boots: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    /// What has come that claims something, or is the first that asks for answers after a start, which is also
    /// said: later ones ask a single node, and to which an answer is due is not seen here.
    fn hear(&mut self) -> Vec<(bool, Heartbeat)> {
        let mut heard = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let Ok(beat) = decode(&buffer[..length], &self.keys) else {
                continue;
            };
            // Each of them is sent it, and one word of it is enough.
            if !self.seen.insert((beat.boot_id, beat.counter, beat.page)) {
                continue;
            }
            if self.seen.len() > MANY {
                self.seen.clear();
            }
            let boot = (beat.sender.clone(), beat.boot_id);
            let starts = beat.flags.solicit && self.boots.insert(boot);
            if starts || !beat.claims.is_empty() {
                heard.push((starts, beat));
            }
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(count: u16) -> Args {
        Args {
            count,
            prefix: "p".into(),
            target: Vec::new(),
            port: 1,
            interval: 100,
            directors: false,
        }
    }

    #[test]
    fn they_hold_every_vip_once_between_them() {
        let args = args(3);
        let vips: Vec<IpAddr> = (1..=7).map(|n| [192, 0, 2, n].into()).collect();
        let peers = (1..=3).map(|number| Peer::new(number, &args, &vips, 1));
        let mut held: Vec<IpAddr> = peers
            .flat_map(|peer| peer.beat.claims.into_iter().map(|claim| claim.vip))
            .collect();
        held.sort();
        assert_eq!(held, vips);
        assert!(!Peer::new(1, &args, &[], 1).beat.flags.can_own);
    }

    #[test]
    fn what_a_real_node_claims_anew_is_left_to_it() {
        let vips: Vec<IpAddr> = (1..=4).map(|n| [192, 0, 2, n].into()).collect();
        let mut theirs = Peer::new(9, &args(2), &[], 1).beat;
        let mut peers = [1, 2].map(|number| Peer::new(number, &args(2), &vips, 1));
        let claim = |vip: usize, epoch| Claim {
            vip: vips[vip],
            epoch,
        };
        theirs.claims = vec![claim(0, (1 << 20) + 2), claim(1, 2)];
        peers.iter_mut().for_each(|peer| peer.hear(false, &theirs));
        let held = peers.map(|peer| peer.beat.claims.len());
        assert_eq!(held, [1, 2]);
    }

    #[test]
    fn a_target_is_a_name_and_an_address() {
        let found = target("node1=2001:db8:2::11").unwrap();
        assert_eq!(found, ("node1".into(), "2001:db8:2::11".parse().unwrap()));
        assert!(target("node1").is_err());
    }
}
