//! Keeps the node's own `Speaker` object: mode, uplinks, how many VIPs, and whether it works.
//!
//! One task, on the runtime that also talks to the API server otherwise; the core knows
//! nothing of it. It watches its own object, so that what somebody deletes or rewrites is put
//! back, what is right already is not written again (after a restart, for example), and a
//! report that an outage held up is sent when the outage ends.

mod status;
mod uplink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use lightship_crds::{MANAGER_SPEAKER, Speaker, SpeakerStatus};
use lightship_netio::{Monitor, Notice};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::director::Health;
use lightship_core::core::Ownership;
use lightship_core::further::Own;
use lightship_core::path::Verdict;
use lightship_core::world::{NodeName, World};

pub use status::{Facts, Trouble};

/// Changes come in flocks (a failover, an interface that comes up): so much time is left for
/// the rest of one before it is looked at, and between two looks.
const SETTLE: Duration = Duration::from_millis(300);
const PACE: Duration = Duration::from_secs(1);

/// How often it is looked without any notice: the kernel gives none of sysctls.
const LOOK: Duration = Duration::from_secs(10);

/// How long the directors' tables may differ: with each change they do for a moment.
const APART: Duration = Duration::from_secs(5);

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before a failed write is tried again; doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What the task hears of.
pub struct Inputs {
    /// How the start went.
    pub facts: watch::Receiver<Facts>,
    /// What the director says of itself.
    pub health: watch::Receiver<Health>,
    /// What the path test says.
    pub verdict: watch::Receiver<Arc<Verdict>>,
    /// The further uplinks in use.
    pub used: watch::Receiver<Arc<[Own]>>,
    /// What this node owns.
    pub ownership: watch::Receiver<Arc<Ownership>>,
    /// The cluster: the own Node's uid.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// True once the speaker is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Writes until the speaker stops and has said so, or could not.
///
/// # Errors
/// When the kernel gives no notices of changes.
pub async fn run(client: Client, me: NodeName, mut inputs: Inputs) -> anyhow::Result<()> {
    let api: Api<Speaker> = Api::all(client);
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={me}"))
        // A server that vanished without a word is noticed after this many seconds.
        .timeout(60);
    let mut events = std::pin::pin!(lightship_kit::watch(api.clone(), config));
    let mut monitor = Monitor::open()?;
    let mut writer = Writer::new(api, me.clone());
    let mut apart = Apart::default();
    let mut clashes = BTreeMap::new();
    let mut drops = false;
    loop {
        let turn = Instant::now();
        let stopping = *inputs.stop.borrow_and_update();
        let facts = inputs.facts.borrow_and_update().clone();
        let health = inputs.health.borrow_and_update().clone();
        let ownership = inputs.ownership.borrow_and_update().clone();
        let verdict = inputs.verdict.borrow_and_update().clone();
        let apart = apart.see(&ownership, turn);
        if ownership.clashes != clashes {
            for (mac, nodes) in &ownership.clashes {
                tracing::warn!(%mac, ?nodes, "several nodes have one MAC address");
            }
            clashes = ownership.clashes.clone();
        }
        let world = inputs.world.borrow_and_update().clone();
        let uid = world
            .as_ref()
            .and_then(|world| Some(world.nodes.get(&me)?.uid.clone()));
        if let (true, Some(uid)) = (writer.listed, uid.filter(|uid| !uid.is_empty())) {
            let uplink = match &facts.uplink {
                Some(uplink) => read(uplink.index).await,
                None => None,
            };
            let mut further = Vec::new();
            for index in &facts.further {
                further.extend(read(*index).await);
            }
            let used = inputs.used.borrow_and_update().clone();
            let used: Vec<&str> = used.iter().map(|own| &*own.told.interface).collect();
            let seen = status::Seen {
                facts: &facts,
                health: &health,
                verdict: &verdict,
                uplink: uplink.as_ref(),
                further: &further,
                used: &used,
                vips: ownership.vips.len(),
                apart,
                lost: &ownership.lost,
                clashes: &ownership.clashes,
                stopping,
            };
            if std::mem::replace(&mut drops, seen.drops_from_further()) != drops && drops {
                tracing::warn!(
                    ?used,
                    "rp_filter is strict on the main uplink: packets of clients on these \
                    uplinks' LANs, which other nodes' directors send, are dropped; set it to 2"
                );
            }
            writer.write(&uid, &seen).await;
        }
        if stopping {
            return Ok(());
        }
        let retry = writer.retry_at();
        tokio::select! {
            Some(event) = events.next() => {
                writer.observe(event);
                // Most events are the echo of an own write.
                if !writer.surprised() {
                    continue;
                }
            }
            notice = monitor.next() => if !concerns(notice?, &inputs.facts.borrow()) {
                continue;
            },
            Ok(()) = inputs.facts.changed() => {}
            Ok(()) = inputs.health.changed() => {}
            Ok(()) = inputs.verdict.changed() => {}
            Ok(()) = inputs.used.changed() => {}
            Ok(()) = inputs.ownership.changed() => {}
            Ok(()) = inputs.world.changed() => {}
            Ok(()) = inputs.stop.changed() => continue,
            () = tokio::time::sleep_until(retry.into()) => continue,
        }
        // Lets the flock pass; what changes meanwhile is read at the next turn. Only news of a
        // dead node cannot wait.
        let next = (Instant::now() + SETTLE).max(turn + PACE);
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            Ok(_) = inputs.ownership.wait_for(|now| now.lost != ownership.lost) => {}
            Ok(()) = inputs.stop.changed() => {}
        }
        while let Some(notice) = monitor.next().now_or_never() {
            notice?;
        }
    }
}

