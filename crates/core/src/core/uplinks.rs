//! The node's further uplinks: where each VIP is announced, and which are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use lightship_frames::Mac;

use super::{Core, Output, neighbours};
use crate::further::{Own, Via};
use crate::schedule::Urgency;

/// Where a VIP is announced and with whose MAC: if that changes, the LAN has to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    via: Via,
    directed: bool,
}

impl Core {
    /// Takes the node's further uplinks: those that have a carrier, in a fixed order.
    pub fn on_further(&mut self, further: Arc<[Own]>, now: Duration) {
        if self.further == further {
            return;
        }
        let names: Vec<&str> = further.iter().map(|f| &*f.told.interface).collect();
        tracing::info!(?names, "further uplinks");
        // On one that is another link than before, or at another MAC, all has to be said anew. What comes
        // to one or leaves it is another matter, and most interfaces that come are none of ours.
        let changed = |before: &Own| {
            let is = |now: &&Own| now.told.interface == before.told.interface;
            let now = further.iter().find(is);
            now.is_some_and(|now| (now.index, now.told.mac) != (before.index, before.told.mac))
        };
        let changed = self
            .sent_uplinks
            .iter()
            .flat_map(|all| all.iter())
            .any(changed);
        self.further = further;
        // Who has lost a VIP's uplink does not announce it on another one, but is about to lose the VIP.
        let owned = self.owned.keys().copied();
        let at: Vec<(IpAddr, At)> = owned.map(|vip| (vip, self.at(vip))).collect();
        for (vip, at) in at {
            self.owned.entry(vip).and_modify(|owned| owned.at = at);
        }
        self.stale = true;
        self.unreported = true;
        // Peers judge by it where VIPs can be.
        self.next_beat = now;
        self.rota.tell_all();
        if changed {
            self.say_anew(now);
        }
    }

    /// The uplink on which this node announces a VIP, were it the owner.
    pub(super) fn via(&self, vip: IpAddr) -> Via {
        if self.further.is_empty() {
            return Via::Main;
        }
        let intent = self.intent.vips.get(&vip);
        let seat = intent.and_then(|intent| intent.eligibility.seats.get(&self.setup.me));
        seat.map_or(Via::Main, |seat| seat.via.clone())
    }

    /// The further uplink of this name.
    fn own(&self, name: &str) -> Option<&Own> {
        self.further.iter().find(|f| *f.told.interface == *name)
    }

    /// The own MAC of an uplink.
    pub(super) fn mac_of(&self, via: &Via) -> Mac {
        let further = match via {
            Via::Main => None,
            Via::Further(name) => self.own(name),
        };
        further.map_or(self.setup.uplink_mac, Own::mac)
    }

    /// The MAC that a VIP is announced with: the director's on its uplink, or the uplink's own.
    pub(super) fn announced_mac(&self, vip: IpAddr) -> Mac {
        let via = self.via(vip);
        match &via {
            _ if !self.directed(vip) => self.mac_of(&via),
            Via::Main => self.setup.director_mac,
            Via::Further(name) => self
                .own(name)
                .map_or(self.setup.director_mac, Own::director_mac),
        }
    }

    /// Whether the director takes in what comes for a VIP by its uplink.
    pub(super) fn taken_in(&self, vip: IpAddr) -> bool {
        match self.via(vip) {
            Via::Main => true,
            Via::Further(name) => self.director.uplinks.get(&name) == Some(&None),
        }
    }

    /// Why the director cannot take in what comes for a VIP by its uplink: the kernel refuses a link
    /// there. The own kube-proxy takes it then.
    pub(super) fn uplink_refused(&self, vip: IpAddr) -> Option<&String> {
        match self.via(vip) {
            Via::Main => None,
            Via::Further(name) => self.director.uplinks.get(&name)?.as_ref(),
        }
    }

    /// Where a VIP is announced, were this node the owner.
    pub(super) fn at(&self, vip: IpAddr) -> At {
        At {
            via: self.via(vip),
            directed: self.directed(vip),
        }
    }

    /// Has owned VIPs announced anew that are elsewhere than before: at another MAC or on another LAN,
    /// which has to hear of it. `touched`: those that may be; none: all.
    pub(super) fn turn(&mut self, touched: Option<&BTreeSet<IpAddr>>) {
        let owned = self.owned.keys().copied();
        let vips: Vec<IpAddr> = match touched {
            Some(touched) => touched.iter().copied().collect(),
            None => owned.collect(),
        };
        for vip in vips {
            let at = self.at(vip);
            if let Some(owned) = self.owned.get_mut(&vip).filter(|owned| owned.at != at) {
                owned.at = at;
                (owned.announced, owned.resumed) = (false, false);
                owned.urgency = Urgency::Lost;
                self.schedule.stop(vip);
            }
        }
    }

    /// The further uplinks that some VIP is announced on when this node owns it.
    pub(super) fn used(&self) -> Vec<Own> {
        if self.further.is_empty() {
            return Vec::new();
        }
        let vips = self.intent.vips.keys();
        let used: BTreeSet<Via> = vips.map(|vip| self.via(*vip)).collect();
        let named = |own: &&Own| used.contains(&Via::Further(own.told.interface.clone()));
        self.further.iter().filter(named).cloned().collect()
    }

    /// Passes on which further uplinks are in use, and for which IPv6 VIPs to listen on each uplink. `touched`: the
    /// VIPs of which something may be new; none: all.
    pub(super) fn tell_uplinks(&mut self, touched: Option<&BTreeSet<IpAddr>>) {
        let same = |vip: &IpAddr| match *vip {
            IpAddr::V6(v6) => {
                self.sent_groups.contains(&(Via::Main, v6)) == self.intent.vips.contains_key(vip)
            }
            IpAddr::V4(_) => true,
        };
        if touched.is_some_and(|vips| self.further.is_empty() && vips.iter().all(same)) {
            return;
        }
        let used = self.used();
        if self.sent_uplinks.as_deref() != Some(&*used) {
            let used: Arc<[Own]> = used.into();
            self.sent_uplinks = Some(used.clone());
            self.out.push(Output::Uplinks(used));
        }
        let vips = self.intent.vips.keys().filter_map(|vip| match vip {
            IpAddr::V6(v6) => Some((self.via(*vip), *v6)),
            IpAddr::V4(_) => None,
        });
        let groups: BTreeSet<(Via, Ipv6Addr)> = vips.collect();
        if groups != self.sent_groups {
            self.sent_groups = groups.clone();
            self.out.push(Output::Groups(groups));
        }
    }

    /// The director's links for the further uplinks in use: by the uplink's name its index and the
    /// director's MAC there.
    pub(super) fn director_uplinks(&self) -> BTreeMap<Arc<str>, (u32, Mac)> {
        let used = self.sent_uplinks.iter().flat_map(|all| all.iter());
        used.map(|own| (own.told.interface.clone(), (own.index, own.director_mac())))
            .collect()
    }

    /// What is said of a VIP on its uplink.
    pub(super) fn announcement(&self, vip: IpAddr) -> Vec<Output> {
        let via = self.via(vip);
        let frames = neighbours::announcement(vip, self.announced_mac(vip));
        let frames = frames.into_iter();
        frames.map(|f| Output::Frame(via.clone(), f)).collect()
    }
}
