//! The director: a network namespace with its own IPVS that spreads a VIP's traffic
//! over all nodes.
//!
//! ```text
//!  LAN ── uplink ──┬── host: kube-proxy, Pods
//!                  │      ▲ ls-host (veth): the own node's share
//!                  └── ls-dir (macvlan, own MAC) ── netns `lightship`: IPVS, mh, direct routing
//! ```
//!
//! All of it outlives the speaker's process: a director that starts reads what is there and
//! changes only what differs, so a restart or an upgrade touches no packet.
//!
//! - [`setup`]: the namespace, its links and its settings
//! - [`network`]: routes and neighbours
//! - [`table`]: the IPVS table

mod error;
mod network;
mod setup;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lightship_frames::Mac;
use lightship_ipvs::{Client, Op, ServiceState, digest, outcome, plan};
use lightship_netio::{Netns, spawn_thread_in};
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{DirectorIntent, DirectorReport};
use crate::intent::PortKey;
use crate::uplink::Uplink;

pub use error::Error;
pub use setup::VETH_HOST;

/// How often all is read again, in case somebody else changed it.
const CHECK: Duration = Duration::from_secs(10);

/// How soon after a failure it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What a director is put upon.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The uplink.
    pub uplink: Uplink,
    /// The MAC of the director.
    pub mac: Mac,
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
}

/// Sets the director up and starts its thread, which then follows `intent`.
///
/// # Errors
/// [`Error::is_not_supported`] when this kernel or uplink cannot have a director.
pub async fn start(
    plan: Plan,
    intent: watch::Receiver<Arc<DirectorIntent>>,
    reports: mpsc::UnboundedSender<DirectorReport>,
    health: watch::Sender<Health>,
) -> Result<Found, Error> {
    setup::check_kernel().await?;
    let netns = Netns::create(setup::NETNS)?;
    let links = setup::links(&plan, &netns).await?;
    let (started, start) = oneshot::channel();
    spawn_thread_in(&netns, "director", move || async move {
        let director = Director::open(links).await;
        match director {
            Ok((director, found)) => {
                let _ = started.send(Ok(found));
                director.run(intent, reports, health).await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    start.await.unwrap_or(Err(Error::Gone))
}

struct Director {
    ipvs: Client,
    network: network::Network,
    /// The IPVS table as last read or written; none when it has to be read again.
    known: Option<Vec<ServiceState>>,
}

impl Director {
    /// Within the namespace.
    async fn open(links: setup::Links) -> Result<(Self, Found), Error> {
        setup::settings(&links)?;
        let mut ipvs = Client::open()?;
        setup::timeouts(&mut ipvs)?;
        let network = network::Network::open(links).await?;
        let known = ipvs.dump()?;
        let found = Found {
            vips: network.vips().await?,
            destinations: table::destinations(&known),
        };
        Ok((
            Director {
                ipvs,
                network,
                known: Some(known),
            },
            found,
        ))
    }

    async fn run(
        mut self,
        mut intent: watch::Receiver<Arc<DirectorIntent>>,
        reports: mpsc::UnboundedSender<DirectorReport>,
        health: watch::Sender<Health>,
    ) {
        // Until the core has decided for the first time, what is there stays.
        if intent.changed().await.is_err() {
            return;
        }
        let mut failing = false;
        loop {
            let wanted = intent.borrow_and_update().clone();
            let report = match self.apply(&wanted).await {
                Ok(report) => {
                    failing = false;
                    report
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the director is not as it should be; trying on");
                    }
                    self.distrust();
                    DirectorReport {
                        error: Some(error.to_string()),
                        ..DirectorReport::default()
                    }
                }
            };
            let now = Health {
                error: report.error.clone(),
            };
            health.send_if_modified(|health| {
                let changed = *health != now;
                *health = now;
                changed
            });
            if reports.send(report).is_err() {
                return;
            }
            let wait = if failing { RETRY } else { CHECK };
            match tokio::time::timeout(wait, intent.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => self.distrust(),
            }
        }
    }

    /// Makes the namespace hold what is wanted.
    ///
    /// What a VIP needs comes in this order: services with their destinations, then the
    /// local route that lets packets in. Without the services, the local TCP would answer
    /// packets of live connections by RST. What is no longer needed goes in reverse order.
    async fn apply(&mut self, wanted: &DirectorIntent) -> Result<DirectorReport, Error> {
        let specs = table::specs(wanted);
        self.network.nodes(wanted).await?;
        let actual = match self.known.take() {
            Some(known) => known,
            None => self.ipvs.dump()?,
        };
        let ops = plan(&specs, &actual);
        let (late, early): (Vec<Op>, Vec<Op>) = ops
            .into_iter()
            .partition(|op| matches!(op, Op::DelService(_)));
        self.change(&early)?;
        let programmed = self.network.set_vips(&wanted.vips).await?;
        self.change(&late)?;
        if !early.is_empty() || !late.is_empty() {
            tracing::info!(
                services = specs.len(),
                changes = early.len() + late.len(),
                vips = programmed.len(),
                "director programmed"
            );
        }
        // What was asked for was done, so the table need not be read back.
        self.known = Some(outcome(&specs));
        Ok(DirectorReport {
            healthy: true,
            applied: wanted.revision,
            programmed,
            digest: digest(&specs),
            error: None,
        })
    }

    /// Lets all be read again at the next turn.
    fn distrust(&mut self) {
        self.known = None;
        self.network.distrust();
    }

    fn change(&mut self, ops: &[Op]) -> Result<(), Error> {
        if ops.is_empty() {
            return Ok(());
        }
        // A destination that is deleted and added again (its place in the list changed)
        // must not lose its connections in between: 0 makes the kernel drop a packet that
        // comes just then, and TCP sends it again, where 1 would forget the connection.
        let moves = reorders(ops);
        if moves {
            setup::expire_nodest(false)?;
        }
        let result = self.ipvs.apply(ops);
        if moves {
            setup::expire_nodest(true)?;
        }
        Ok(result?)
    }
}

/// Whether a destination is deleted and added again.
fn reorders(ops: &[Op]) -> bool {
    let added: BTreeSet<_> = ops
        .iter()
        .filter_map(|op| match op {
            Op::NewDest(key, destination) => Some((*key, destination.key())),
            _ => None,
        })
        .collect();
    ops.iter()
        .any(|op| matches!(op, Op::DelDest(key, addr) if added.contains(&(*key, *addr))))
}
