//! What this node hears: heartbeats of its peers, and frames on its uplinks.

use std::net::IpAddr;
use std::time::Duration;

use lightship_election::{Claim, ENDED, Scope};
use lightship_membership::heartbeat::{MAX_PAGES, MODE_DIRECT_ROUTING};
use lightship_membership::{Event, Heartbeat, PeerState, ReplayError, decode};

use lightship_frames::Mac;

use super::conflicts::Verdict;
use super::refusals::Sender;
use super::{Core, Output, neighbours};
use crate::cache::SavedPeer;
use crate::further::Via;
use crate::schedule::{RETRY, Urgency};
use crate::world::NodeName;

/// How long after a defence the next one of the same VIP may follow: the steps of the first
/// one cover that time.
const DEFENCE: Duration = Duration::from_secs(1);

/// The same for the end of a claim, in heartbeats: it is told three times and counts once, also soon after the claim
/// itself did, for what the other one announced last came after what was said against that.
const LAST_WORDS: u32 = 5;

impl Core {
    /// Takes a datagram from the heartbeat port.
    pub fn on_datagram(&mut self, from: IpAddr, datagram: &[u8], now: Duration) {
        if datagram.first() == Some(&lightship_membership::path::MAGIC) {
            // Of the path test, which has heard it on the uplink itself.
            return;
        }
        match decode(datagram, &self.keys) {
            Ok(beat) => self.on_heartbeat(from, &beat, now),
            Err(error) => self.refuse(Sender::Address(from), error.reason(), now),
        }
    }

    /// Takes a heartbeat that has been authenticated and read.
    pub fn on_heartbeat(&mut self, from: IpAddr, beat: &Heartbeat, now: Duration) {
        if beat.sender == self.setup.me {
            return self.refuse(Sender::Address(from), "own name", now);
        }
        let content = content(beat);
        let known = self.peers.get(&beat.sender);
        let same = known.is_some_and(|peer| content.is_some() && peer.content == content);
        // Of a node that is gone nothing is known here either.
        if known.is_none() && !self.world.nodes.contains_key(&beat.sender) {
            return self.refuse(Sender::Node(beat.sender.clone()), "unknown node", now);
        }
        if let Err(error) = self.guard.check(beat) {
            if let ReplayError::OldBoot { newest, .. } = error {
                self.tell_boot(&beat.sender, newest, now);
            }
            return self.refuse(Sender::Node(beat.sender.clone()), error.reason(), now);
        }
        // Nothing follows from it then that did not follow from the one before, and among hundreds of nodes
        // looking for that takes the greater part of the time. What it claims may be owned here since.
        if same
            && !beat.claims.iter().any(|c| self.owned.contains_key(&c.vip))
            && self.detector.on_beat_of_live(&beat.sender, now)
        {
            self.unreported |= self.look_again;
            return self.settle(now);
        }
        if let Some(held) = beat.held_boot {
            self.outdo(held, now);
        }
        let told = SavedPeer {
            uplink_mac: beat.uplink_mac,
            director_mac: beat.director_mac,
            direct_routing: beat.mode == MODE_DIRECT_ROUTING,
            interface: beat.interface.clone(),
            networks: beat.networks.clone(),
            further: beat.further.iter().map(Into::into).collect(),
        };
        let peer = self.peers.entry(beat.sender.clone()).or_default();
        peer.content = content;
        if peer.told.as_ref() != Some(&told) {
            let macs: Vec<Mac> = told.macs().map(Mac).collect();
            peer.told = Some(told);
            self.unreported |= self.conflicts.ours(&macs);
            self.stale = true;
            self.out.push(Output::Save);
        }
        self.stale |=
            std::mem::replace(&mut peer.can_own, beat.flags.can_own) != beat.flags.can_own;
        self.stale |= std::mem::replace(&mut peer.idle, beat.flags.idle) != beat.flags.idle;
        self.stale |= std::mem::replace(&mut peer.holds_us, beat.flags.hold) != beat.flags.hold;
        let was = self.detector.state(&beat.sender);
        if matches!(was, PeerState::Dead | PeerState::SpeakerLost) {
            // It heard us no more than we it, so it may have announced what it held, or all; also if
            // it started only now, for it may have been cut off before that. What is owned here when the
            // claims have been compared has to be said again, also if the peer yields before its claims
            // are heard.
            self.say_again = Some(now + self.setup.interval * 2);
        }
        let flags = &beat.flags;
        let paths = (flags.tests_paths, flags.director, flags.proven);
        self.stale |= (peer.tests_paths, peer.director, peer.proven) != paths;
        (peer.tests_paths, peer.director, peer.proven) = paths;
        self.unreported |=
            std::mem::replace(&mut peer.digest, beat.table_digest) != beat.table_digest;
        // Once per heartbeat, not once per page of it.
        let alone = beat.scope.is_some_and(|scope| scope.alone);
        if beat.flags.solicit && (beat.page == 0 || alone) {
            self.send_heartbeat_to(&beat.sender, false, now);
        }
        let events = self
            .detector
            .on_heartbeat(&beat.sender, beat.flags.leaving, now);
        self.take_events(events, now);
        for digest in &beat.late {
            self.detector.on_late(&beat.sender, *digest, now);
        }
        self.election.heard(&beat.sender);
        self.defend(beat, now);
        // Who claims more than goes on all pages has no more to tell.
        let whole = beat.pages < MAX_PAGES;
        if !self.take_claims(beat) && alone && whole && self.settled {
            self.ask_for_claims(&beat.sender, now);
        }
        self.unreported |= self.look_again;
        self.settle(now);
    }

