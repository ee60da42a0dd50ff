//! The path test ([`crate::path`]): whom it may ask, and what its verdict changes.

use std::sync::Arc;
use std::time::Duration;

use lightship_frames::Mac;

use super::{Core, Output};
use crate::path::{Fault, Host, Peer, Peers};

impl Core {
    /// Takes what the path test says of this node's director: with a fault it is not announced any
    /// more, as if the node had none. It stays programmed, for the network may be mended.
    pub fn on_path(&mut self, fault: Option<Fault>, now: Duration) {
        if self.path_fault == fault {
            return;
        }
        let before = self.announced_at();
        self.path_fault = fault;
        for (vip, at) in before {
            self.if_turned(vip, &at);
        }
        self.stale = true;
        self.unreported = true;
        self.next_beat = now;
        self.rota.tell_all();
    }

    /// Whether this node has a director that the network lets work.
    pub(super) fn directs(&self) -> bool {
        self.setup.direct_routing && self.path_fault.is_none()
    }

    /// Tells the path test whom it may ask.
    pub(super) fn tell_paths(&mut self) {
        let peers = self.peers.iter().filter(|(_, peer)| peer.tests_paths);
        let peers = peers.filter_map(|(name, peer)| {
            let told = peer.told.as_ref()?;
            let director = peer.director.then_some(Mac(told.director_mac));
            let host = Host::of(self.world.nodes.get(name)?, Mac(told.uplink_mac), director);
            let heard = self.detector.state(name).can_own();
            Some((name.clone(), Peer { host, heard }))
        });
        let peers: Peers = peers.collect();
        if self.sent_paths.as_deref() != Some(&peers) {
            let peers = Arc::new(peers);
            self.sent_paths = Some(peers.clone());
            self.out.push(Output::Paths(peers));
        }
    }
}
