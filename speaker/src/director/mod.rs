//! The director: a network namespace with its own IPVS that spreads a VIP's traffic
//! over all nodes.
//!
//! ```text
//!  LAN ── uplink ──┬── host: kube-proxy, Pods
//!                  │      ▲ ls-host (veth): the own node's share
//!                  └── ls-dir (macvlan, own MAC) ── netns `lightship`: IPVS, mh, direct routing
//!  LAN of clients ── further uplink ── ls-dir-N (macvlan) ──┘ only what comes in
//! ```
//!
//! All of it outlives the speaker's process: a director that starts reads what is there and
//! changes only what differs, so a restart or an upgrade touches no packet.
//!
//! What somebody else changes is put back within a second or two, with a line in the log; a VIP
//! that the kernel refuses is withheld, and the others are not concerned.
//!
//! - [`links`], [`further`], [`settings`]: the namespace, its links, sysctls and timeouts
//! - [`network`]: routes and neighbours
//! - [`table`], [`known`]: the IPVS table, and what is known of the kernel's
//! - [`worker`]: the loop that keeps all of it; [`failing`], [`rota`] and [`telling`] decide for it

mod error;
mod failing;
mod further;
mod known;
mod links;
mod network;
mod rota;
mod settings;
mod table;
mod telling;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lightship_frames::Mac;
use lightship_netio::{Netns, NetnsThread, Rtnl, spawn_thread_in};
use tokio::sync::{mpsc, oneshot, watch};

use crate::drift::Drift;
use crate::uplink::{Current, Uplink};
use lightship_core::core::{DirectorIntent, DirectorReport};
use lightship_core::intent::PortKey;

pub use error::Error;
pub(crate) use further::{is_name as is_further, macs as further_macs};
pub use links::VETH_HOST;
pub(crate) use links::{LINKS, NETNS};

/// What a director is put upon.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The uplink, which it follows.
    pub uplink: watch::Receiver<Current>,
    /// The MAC of the director.
    pub mac: Mac,
    /// Where it is told that something was put back.
    pub drift: Drift,
}

/// What was there already when the director started.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// VIPs that were in place.
    pub vips: BTreeSet<IpAddr>,
    /// The destinations of the IPVS table.
    pub destinations: Vec<(PortKey, IpAddr)>,
}

/// How well the director does, for people; what the core goes by is [`DirectorReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What went wrong last, until it works again.
    pub error: Option<String>,
    /// The VIPs that the kernel does not hold as wanted, and why.
    pub failing: BTreeMap<IpAddr, String>,
}

/// The MAC of the director on this uplink: that of the one that is there, else it is derived from the
/// uplink's own, which is unique on the LAN.
///
/// An uplink may change its MAC (a bridge takes that of another port), and a bond its port. The
/// director keeps its own then, also over a restart, so that clients need not learn another one.
///
/// # Errors
/// The namespace cannot be read.
pub async fn mac(uplink: &Uplink) -> Result<Mac, Error> {
    let present = links::present_mac(uplink).await?;
    Ok(present.unwrap_or_else(|| Mac::derive_director_mac(&uplink.mac.to_string())))
}

/// The director's namespace and the index of its link on the LAN there, to send frames as it does.
///
/// # Errors
/// When the namespace or the link is not there.
pub async fn mouth() -> lightship_netio::Result<(Netns, u32)> {
    let netns = Netns::open(NETNS)?;
    let link = Rtnl::open_in(&netns)?.require_link(links::MACVLAN).await?;
    Ok((netns, link.index))
}

/// Sets the director up and starts its thread, which then follows `intent` until its sender is
/// gone.
///
/// # Errors
/// [`Error::is_not_supported`] when this kernel or uplink cannot have a director.
pub async fn start(
    plan: Plan,
    intent: watch::Receiver<Arc<DirectorIntent>>,
    reports: mpsc::UnboundedSender<DirectorReport>,
    health: watch::Sender<Health>,
) -> Result<(Found, NetnsThread<()>), Error> {
    settings::check_kernel().await?;
    let ground = links::Ground::open(plan)?;
    let netns = ground.netns.try_clone()?;
    let (started, start) = oneshot::channel();
    let thread = spawn_thread_in(&netns, "director", move || async move {
        match worker::Worker::open(ground).await {
            Ok((worker, found)) => {
                let _ = started.send(Ok(found));
                worker.run(intent, reports, health).await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    let found = start.await.unwrap_or(Err(Error::Gone))?;
    Ok((found, thread))
}