    /// Hands the claims of a heartbeat to the election. Returns whether all of the sender's are known now, as far
    /// as it says.
    fn take_claims(&mut self, beat: &Heartbeat) -> bool {
        let claims = beat.claims.iter().map(|c| Claim {
            vip: c.vip,
            epoch: c.epoch,
        });
        let Some(scope) = &beat.scope else {
            // An older release names with no epoch what it answered for until just now.
            let claims: Vec<Claim> = claims.filter(|claim| claim.epoch != ENDED).collect();
            self.election
                .on_claims(&beat.sender, beat.page, beat.pages, &claims);
            return true;
        };
        let claims: Vec<Claim> = claims.collect();
        let scope = Scope {
            from: scope.from,
            until: scope.until,
            digest: scope.digest,
        };
        self.election.on_told(&beat.sender, &claims, &scope)
    }

    /// Takes a frame from an uplink.
    pub fn on_frame(&mut self, via: &Via, frame: &[u8], now: Duration) {
        match neighbours::read(frame) {
            Ok(neighbours::Heard::Question {
                target,
                asker,
                asker_mac,
            }) => {
                // Who asks in the name of a VIP uses it.
                self.on_claim(via, asker, asker_mac.0, now);
                if self.owned.get(&target).is_some_and(|o| o.announced) && self.via(target) == *via
                {
                    let mac = self.announced_mac(target);
                    let answer = neighbours::answer(target, mac, asker, asker_mac);
                    match target {
                        IpAddr::V4(_) => self.tally.arp_answers += 1,
                        IpAddr::V6(_) => self.tally.ndp_answers += 1,
                    }
                    let answer = answer.map(|f| Output::Frame(via.clone(), f));
                    self.out.extend(answer);
                }
            }
            Ok(neighbours::Heard::Claim { address, mac }) => {
                self.on_claim(via, address, mac.0, now);
            }
            // Not for us, or not worth a word: the LAN carries much that is neither.
            Err(_) => {}
        }
    }

    /// A node's kernel that answers for the node's own address lives. Another machine that answers
    /// for a VIP should not.
    fn on_claim(&mut self, via: &Via, address: IpAddr, mac: [u8; 6], now: Duration) {
        if let Some(owned) = self.owned.get(&address) {
            let announced = owned.announced;
            // A router may answer for it on another LAN (proxy ARP), which harms nobody there.
            if self.via(address) == *via && !self.is_ours(mac) {
                self.on_foreign(address, Mac(mac), announced, now);
            }
            return;
        }
        if *via != Via::Main {
            return;
        }
        let is = |peer: &NodeName| {
            let node = self.world.nodes.get(peer);
            node.is_some_and(|node| node.address_like(address) == Some(address))
        };
        // The MACs first: among hundreds of nodes some kernel answers all the time.
        let mut found = self.peers.iter().filter(|(_, peer)| {
            let told = peer.told.as_ref();
            told.is_some_and(|told| told.uplink_mac == mac)
        });
        let found = found.find(|(name, _)| is(name));
        if let Some(name) = found.map(|(name, _)| name.clone()) {
            let events = self.detector.on_probe_reply(&name, now);
            self.take_events(events, now);
        }
    }

