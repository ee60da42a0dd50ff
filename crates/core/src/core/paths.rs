//! The path test ([`crate::path`]): whom it may ask, and what its verdict changes.

use std::sync::Arc;
use std::time::Duration;

use lightship_frames::Mac;

use super::{Core, Output};
use crate::path::{Fault, Host, Peer, Peers, Verdict};

impl Core {
    /// Takes what the path test says of this node: with a fault its director is not announced any
    /// more, as if the node had none; if it gets nothing that others forward, or its replies are dropped, it
    /// should have no share. The director stays programmed, for the network may be mended.
    pub fn on_path(&mut self, verdict: &Verdict, now: Duration) {
        let found = (verdict.fault, verdict.deaf, verdict.proven);
        if (self.path_fault, self.deaf, self.proven) == found {
            return;
        }
        (self.path_fault, self.deaf, self.proven) = found;
        self.turn(None);
        self.stale = true;
        self.unreported = true;
        self.next_beat = now;
        self.rota.tell_all();
    }

    /// Whether this node has a director that the network lets work.
    pub(super) fn directs(&self) -> bool {
        self.setup.direct_routing && self.path_fault.is_none()
    }

    /// Whether connections that are spread to this node would fail, as far as is known.
    pub(super) fn shareless(&self) -> bool {
        // Replies have a VIP as their source, which is not the node's own either.
        let mute = self.path_fault == Some(Fault::ForeignSourceDropped);
        self.idle || self.deaf || mute
    }

    /// Tells the path test whom it may ask.
    pub(super) fn tell_paths(&mut self) {
        let peers = self.peers.iter().filter(|(_, peer)| peer.tests_paths);
        let peers = peers.filter_map(|(name, peer)| {
            let told = peer.told.as_ref()?;
            let director = peer.director.then_some(Mac(told.director_mac));
            let host = Host::of(self.world.nodes.get(name)?, Mac(told.uplink_mac), director);
            let heard = self.detector.state(name).can_own();
            let directs = told.direct_routing;
            Some((
                name.clone(),
                Peer {
                    host,
                    heard,
                    directs,
                },
            ))
        });
        let peers: Peers = peers.collect();
        if self.sent_paths.as_deref() != Some(&peers) {
            let peers = Arc::new(peers);
            self.sent_paths = Some(peers.clone());
            self.out.push(Output::Paths(peers));
        }
    }
}