/// Whether a change in the kernel may change what is said of the uplinks.
fn concerns(notice: Notice, facts: &Facts) -> bool {
    match notice {
        Notice::Address { index, .. } => {
            let main = facts.uplink.as_ref();
            main.is_some_and(|uplink| uplink.index == index) || facts.further.contains(&index)
        }
        // kube-proxy's own may come.
        Notice::Link { .. } | Notice::Route { .. } | Notice::Lost => true,
        Notice::Rule { .. } | Notice::Rerouted { .. } => false,
    }
}

async fn read(uplink: u32) -> Option<uplink::Reading> {
    match uplink::read(uplink).await {
        Ok(reading) => reading,
        Err(error) => {
            tracing::debug!(%error, "cannot read the uplink");
            None
        }
    }
}

/// Since when the directors' tables have differed.
#[derive(Debug, Default)]
struct Apart {
    since: Option<Instant>,
    said: bool,
}

impl Apart {
    /// How many directors agree with the own one, and of how many, if that has not been all
    /// of them for a while.
    fn see(&mut self, ownership: &Ownership, now: Instant) -> Option<(usize, usize)> {
        let (agreeing, all) = (ownership.directors_agreeing, ownership.directors);
        if agreeing == all {
            *self = Apart::default();
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now < since + APART {
            return None;
        }
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                agreeing,
                all,
                "the directors' tables differ; what differs shows in each node's Speaker and log"
            );
        }
        Some((agreeing, all))
    }
}

/// What is there, what should be, and when to try next.
struct Writer {
    api: Api<Speaker>,
    me: NodeName,
    /// The object has been looked for since the start.
    listed: bool,
    observed: Option<Speaker>,
    /// What was wanted at the last write, and what the server made of it.
    last: Option<(Wanted, Speaker)>,
    wait: Option<(Duration, Instant)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    owner: OwnerReference,
    status: SpeakerStatus,
}

impl Wanted {
    fn has_owner(&self, object: &Speaker) -> bool {
        let owners = object.metadata.owner_references.as_deref();
        owners.is_some_and(|owners| owners == [self.owner.clone()])
    }

    fn has_status(&self, object: &Speaker) -> bool {
        object.status.as_ref() == Some(&self.status)
    }
}

impl Writer {
    fn new(api: Api<Speaker>, me: NodeName) -> Self {
        Writer {
            api,
            me,
            listed: false,
            observed: None,
            last: None,
            wait: None,
        }
    }

