//! Membership of the solicited-node groups of IPv6 VIPs.
//!
//! Joined for all VIPs, owned or not: a standby that is a member already answers a round trip
//! earlier when it takes over. A task of its own does it, since the kernel takes a lock that
//! anybody may hold (RTNL), for which the core must not wait.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use lightship_frames::ndp::solicited_node;
use lightship_netio::MulticastGroups;
use tokio::sync::watch;

use crate::uplink::Current;
use lightship_core::further::{Own, Via};

/// How long after a failure it is tried again, doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Keeps the memberships on the uplinks until the sender of `vips` is gone. `used`: the further uplinks
/// in use.
pub async fn run(
    mut uplink: watch::Receiver<Current>,
    mut used: watch::Receiver<Arc<[Own]>>,
    mut vips: watch::Receiver<BTreeSet<(Via, Ipv6Addr)>>,
) {
    let mut groups: Option<MulticastGroups> = None;
    let mut pause = RETRY.0;
    loop {
        let index = uplink.borrow_and_update().link.index;
        let further = used.borrow_and_update().clone();
        let index_of = |via: &Via| match via {
            Via::Main => Some(index),
            Via::Further(name) => {
                let found = further.iter().find(|own| own.told.interface == *name);
                found.map(|own| own.index)
            }
        };
        let wanted: BTreeSet<_> = vips
            .borrow_and_update()
            .iter()
            .filter_map(|(via, vip)| Some((index_of(via)?, solicited_node(*vip))))
            .collect();
        let opened = match groups.take() {
            Some(open) => Ok(open),
            None => MulticastGroups::open(),
        };
        let done = opened.and_then(|mut open| {
            let set = open.set(&wanted);
            groups = Some(open);
            set
        });
        let again = match done {
            Ok(_) => {
                pause = RETRY.0;
                None
            }
            Err(error) => {
                if pause == RETRY.0 {
                    tracing::warn!(%error, "cannot listen for all neighbour solicitations; trying on");
                }
                let now = pause;
                pause = (pause * 2).min(RETRY.1);
                Some(now)
            }
        };
        let retry = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = vips.changed() => if changed.is_err() { return },
            Ok(_) = uplink.wait_for(|now| now.link.index != index) => {}
            Ok(()) = used.changed() => {}
            () = retry => {}
        }
    }
}
