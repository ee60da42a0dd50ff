//! The loop that keeps the namespace as it is wanted, whoever changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightship_ipvs::{Client, Digester, Op, ServiceKey, ServiceSpec, plan};
use lightship_netio::{Monitor, Notice};
use tokio::sync::{mpsc, watch};

use super::failing::Failing;
use super::known::Known;
use super::links::Ground;
use super::network::{Locals, Network};
use super::rota::Rota;
use super::telling::Telling;
use super::{Error, Found, Health, settings, table};
use crate::uplink::Current;
use lightship_core::core::{DirectorIntent, DirectorReport};

/// How often it is seen whether somebody else changed something of which the kernel gives no
/// notice: IPVS.
const CHECK: Duration = Duration::from_secs(1);

/// The same of what is rather left alone: sysctls, timeouts, neighbours. (Links, addresses and routes are looked at when
/// the kernel says that some changed, and links every half minute.) A little less than two [`CHECK`]s, so that it is every other one.
const GROUND: Duration = Duration::from_millis(1_900);

/// How soon after a failure it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Notices come in flocks: so much time is left for the rest of one, and so much between two
/// looks, as other software may change the host's routes all the time.
const SETTLE: Duration = Duration::from_millis(50);
const PACE: Duration = Duration::from_millis(250);

/// So much is compared with the kernel's at each check, in destinations: an idle speaker should not spend a
/// noticeable part of a core on a large table.
const SAMPLE: usize = 540;

/// New services are worked out and sent in groups of so many, so that a large table
/// is never in memory as a whole.
const CREATE: usize = 64;

/// Up to so many services are listed at each check, and of a larger table so many at an average: all of a thousand
/// within two seconds.
const LIST: usize = 500;

pub(super) struct Worker {
    ground: Ground,
    ipvs: Client,
    network: Network,
    /// Changes within the namespace, and on the host.
    inside: Monitor,
    host: Monitor,
    /// Changes of the uplink, which cannot wait for the rest of a flock.
    uplink: watch::Receiver<Current>,
    /// The IPVS table as last read or written; none when it has to be read again.
    known: Option<Known>,
    /// What the known table was made of, if nothing of it is missing in the kernel, and its digest.
    made: Option<(Arc<DirectorIntent>, u64)>,
    failing: Failing,
    rota: Rota,
    /// What became of the further uplinks.
    uplinks: BTreeMap<Arc<str>, Option<String>>,
    /// Checks since the list of services was compared.
    unlisted: usize,
    checked: Instant,
    /// Links and settings are right, as far as is known.
    sound: bool,
    /// When links, settings and neighbours were last looked at; none: there is a reason to do so at the next check.
    looked: Option<Instant>,
    /// The VIPs that were in place at the start.
    found: BTreeSet<IpAddr>,
    /// What was wanted at the last turn: differences to the same are somebody else's.
    last: Option<Arc<DirectorIntent>>,
}

/// Why a turn is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Something else is wanted, or a failure is tried again.
    Wanted,
    /// It is time to look, or the kernel said that something changed.
    Check,
}

impl Worker {
    /// Within the namespace.
    pub(super) async fn open(mut ground: Ground) -> Result<(Self, Found), Error> {
        // Before anything is read, so that no change is missed.
        let (inside, host) = (Monitor::open()?, ground.host_monitor()?);
        let mut ipvs = Client::open()?;
        settings::check_scheduler(&mut ipvs)?;
        let mut made = Vec::new();
        let links = ground.links(None, &mut made).await?;
        // Some settings are named after links.
        ground.settings(&links)?;
        settings::timeouts(&mut ipvs)?;
        let network = Network::open(links).await?;
        let known = ipvs.dump()?;
        let found = Found {
            vips: network.vips().await?,
            destinations: table::destinations(&known),
        };
        let worker = Worker {
            uplink: ground.uplink(),
            ground,
            ipvs,
            network,
            inside,
            host,
            known: Some(Known::found(known)),
            made: None,
            failing: Failing::default(),
            rota: Rota::default(),
            uplinks: BTreeMap::new(),
            unlisted: 0,
            checked: Instant::now(),
            sound: true,
            looked: Some(Instant::now()),
            found: found.vips.clone(),
            last: None,
        };
        Ok((worker, found))
    }