    fn observe(&mut self, event: Result<Event<Speaker>, watcher::Error>) {
        match event {
            Ok(Event::Init) => {
                self.listed = false;
                self.observed = None;
            }
            Ok(Event::InitDone) => {
                self.listed = true;
                // The server is back: what failed is worth another try now.
                self.wait = None;
            }
            Ok(Event::Apply(object) | Event::InitApply(object)) => self.observed = Some(object),
            Ok(Event::Delete(_)) => self.observed = None,
            Err(error) => tracing::debug!(%error, "the watch of the own Speaker object broke"),
        }
    }

    /// Whether the object is not what the last write made of it, or there was none yet.
    fn surprised(&self) -> bool {
        let left = self.last.as_ref().map(|(_, object)| content(object));
        self.listed && (left.is_none() || left != self.observed.as_ref().map(content))
    }

    fn retry_at(&self) -> Instant {
        let look = Instant::now() + LOOK;
        self.wait.map_or(look, |(_, at)| at.min(look))
    }

    async fn write(&mut self, uid: &str, seen: &status::Seen<'_>) {
        if self.wait.is_some_and(|(_, at)| Instant::now() < at) && !seen.stopping {
            return;
        }
        let before = self.observed.as_ref().and_then(|o| o.status.as_ref());
        let wanted = Wanted {
            owner: OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: self.me.to_string(),
                uid: uid.to_owned(),
                // A speaker may not block the removal of its node.
                block_owner_deletion: Some(false),
                controller: None,
            },
            status: status::status(seen, before),
        };
        let same = self.last.as_ref().is_some_and(|(last, _)| *last == wanted);
        // What others add to the object cannot be taken away; it is tried once per change.
        if same && !self.surprised() {
            return;
        }
        let observed = self.observed.as_ref();
        let owner = observed.is_some_and(|object| wanted.has_owner(object));
        let status = observed.is_some_and(|object| wanted.has_status(object));
        if let (true, true, Some(object)) = (owner, status, observed) {
            self.last = Some((wanted, object.clone()));
            return;
        }
        let write = self.apply(&wanted, owner);
        let result = match tokio::time::timeout(PATIENCE, write).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        };
        match result {
            Ok(object) => {
                self.wait = None;
                self.observed = Some(object.clone());
                self.last = Some((wanted, object));
            }
            Err(error) => {
                let wait = self.wait.map_or(RETRY.0, |(w, _)| (w * 2).min(RETRY.1));
                // Only the first of a row of failures is worth a warning.
                if self.wait.is_none() {
                    tracing::warn!(%error, "cannot write this node's Speaker object; trying on");
                }
                let jittered = wait.mul_f64(rand::random_range(0.7..1.3));
                self.wait = Some((wait, Instant::now() + jittered));
            }
        }
    }

    async fn apply(&self, wanted: &Wanted, owned: bool) -> kube::Result<Speaker> {
        let params = PatchParams::apply(MANAGER_SPEAKER).force();
        let body = |metadata: Value| {
            json!({
                "apiVersion": format!("{}/{}", lightship_crds::GROUP, lightship_crds::VERSION),
                "kind": "Speaker",
                "metadata": metadata,
            })
        };
        if !owned {
            let mut object = body(json!({
                "name": &*self.me, "ownerReferences": [&wanted.owner],
            }));
            object["spec"] = json!({});
            self.api
                .patch(&self.me, &params, &Patch::Apply(&object))
                .await?;
        }
        let mut object = body(json!({ "name": &*self.me }));
        object["status"] = json!(&wanted.status);
        let patch = Patch::Apply(&object);
        self.api.patch_status(&self.me, &params, &patch).await
    }
}

/// What of an object is ours to keep.
fn content(object: &Speaker) -> (Option<&[OwnerReference]>, Option<&SpeakerStatus>) {
    let owners = object.metadata.owner_references.as_deref();
    (owners, object.status.as_ref())
}
