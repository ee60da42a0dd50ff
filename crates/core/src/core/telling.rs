//! What this node tells its peers in its heartbeats, and which datagrams of them each gets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_election::ENDED;
use lightship_membership::heartbeat::{MODE_ANNOUNCE, MODE_DIRECT_ROUTING};
use lightship_membership::{Claim, Draft, Flags, Heartbeat, Scope, Turns};

use super::{Core, Output};
use crate::world::{Node, NodeName};

impl Core {
    /// Sends the heartbeat that is due to every other node whose turn it is, dead ones included: one
    /// that comes back should learn at once who is there.
    pub(super) fn send_heartbeats(&mut self, now: Duration) {
        self.next_beat = now + self.setup.interval;
        self.news.tidy(now);
        let says = (self.can_own(), self.leaving, self.shareless());
        if std::mem::replace(&mut self.said, says) != says || self.leaving || !self.settled {
            self.rota.tell_all();
        }
        // While this speaker is new, everybody is asked to answer at once: it then knows all
        // claims after a round trip instead of an interval.
        let beat = self.beat(!self.settled, false, None);
        let mut draft = Draft::by_turns(beat, |vip| self.news.has(vip), &mut self.turns);
        self.pages = draft.pages();
        // Nodes that flap are told so, in datagrams of their own.
        let held = self.flaps.held(now);
        let mut told = (!held.is_empty()).then(|| draft.holding());
        let own = self.world.nodes.get(&self.setup.me);
        for (name, page) in self.rota.due() {
            let node = self.world.nodes.get(name);
            let Some(address) = node.and_then(|node| way(own, node)) else {
                continue;
            };
            let draft = match &mut told {
                Some(told) if held.contains(name) => told,
                _ => &mut draft,
            };
            let datagrams = draft.due(page, &self.keys).into_iter();
            self.out
                .extend(datagrams.map(|d| Output::Heartbeat(address, d)));
        }
        self.rota.sent();
        self.news.sent();
    }

    /// Sends one node all that there is to say, now.
    pub(super) fn send_heartbeat_to(&mut self, name: &NodeName, solicit: bool, now: Duration) {
        self.send_special(name, solicit, None, now);
    }

    /// Has a node tell all of its claims, of which this one has missed some. At most once in the time after
    /// which a silent node is given up: the answer may be lost, and its other pages come by turns anyway.
    pub(super) fn ask_for_claims(&mut self, name: &NodeName, now: Duration) {
        let pause = self.detector.config().timeout();
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.asked.is_some_and(|at| now < at + pause) {
            return;
        }
        peer.asked = Some(now);
        tracing::debug!(node = %name, "claims are missing, asked for all");
        self.news.tidy(now);
        if let Some(address) = self.way_to_name(name) {
            let beat = self.beat(true, self.flaps.holds(name, now), None);
            // It is to answer, and need not hear more than at any turn.
            let has = |vip: &IpAddr| self.news.has(vip);
            let datagrams = Draft::by_turns(beat, has, &mut Turns::default()).due(0, &self.keys);
            let datagrams = datagrams.into_iter();
            self.out
                .extend(datagrams.map(|d| Output::Heartbeat(address, d)));
        }
    }

    /// Tells a node whose clock went back over a reboot from where its boot ids have to go on: without
    /// that all would refuse it until its clock is right and its speaker starts again. One answer at
    /// most in each interval. Somebody who replays a node's old datagrams only makes it hear again of
    /// the boot id that it has.
    pub(super) fn tell_boot(&mut self, name: &NodeName, newest: u64, now: Duration) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer
            .boot_told
            .is_none_or(|at| now >= at + self.setup.interval)
        {
            peer.boot_told = Some(now);
            self.send_special(name, false, Some(newest), now);
        }
    }

    fn send_special(
        &mut self,
        name: &NodeName,
        solicit: bool,
        held_boot: Option<u64>,
        now: Duration,
    ) {
        self.news.tidy(now);
        if let Some(address) = self.way_to_name(name) {
            let datagrams = self.heartbeat(solicit, self.flaps.holds(name, now), held_boot);
            self.out
                .extend(datagrams.into_iter().map(|d| Output::Heartbeat(address, d)));
        }
    }

    /// Where heartbeats to a node go.
    fn way_to_name(&self, name: &NodeName) -> Option<IpAddr> {
        let nodes = &self.world.nodes;
        way(nodes.get(&self.setup.me), nodes.get(name)?)
    }

    /// All that this node has to say, in as many datagrams as that takes.
    pub(super) fn heartbeat(
        &mut self,
        solicit: bool,
        hold: bool,
        held_boot: Option<u64>,
    ) -> Vec<Arc<[u8]>> {
        Draft::whole(self.beat(solicit, hold, held_boot)).all(&self.keys)
    }

    fn beat(&mut self, solicit: bool, hold: bool, held_boot: Option<u64>) -> Heartbeat {
        self.counter += 1;
        let direct_routing = self.directs();
        let claims = self.election.claims();
        let digest = lightship_election::digest(claims.iter().map(|c| (c.vip, c.epoch)));
        let claims = claims.into_iter().map(|c| Claim {
            vip: c.vip,
            epoch: c.epoch,
        });
        let ended = self.news.vips();
        let ended = ended.filter(|vip| self.election.claim(vip).is_none());
        let ended = ended.map(|vip| Claim { vip, epoch: ENDED });
        Heartbeat {
            sender: self.setup.me.clone(),
            boot_id: self.setup.boot_id,
            counter: self.counter,
            flags: Flags {
                leaving: self.leaving,
                can_own: self.can_own(),
                solicit,
                hold,
                idle: self.shareless(),
                tests_paths: true,
                director: self.setup.direct_routing,
                proven: self.proven,
            },
            uplink_mac: self.setup.uplink_mac.0,
            director_mac: self.setup.director_mac.0,
            mode: if direct_routing {
                MODE_DIRECT_ROUTING
            } else {
                MODE_ANNOUNCE
            },
            table_digest: self.director.digest,
            page: 0,
            pages: 1,
            interface: self.setup.interface.clone(),
            late: self.rota.late(),
            networks: self.networks.clone(),
            held_boot,
            further: self.further.iter().map(|own| (&own.told).into()).collect(),
            scope: Some(Scope {
                digest,
                ..Scope::default()
            }),
            claims: claims.chain(ended).collect(),
        }
    }
}

/// Where heartbeats from `own` to another node go.
fn way(own: Option<&Node>, node: &Node) -> Option<IpAddr> {
    match own {
        Some(own) => own.way_to(node),
        // The own Node object was deleted; the sockets are still there.
        None => node.main_address(),
    }
}