    /// Until the sender of `intent` is gone.
    pub(super) async fn run(
        mut self,
        mut intent: watch::Receiver<Arc<DirectorIntent>>,
        reports: mpsc::UnboundedSender<DirectorReport>,
        health: watch::Sender<Health>,
    ) {
        // Until the core has decided for the first time, what is there stays.
        if intent.changed().await.is_err() {
            return;
        }
        let mut said = None;
        let mut reported = None;
        let mut telling = Telling::new(DirectorReport {
            healthy: true,
            programmed: self.found.clone(),
            ..DirectorReport::default()
        });
        let mut cause = Cause::Wanted;
        loop {
            let wanted = intent.borrow_and_update().clone();
            let turn = self.turn(&wanted, cause).await;
            if let Err(error) = &turn {
                self.distrust();
                tracing::debug!(%error, "a turn of the director failed");
            }
            let report = telling.of(turn);
            if report.error != said {
                match &report.error {
                    Some(error) => {
                        tracing::error!(%error, "the director is not as it should be; trying on");
                    }
                    None => tracing::info!("the director is as it should be again"),
                }
                said = report.error.clone();
            }
            let broken = report.error.is_some() || telling.failed();
            let now = Health {
                error: report.error.clone(),
                failing: report.failing.clone(),
            };
            health.send_if_modified(|health| std::mem::replace(health, now.clone()) != now);
            if reported.as_ref() != Some(&report) {
                reported = Some(report.clone());
                if reports.send(report).is_err() {
                    return;
                }
            }
            cause = tokio::select! {
                changed = intent.changed() => match changed {
                    Ok(()) => Cause::Wanted,
                    Err(_) => return,
                },
                cause = self.wait(broken) => cause,
            };
        }
    }

    /// Until there is a reason to look again. Safe to cancel.
    async fn wait(&mut self, broken: bool) -> Cause {
        let now = Instant::now();
        let check = self.checked + CHECK;
        let retry = self.failing.next().into_iter();
        let retry = retry.chain(broken.then_some(now + RETRY)).min();
        let until = retry.map_or(check, |at| at.min(check)).max(now);
        tokio::select! {
            notice = self.inside.next() => {
                if !matches!(notice, Ok(Notice::Rule { .. })) {
                    self.distrust_inside();
                }
            }
            notice = self.host.next() => {
                if !matches!(notice, Ok(Notice::Rule { .. })) {
                    self.distrust_host();
                }
            }
            Ok(()) = self.uplink.changed() => {
                self.distrust_host();
                return Cause::Check;
            }
            () = tokio::time::sleep_until(until.into()) => {
                return if retry.is_some_and(|at| at <= until) { Cause::Wanted } else { Cause::Check };
            }
        }
        let next = (Instant::now() + SETTLE).max(self.checked + PACE);
        let changed = tokio::select! {
            () = tokio::time::sleep_until(next.into()) => false,
            changed = self.uplink.changed() => changed.is_ok(),
        };
        if changed {
            self.distrust_host();
        }
        self.drain().await;
        Cause::Check
    }

    /// Something changed in the namespace.
    fn distrust_inside(&mut self) {
        self.network.distrust();
        self.ground.distrust_links();
        self.looked = None;
    }

    /// Something changed on the host, which links and routes to clients may depend on.
    fn distrust_host(&mut self) {
        self.ground.distrust();
        self.looked = None;
    }

    /// Throws away the rest of a flock of notices: all is read at the next turn.
    async fn drain(&mut self) {
        use futures::FutureExt;
        while self.inside.next().now_or_never().is_some() {
            self.distrust_inside();
        }
        while self.host.next().now_or_never().is_some() {
            self.distrust_host();
        }
    }

    /// Makes the namespace hold what is wanted.
    async fn turn(
        &mut self,
        wanted: &Arc<DirectorIntent>,
        cause: Cause,
    ) -> Result<DirectorReport, Error> {
        let mut foreign = Vec::new();
        let mut refused = Vec::new();
        // What is changed for the same wish as before was changed by somebody else.
        let same = self.last.as_ref() == Some(wanted);
        let uplinks = |intent: &Arc<DirectorIntent>| intent.uplinks == wanted.uplinks;
        let turned = !self.last.as_ref().is_some_and(uplinks);
        let check = cause == Cause::Check || !self.sound;
        let due = self.looked.is_none_or(|at| at.elapsed() >= GROUND);
        let ground = turned || (check && due);
        if check {
            // Also if it fails: it is tried again after a pause.
            self.checked = Instant::now();
        }
        if ground {
            let mut made = Vec::new();
            self.check_ground(wanted, &mut made).await?;
            if !turned {
                foreign.extend(made);
            } else if !made.is_empty() {
                tracing::info!(made = made.join(", "), "director's links");
            }
        }
        if check {
            self.check_table()?;
        }
        let nodes = self.network.nodes(wanted, ground, &mut refused).await?;
        let mut report = match self.apply(wanted, same, &mut foreign).await {
            // Somebody else changed the table meanwhile: what the kernel says now counts.
            Err(Refusals::Stale) => match self.apply(wanted, same, &mut foreign).await {
                Err(Refusals::Stale) => unreachable!("a table just read is not stale"),
                Err(Refusals::Error(error)) => return Err(error),
                Ok(report) => report,
            },
            Err(Refusals::Error(error)) => return Err(error),
            Ok(report) => report,
        };
        if same {
            foreign.extend(nodes);
        }
        self.last = Some(wanted.clone());
        if !foreign.is_empty() {
            let what = foreign.join(", ");
            self.ground.mended(&what);
            tracing::warn!(%what, "the director was changed by somebody else; put back");
        }
        if !refused.is_empty() {
            report.error = Some(refused.join("; "));
        }
        Ok(report)
    }