    /// Whether a MAC is this node's or that of a peer, as its heartbeats told.
    fn is_ours(&self, mac: [u8; 6]) -> bool {
        let own = [self.setup.uplink_mac.0, self.setup.director_mac.0];
        let mut further = self.further.iter().map(|own| &own.told);
        let mut told = self.peers.values().filter_map(|peer| peer.told.as_ref());
        own.contains(&mac)
            || further.any(|f| f.mac == mac || f.director_mac == mac)
            || told.any(|t| t.macs().any(|m| m == mac))
    }

    fn on_foreign(&mut self, vip: IpAddr, mac: Mac, announced: bool, now: Duration) {
        let verdict = self.conflicts.heard(vip, mac, announced, now);
        if verdict == Verdict::Known {
            return;
        }
        self.unreported = true;
        self.tally.conflicts += 1;
        if verdict == Verdict::Defend {
            tracing::warn!(%vip, %mac, "another machine claims the VIP too; announced once more");
            self.schedule.once(vip, now);
        } else if announced {
            tracing::warn!(%vip, %mac, "one more machine claims the VIP; it was announced anew a moment ago");
        } else {
            tracing::warn!(%vip, %mac, "another machine uses the VIP: it is not announced");
        }
    }

    /// Asks the LAN who uses the VIPs that are to be announced for the first time.
    pub(super) fn probe_vips(&mut self, now: Duration) {
        let wait = self.setup.conflict_wait;
        for vip in self.conflicts.due(wait, &mut self.pace, now) {
            let nobody = match vip {
                IpAddr::V4(_) => IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED),
            };
            // In the uplink's own name: an answer to the director's MAC might not come by here.
            let via = self.via(vip);
            let frame = neighbours::question((nobody, self.mac_of(&via)), vip);
            self.tally.probes += 1;
            self.out.extend(frame.map(|f| Output::Frame(via, f)));
        }
    }

    /// Takes back that a frame of [`Output::Frame`] was sent: the socket refused it. A probe or an
    /// announcement is tried again; an answer is not, since who asked asks again.
    pub fn on_unsent(&mut self, frame: &[u8], now: Duration) {
        self.tally.unsent += 1;
        let to_all = frame.first().is_some_and(|octet| octet & 1 == 1);
        match neighbours::read(frame) {
            Ok(neighbours::Heard::Question { target, asker, .. }) if asker.is_unspecified() => {
                self.conflicts.unsent(target, now);
            }
            Ok(neighbours::Heard::Claim { address, .. }) if to_all => {
                self.schedule.once(address, now + RETRY);
            }
            _ => {}
        }
    }

    pub(super) fn take_events(&mut self, events: Vec<Event>, now: Duration) {
        for event in events {
            match event {
                Event::Changed {
                    node,
                    from,
                    to,
                    silent_for,
                } => {
                    tracing::info!(%node, ?from, ?to, ?silent_for, "peer");
                    // That a node is late changes nothing yet, and where frames are lost it is common.
                    let late = from.can_own() && to.can_own();
                    self.stale |= !late || !self.majority;
                    self.out.push(Output::Peer(node.clone(), from, to));
                    if let Some(peer) = self.peers.get_mut(&node) {
                        match to {
                            PeerState::Dead => peer.buried = true,
                            PeerState::Alive | PeerState::Leaving => peer.buried = false,
                            _ => {}
                        }
                    }
                    if from.can_own() && matches!(to, PeerState::Dead | PeerState::SpeakerLost) {
                        // When most are out of sight it is this node that was cut off, and
                        // silence says nothing of the others. Half may be: of two, one died.
                        if !self.mostly_blind(now) {
                            self.flaps.lost(&node, now);
                        }
                    } else if to == PeerState::Alive && !from.can_own() {
                        self.flaps.back(&node, now);
                    }
                    if (!to.node_alive() || !to.can_own()) && !self.rota.sparse() {
                        // Peers should hear what follows from it at once. Where there are very many,
                        // only those speak of whom something follows.
                        self.next_beat = now;
                    }
                    if matches!(from, PeerState::Dead | PeerState::SpeakerLost)
                        && to == PeerState::Alive
                        && (self.rota.sparse() || self.pages > 1)
                    {
                        // It may not hear from here for long, or not of all claims, if it was the way
                        // that was cut.
                        self.send_heartbeat_to(&node, false, now);
                    }
                }
                Event::Late(node) => {
                    tracing::info!(%node, "late, others are told to look");
                    self.rota.tell_late(&node);
                    self.next_beat = now;
                }
                Event::Probe(node) => {
                    self.probe(&node);
                    self.send_heartbeat_to(&node, true, now);
                }
            }
        }
    }

    /// Announces anew what this node owns and a peer whose claim does not beat its own may have
    /// announced too, or did until just now, as the end of its claim says: the peer falls silent when it
    /// hears of the higher claim, but clients that heeded it have to be won back. The order of equal claims
    /// is the election's matter, which stops the announcements of what is lost.
    fn defend(&mut self, beat: &Heartbeat, now: Duration) {
        for claim in &beat.claims {
            if let Some(owned) = self.owned.get_mut(&claim.vip)
                && !owned.announced
                && owned.epoch >= claim.epoch
            {
                // Since this speaker stopped, another one has told the LAN something else.
                owned.resumed = false;
            }
            let ours = self
                .owned
                .get(&claim.vip)
                .is_some_and(|o| o.announced && o.epoch >= claim.epoch);
            let since = self
                .defended
                .get(&claim.vip)
                .map(|at| now.saturating_sub(*at));
            let pause = match claim.epoch {
                ENDED => DEFENCE.min(self.setup.interval * LAST_WORDS),
                _ => DEFENCE,
            };
            if ours && since.is_none_or(|since| since >= pause) {
                tracing::info!(vip = %claim.vip, by = %beat.sender, "claimed by another node too; announced anew");
                self.defended.insert(claim.vip, now);
                self.schedule.burst(claim.vip, Urgency::Lost, now);
            }
        }
    }

    fn probe(&mut self, node: &NodeName) {
        let Some(told) = self.peers.get(node).and_then(|p| p.told.as_ref()) else {
            return;
        };
        let (Some(them), Some(us)) = (
            self.world.nodes.get(node),
            self.world.nodes.get(&self.setup.me),
        ) else {
            return;
        };
        let Some(address) = us.way_to(them) else {
            return;
        };
        let Some(own) = us.address_like(address) else {
            return;
        };
        let to = (address, lightship_frames::Mac(told.uplink_mac));
        let frame = neighbours::probe((own, self.setup.uplink_mac), to);
        self.out.extend(frame.map(|f| Output::Frame(Via::Main, f)));
    }

    /// A peer has heard of a later boot of this node than this one is by its clock.
    fn outdo(&mut self, held: u64, now: Duration) {
        if held <= self.setup.boot_id {
            return;
        }
        tracing::warn!(
            ours = self.setup.boot_id,
            held,
            "the clock went back since the last boot: heartbeats were refused as old; going on above"
        );
        self.setup.boot_id = held.saturating_add(1);
        self.rota.tell_all();
        self.next_beat = now;
        self.out.push(Output::Save);
    }

    fn refuse(&mut self, from: Sender, reason: &'static str, now: Duration) {
        if let Some((from, count)) = self.refusals.note(from, reason, now) {
            tracing::warn!(%from, reason, count, "heartbeat refused");
        }
    }
}

/// Stands for what a heartbeat says if it only says that its sender is still there, as nearly all do.
fn content(beat: &Heartbeat) -> Option<u64> {
    let asks = beat.flags.solicit || beat.flags.leaving || beat.held_boot.is_some();
    let more = asks || beat.pages > 1 || !beat.late.is_empty();
    (!more).then(|| beat.content())
}
