//! Ownership: from the intent to claims, announcements and what is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_election::{Action, Away, Candidates, Claim, MoveReason};
use lightship_membership::PeerState;

use super::{Core, DIRECTOR_WAIT, DirectorIntent, Listen, Move, Output, Owned};
use crate::pace::Kind;
use crate::schedule::Urgency;
use crate::world::{Node, NodeName};

impl Core {
    /// Claims again what this node owned before the speaker restarted. Nothing is
    /// said on the LAN before the peers have been heard: another node may have taken over.
    pub(super) fn resume(&mut self, claims: &BTreeMap<IpAddr, u64>, now: Duration) {
        for vip in claims.keys() {
            self.news.note(*vip, self.setup.interval, now);
        }
        let claims: Vec<Claim> = claims
            .iter()
            .map(|(vip, epoch)| Claim {
                vip: *vip,
                epoch: *epoch,
            })
            .collect();
        self.election.resume(&claims);
    }

    /// Computes the intent anew if anything it depends on has changed, and passes on what
    /// follows: the director's table and the election's candidates.
    pub(super) fn refresh(&mut self, now: Duration) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        self.unreported = true;
        self.note_moved();
        self.retiring.update(&self.world, self.setup.policy, now);
        let health = self.health();
        let policy = self.setup.policy;
        let touched = self
            .memo
            .update(&mut self.intent, &self.world, health, policy);
        let touched = touched.as_ref();
        self.turn(touched);
        self.listen(touched);
        self.tell_uplinks(touched);
        self.majority = self.majority(now);
        self.election.set_majority(self.majority, now);
        // One interval more, for what is late.
        let round = self.setup.interval * (self.rota.round() + 1);
        self.election.set_round(round);
        let mut live: BTreeSet<NodeName> = self
            .peers
            .iter()
            .filter(|(name, peer)| peer.can_own && self.detector.state(name).can_own())
            .map(|(name, _)| name.clone())
            .collect();
        if self.can_own() {
            live.insert(self.setup.me.clone());
        }
        let away = self.peers.iter().filter_map(|(name, peer)| {
            let away = match self.detector.state(name) {
                PeerState::Leaving | PeerState::Left => Away::Left,
                state if state.can_own() && !peer.can_own => Away::NotEligible,
                _ => return None,
            };
            Some((name.clone(), away))
        });
        self.election.set_away(away.collect());
        self.election.set_live(live);
        self.nominate(touched);
        // Before the peers were heard their weights are a guess: what the kernel holds from
        // before a restart is better.
        if self.settled && self.setup.direct_routing {
            self.direct(now);
        }
    }

    /// Tells the election who may own each VIP. `touched`: the VIPs of which that may be new; none: all.
    fn nominate(&mut self, touched: Option<&BTreeSet<IpAddr>>) {
        let mut nominated = std::mem::take(&mut self.nominated);
        let mut candidates = |vip: &IpAddr| {
            let shared = nominated.of(&self.intent.vips.get(vip)?.eligibility);
            let wanted = self.wanted(*vip);
            Some(Candidates { wanted, ..shared })
        };
        match touched.filter(|_| !self.wishes_changed) {
            Some(touched) => {
                let changed = touched.iter().map(|vip| (*vip, candidates(vip)));
                let changed: Vec<_> = changed.collect();
                self.election.update_vips(changed);
            }
            None => {
                let all = self.intent.vips.keys();
                let all = all.filter_map(|vip| Some((*vip, candidates(vip)?)));
                let all = all.collect();
                self.election.set_vips(all);
            }
        }
        self.wishes_changed = false;
        nominated.tidy();
        self.nominated = nominated;
    }

    /// Says which frames are of use. It precedes all frames about a new VIP, because
    /// nothing is probed for or announced before the intent has it. `touched`: the VIPs that may be new or gone,
    /// with no other nodes than before; none: all may.
    fn listen(&mut self, touched: Option<&BTreeSet<IpAddr>>) {
        if let (Some(touched), Some(sent)) = (touched, &self.sent_listen) {
            let same = |vip: &IpAddr| sent.vips.contains(vip) == self.intent.vips.contains_key(vip);
            if touched.iter().all(same) {
                return;
            }
        }
        let nodes = self.world.nodes.iter();
        let others = nodes.filter(|(name, _)| **name != self.setup.me);
        let listen = Listen {
            vips: self.intent.vips.keys().copied().collect(),
            nodes: others.flat_map(|(_, node)| node.addresses()).collect(),
        };
        if self.sent_listen.as_ref() != Some(&listen) {
            self.sent_listen = Some(listen.clone());
            self.out.push(Output::Listen(listen));
        }
    }

    fn direct(&mut self, now: Duration) {
        let wanted = self.intent.virtuals.iter();
        let weights = wanted.map(|(key, v)| (*key, v.weights.clone())).collect();
        let mut weights = self.grace.apply(weights, now);
        let dead = self.peers.iter().filter(|(name, peer)| {
            let alive = !peer.buried && self.detector.state(name).node_alive();
            peer.told.is_some() && !alive
        });
        let dead = dead.map(|(name, _)| name.clone()).collect();
        let dead = self.detours.update(dead, now);
        let nodes = &self.world.nodes;
        let addresses = |name: &NodeName| nodes.get(name).into_iter().flat_map(Node::addresses);
        let peers = self
            .peers
            .iter()
            .filter_map(|(name, peer)| Some((name, peer.told.as_ref()?)));
        let virtuals = self.intent.virtuals.iter().map(|(key, v)| {
            let mut v = v.clone();
            v.weights = weights.remove(key).unwrap_or_default();
            (*key, v)
        });
        let revision = self.sent_director.as_ref().map_or(0, |sent| sent.revision);
        let mut intent = DirectorIntent {
            revision,
            own: addresses(&self.setup.me).collect(),
            peers: peers
                .flat_map(|(name, told)| {
                    let mac = lightship_frames::Mac(told.uplink_mac);
                    addresses(name).map(move |address| (address, mac))
                })
                .collect(),
            uplinks: self.director_uplinks(),
            // A VIP without a service would be answered by the namespace's own TCP: RST.
            vips: self.intent.virtuals.keys().map(|key| key.vip).collect(),
            virtuals: virtuals.collect(),
        };
        let dead = dead.iter().flat_map(addresses).collect();
        super::detour::redirect(&dead, &intent.virtuals, &mut intent.own, &mut intent.peers);
        if self.sent_director.as_deref() != Some(&intent) {
            intent.revision += 1;
            let intent = Arc::new(intent);
            self.sent_director = Some(intent.clone());
            self.out.push(Output::Director(intent));
        }
    }

    pub(super) fn step_election(&mut self, now: Duration) {
        // A process that was stopped wakes with stale news: it listens for a full timeout
        // before it takes anything.
        if let Some(at) = self.detector.woken_at(now) {
            self.election
                .listen_until(at + self.detector.config().timeout());
            if self.woken.replace(at) != Some(at) && self.detector.was_missed() {
                // Another may have announced what is owned here, and be gone again before it was
                // heard. What is still owned when the claims have been compared is announced anew.
                self.say_again = Some(now + self.setup.interval * 2);
            }
        }
        self.election.set_prepared(self.ready());
        let actions = self.election.step(now);
        if actions.is_empty() {
            return;
        }
        for action in actions {
            match action {
                Action::Take {
                    vip,
                    epoch,
                    from,
                    reason,
                } => {
                    let from_text = from.as_deref().unwrap_or("nobody");
                    tracing::info!(%vip, epoch, from = from_text, %reason, "VIP taken");
                    *self.taken.entry(reason.as_str()).or_default() += 1;
                    let resumed = reason == MoveReason::Resumed;
                    let at = self.at(vip);
                    self.news.note(vip, self.setup.interval, now);
                    self.owned.insert(
                        vip,
                        Owned {
                            epoch,
                            since: now,
                            announced: false,
                            resumed,
                            at,
                            urgency: urgency(reason),
                            handed_over: !matches!(
                                reason,
                                MoveReason::FirstOwner | MoveReason::OwnerDied
                            ),
                        },
                    );
                    if resumed {
                        continue;
                    }
                    if reason == MoveReason::FirstOwner && !self.setup.conflict_wait.is_zero() {
                        self.conflicts.probe(vip, now);
                    }
                    let moved = Move {
                        epoch,
                        from,
                        reason: reason.as_str().to_owned(),
                        at: now,
                    };
                    self.moves.insert(vip, moved);
                }
                Action::Release { vip, to, reason } => {
                    let to_text = to.as_deref().unwrap_or("nobody");
                    tracing::info!(%vip, to = to_text, %reason, "VIP released");
                    *self.released.entry(reason.as_str()).or_default() += 1;
                    self.owned.remove(&vip);
                    // Also for the owner: clients may have heeded an answer of ours that came after its own.
                    self.news.note(vip, self.setup.interval, now);
                    self.moves.remove(&vip);
                    self.schedule.stop(vip);
                    self.defended.remove(&vip);
                    self.conflicts.forget(vip);
                }
            }
        }
        self.note_moved();
        self.unreported = true;
        // Peers should hear of it before the next regular beat.
        self.next_beat = now;
        self.rota.tell_all();
        self.out.push(Output::Save);
    }

    /// When the next announcement has waited long enough for the director.
    pub(super) fn director_wait_over(&self, now: Duration) -> Option<Duration> {
        let silent = self.owned.values().filter(|owned| !owned.announced);
        let ends = silent.map(|owned| owned.since + DIRECTOR_WAIT);
        ends.filter(|at| *at > now).min()
    }

    /// Has announced what is owned and in place.
    pub(super) fn announce(&mut self, now: Duration) {
        let silent: Vec<IpAddr> = self
            .owned
            .iter()
            .filter(|(_, o)| !o.announced)
            .map(|(vip, _)| *vip)
            .collect();
        for vip in silent {
            // Services and destinations come first, then the route, then the word. The table
            // must know by then which nodes are gone: a packet that comes before
            // it does makes an entry that sends its whole connection to a dead node. A
            // director that is slow to change is better than none, though, and so is one that lags
            // where the owner before falls silent at once: nobody would answer.
            let sent = self.sent_director.as_ref().map_or(0, |sent| sent.revision);
            let up_to_date = self.director.applied >= sent;
            let waited = |o: &Owned| o.handed_over || now >= o.since + DIRECTOR_WAIT;
            let in_place = !self.directed(vip)
                || (self.director.programmed.contains(&vip)
                    && self.taken_in(vip)
                    && (up_to_date || self.owned.get(&vip).is_some_and(waited)));
            if !self.conflicts.clear(vip, now)
                || !in_place
                || !self.settled
                || !self.intent.vips.contains_key(&vip)
            {
                continue;
            }
            let Some(owned) = self.owned.get_mut(&vip) else {
                continue;
            };
            owned.announced = true;
            self.unreported = true;
            if owned.resumed {
                self.schedule.resume(vip, now);
            } else {
                tracing::info!(%vip, "VIP announced");
                self.defended.insert(vip, now);
                self.schedule.burst(vip, owned.urgency, now);
            }
        }
    }

    /// Says what is due of a kind.
    pub(super) fn speak(&mut self, kind: Kind, now: Duration) {
        for vip in self.schedule.due(kind, &mut self.pace, now) {
            let frames = self.announcement(vip);
            self.tally.announcements += frames.len() as u64;
            self.out.extend(frames);
        }
    }
}

/// How bad it is that the LAN has not heard of a move yet.
fn urgency(reason: MoveReason) -> Urgency {
    match reason {
        MoveReason::OwnerDied | MoveReason::OwnerNotEligible | MoveReason::HigherEpoch => {
            Urgency::Lost
        }
        MoveReason::OwnerLeft
        | MoveReason::PolicyExcluded
        | MoveReason::VipRemoved
        | MoveReason::Resumed
        | MoveReason::Rebalanced
        | MoveReason::Requested
        | MoveReason::Drained => Urgency::Moved,
        MoveReason::FirstOwner => Urgency::New,
    }
}