    /// The namespace's name, links, sysctls and timeouts.
    async fn check_ground(
        &mut self,
        wanted: &DirectorIntent,
        made: &mut Vec<String>,
    ) -> Result<(), Error> {
        self.sound = false;
        self.looked = None;
        let links = self.ground.links(Some(&wanted.uplinks), made).await?;
        made.extend(self.ground.settings(&links)?);
        self.uplinks.clone_from(&links.further.uplinks);
        self.network.set_links(links);
        if settings::timeouts(&mut self.ipvs)? {
            made.push("IPVS timeouts".to_owned());
        }
        self.sound = true;
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Compares a part of the table with the kernel's, and forgets what is known if it differs.
    fn check_table(&mut self) -> Result<(), Error> {
        let Some(known) = &self.known else {
            return Ok(());
        };
        self.unlisted += LIST;
        if self.unlisted >= known.len() {
            self.unlisted = 0;
            let listed = self.ipvs.dump_service_settings()?;
            if !known.has_services(listed.iter()) {
                self.known = None;
                return Ok(());
            }
        }
        let cost = |index: usize| known.cost(index);
        for index in self.rota.turn(known.len(), SAMPLE, cost) {
            let found = self.ipvs.dump_destination_settings(known.key(index))?;
            if !known.has_destinations(index, found.iter()) {
                self.known = None;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the table and the local routes what is wanted.
    ///
    /// What a VIP needs comes in this order: services with their destinations, then the
    /// local route that lets packets in. Without the services, the local TCP would answer
    /// packets of live connections by RST. What is no longer needed goes in reverse order.
    async fn apply(
        &mut self,
        wanted: &Arc<DirectorIntent>,
        same: bool,
        foreign: &mut Vec<String>,
    ) -> Result<DirectorReport, Refusals> {
        let began = Instant::now();
        let waiting = self.failing.waiting(began);
        if let Some(digest) = self.made_of(wanted) {
            let none = BTreeSet::new();
            let locals = self.network.set_vips(&wanted.vips, &none).await;
            let locals = locals.map_err(Error::from)?;
            if !locals.failed.is_empty() {
                self.made = None;
            }
            return Ok(self.report(wanted, same, locals, digest, foreign));
        }
        let is_waiting = |key: ServiceKey| table::vip(key).is_some_and(|v| waiting.contains(&v));
        let all = wanted.virtuals.iter();
        let mut services: BTreeMap<ServiceKey, _> = all
            .map(|(key, v)| (table::service_key(key), (key, v)))
            .filter(|(key, _)| !is_waiting(*key))
            .collect();
        let fresh = self.known.is_none();
        let known = match self.known.take() {
            Some(known) => known,
            None => Known::found(self.ipvs.dump().map_err(Error::from)?),
        };
        let (aside, known) = known.split(is_waiting);
        let difference = known.difference(&services);
        // It may be as large as the table, and is not needed any more.
        drop(known);
        let (late, early): (Vec<Op>, Vec<Op>) = plan(&difference.change, &difference.from)
            .into_iter()
            .partition(|op| matches!(op, Op::DelService(_)));
        let mut changes = early.len() + late.len();
        let mut failed = self.change(&early)?;
        for some in difference.create.chunks(CREATE) {
            let specs: Vec<ServiceSpec> = some.iter().map(|(k, v)| table::spec(k, v)).collect();
            let ops = plan(&specs, &[]);
            changes += ops.len();
            for (vip, reason) in self.change(&ops)? {
                failed.entry(vip).or_insert(reason);
            }
        }
        if !failed.is_empty() && !fresh {
            return Err(Refusals::Stale);
        }
        let hold: BTreeSet<IpAddr> = failed.keys().chain(&waiting).copied().collect();
        let locals = self.network.set_vips(&wanted.vips, &hold).await;
        let mut locals = locals.map_err(Error::from)?;
        failed.append(&mut locals.failed);
        failed.extend(self.change(&late)?);

        if same && changes > 0 && self.failing.reasons().is_empty() {
            foreign.push(format!("IPVS ({changes} differences)"));
        }
        if changes > 0 {
            tracing::info!(
                services = services.len(),
                changes,
                vips = locals.present.len(),
                ms = began.elapsed().as_millis(),
                "director programmed"
            );
        }
        services.retain(|key, _| table::vip(*key).is_none_or(|vip| !failed.contains_key(&vip)));
        let mut digest = Digester::default();
        for (key, v) in services.values() {
            digest.add(&table::spec(key, v));
        }
        let digest = digest.finish();
        self.made = None;
        if failed.is_empty() {
            // What was asked for was done, so the table need not be read back.
            self.known = Some(Known::made(&services, aside));
            self.made = waiting.is_empty().then(|| (wanted.clone(), digest));
        }
        locals.failed = failed;
        Ok(self.report(wanted, same, locals, digest, foreign))
    }

    /// The digest of the table, if it is known to be all that is wanted. So it is at nearly every check, and a
    /// large one is not looked through for that.
    fn made_of(&self, wanted: &Arc<DirectorIntent>) -> Option<u64> {
        let (of, digest) = self.made.as_ref()?;
        let whole = self.known.is_some() && self.failing.reasons().is_empty();
        (whole && Arc::ptr_eq(of, wanted)).then_some(*digest)
    }

    /// What has become of it; `locals.failed` are all VIPs of which something failed.
    fn report(
        &mut self,
        wanted: &DirectorIntent,
        same: bool,
        locals: Locals,
        digest: u64,
        foreign: &mut Vec<String>,
    ) -> DirectorReport {
        if same && locals.changes > 0 && self.failing.reasons().is_empty() {
            foreign.push(format!("local routes ({} differences)", locals.changes));
        }
        self.tell(wanted, locals.failed);
        DirectorReport {
            healthy: true,
            applied: wanted.revision,
            programmed: locals.present,
            uplinks: self.uplinks.clone(),
            digest,
            failing: self.failing.reasons(),
            error: None,
        }
    }

    /// Takes note of what failed, and says what is new.
    fn tell(&mut self, wanted: &DirectorIntent, failed: BTreeMap<IpAddr, String>) {
        let (new, mended) = self.failing.tried(&wanted.vips, failed, Instant::now());
        for (vip, reason) in new {
            tracing::error!(%vip, %reason, "the kernel refuses this VIP; trying on");
        }
        for vip in mended {
            tracing::info!(%vip, "the kernel takes this VIP now");
        }
    }

    /// Lets all be read again at the next turn.
    fn distrust(&mut self) {
        self.known = None;
        self.network.distrust();
        self.distrust_host();
    }

    /// Applies ops; returns the VIPs of which one was refused.
    fn change(&mut self, ops: &[Op]) -> Result<BTreeMap<IpAddr, String>, Error> {
        if ops.is_empty() {
            return Ok(BTreeMap::new());
        }
        // A destination that is deleted and added again (its place in the list changed)
        // must not lose its connections in between: 0 makes the kernel drop a packet that
        // comes just then, and TCP sends it again, where 1 would forget the connection.
        let moves = reorders(ops);
        if moves {
            settings::expire_nodest(false)?;
        }
        let result = self.ipvs.apply(ops);
        if moves {
            settings::expire_nodest(true)?;
        }
        let mut failed = BTreeMap::new();
        for failure in result.err().into_iter().flat_map(|error| error.failures) {
            match table::vip(failure.op.service()) {
                // The first is the cause; the rest is often its consequence.
                Some(vip) => drop(failed.entry(vip).or_insert_with(|| failure.to_string())),
                // No service of ours has a mark instead of an address.
                None => tracing::warn!(%failure, "a foreign service stays"),
            }
        }
        Ok(failed)
    }
}

/// Why a table was not applied.
enum Refusals {
    /// What was known of the kernel's table may be wrong.
    Stale,
    Error(Error),
}

impl From<Error> for Refusals {
    fn from(error: Error) -> Self {
        Refusals::Error(error)
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
