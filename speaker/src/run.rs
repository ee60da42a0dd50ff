//! Wiring: which threads and tasks a speaker has, and how they talk.
//!
//! ```text
//!  main runtime                    core thread (own runtime,        director thread (in netns
//!  (Kubernetes, files)              real-time priority)              `lightship`, own runtime)
//! ┌───────────────────┐  World    ┌──────────────────────┐ intent  ┌───────────────────────┐
//! │ watch::run        ├──────────▶│ node::run            ├────────▶│ director::run         │
//! │ watch::keys       ├──────────▶│  Core: detector,     │         │  links, routes,       │
//! │ status::run       │◀──────────┤  election, intent    │◀────────┤  neighbours, IPVS     │
//! │ keep (state file) │◀──────────┤  heartbeats, ARP/NDP │ report  │                       │
//! │ guard, report     │           │                      │         │                       │
//! │ groups::run       │◀──────────┤                      │         │                       │
//! │ uplink::watch     ├──────────▶│                      │         │                       │
//! └───────────────────┘ Ownership └──────────────────────┘         └───────────────────────┘
//! ```
//!
//! All channels but the director's reports hold only the latest value, so no side can
//! fall behind. The core never waits for the API server, a file or the director. If the
//! core or the director thread ends, the process ends, and its supervisor starts it anew:
//! what is in the kernel stays and serves meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use lightship_crds::VipMode;
use lightship_netio::Monitor;
use tokio::sync::{mpsc, watch};

use crate::args::{Args, Cordon, Mode};
use crate::drift::Drift;
use crate::metrics::Metrics;
use crate::report::{Facts, Trouble};
use crate::uplink::{self, Choice, Current, Uplink};
use crate::{director, events, guard, lock, node, prober, replaced, report, status};
use lightship_core::cache::{self, LoadError, Saved};
use lightship_core::core::{Core, DirectorReport, Ownership, Setup};
use lightship_core::eligibility::Policy;
use lightship_core::further::Own;
use lightship_core::path;
use lightship_core::world::{NodeName, World};
use lightship_membership::graph::Shape;

/// How long the process waits, when all else has ended, for the word that it stops.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Runs a speaker until it is told to stop.
///
/// # Errors
/// When it cannot start or one of its threads fails.
pub async fn run(args: Args, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (origin, started) = (Instant::now(), SystemTime::now());
    let _only = lock::take(&args.state_file)?;
    let kernel_boot = kernel_boot();
    let saved = load(&args, &kernel_boot);
    let (world_tx, mut world) = watch::channel(known(&saved));
    let (secrets_tx, mut secrets) = watch::channel(crate::watch::initial(
        &saved.secrets,
        args.insecure_heartbeats,
    ));
    let client = lightship_kit::connect(args.kubeconfig.as_deref()).await?;
    let metrics = Metrics::default();
    let watches = metrics.watches.clone();
    tokio::spawn(crate::watch::run(client.clone(), world_tx, watches));
    if args.insecure_heartbeats {
        tracing::warn!(
            "--insecure-heartbeats: whoever can send to UDP port {} can take addresses over",
            args.heartbeat_port
        );
        // Nothing will change.
        tokio::spawn(async move { secrets_tx.closed().await });
    } else {
        let (client, namespace) = (client.clone(), args.namespace.clone());
        tokio::spawn(async move { crate::watch::keys(client, &namespace, secrets_tx).await });
    }

    let me = NodeName::from(args.node_name.as_str());
    let (facts, facts_rx) = watch::channel(Facts::default());
    let (health_tx, health) = watch::channel(director::Health::default());
    let (ownership_tx, ownership) = watch::channel(Arc::<Ownership>::default());
    let (verdict_tx, verdict) = watch::channel(Arc::<path::Verdict>::default());
    let (snapshot_tx, snapshot) = watch::channel(None);
    let (used_tx, used) = watch::channel(Arc::<[Own]>::from([]));
    let drift = Drift::default();
    let admin = metrics.admin(snapshot, drift.subscribe());
    tokio::spawn(admin.serve(args.metrics_address));
    let inputs = report::Inputs {
        verdict: verdict.clone(),
        facts: facts_rx,
        health,
        used: used.clone(),
        ownership: ownership.clone(),
        world: world.clone(),
        stop: stop.clone(),
    };
    let reporter = tokio::spawn(report::run(client.clone(), me.clone(), inputs));

    let found = first_world(&args, &me, &mut world, &facts, stop.clone()).await?;
    let Some((first, link)) = found else {
        return Ok(());
    };
    facts.send_modify(|facts| facts.uplink = Some(link.clone()));
    let mut search = uplink::Search::new().await;
    let further = search.find(link.index, &first).await?;
    // Until the core has decided, what is there for any of them stays.
    used_tx.send_replace(further.clone());
    let Some(keys) = first_keys(&args, &mut secrets, &facts, stop.clone()).await else {
        return Ok(());
    };
    let director_mac = director::mac(&link).await?;
    let (uplink_tx, uplink) = watch::channel(Current::new(link.clone()));
    let plan = director::Plan {
        uplink: uplink.clone(),
        mac: director_mac,
        drift: drift.clone(),
    };
    let (reports_tx, reports) = mpsc::unbounded_channel();
    let (director_tx, director_rx) = watch::channel(Arc::default());
    // Who only announces need not ask.
    let replaced = match args.mode {
        Mode::Announce => None,
        Mode::Auto | Mode::DirectRouting => replaced::by_cilium(&client).await?,
    };
    let started_director = match (args.mode, replaced) {
        (Mode::Auto, Some(reason)) => {
            tracing::warn!(%reason, "no director on this node: VIPs are only announced");
            (None, reason)
        }
        (_, replaced) => {
            if let Some(reason) = replaced {
                tracing::warn!(%reason, "kube-proxy is replaced");
            }
            start_director(args.mode, plan, director_rx, reports_tx, health_tx).await?
        }
    };
    let (started_director, reason) = started_director;
    let (found, director_thread) = started_director.unzip();
    let mode = if found.is_some() {
        VipMode::DirectRouting
    } else {
        VipMode::Announce
    };
    let has_director = found.is_some();
    facts.send_modify(|facts| facts.mode = Some((mode, reason)));
    let guard = guard::run(
        uplink.clone(),
        used.clone(),
        found.is_some(),
        world.clone(),
        drift.clone(),
    );
    tokio::spawn(async move {
        if let Err(error) = guard.await {
            tracing::error!(%error, "the loop guard is not kept up any more");
        }
    });

    // Greater than at the last start, also if the clock went back meanwhile.
    let clock = started
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_nanos() as u64);
    let boot_id = clock.max(saved.boot_id + 1);
    let setup = Setup {
        me: me.clone(),
        boot_id,
        interval: args.heartbeat_interval,
        misses: args.heartbeat_misses,
        shape: Shape::DEFAULT,
        uplink_mac: link.mac,
        director_mac,
        direct_routing: found.is_some(),
        interface: link.name.as_str().into(),
        further: further.clone(),
        policy: Policy {
            cordon_moves: args.cordon == Cordon::Move,
        },
        rebalance: (args.rebalance_after > 0)
            .then(|| Duration::from_secs(args.rebalance_after.into())),
        removal_grace: args.removal_grace,
        conflict_wait: args.conflict_wait,
    };
    tracing::info!(node = %me, uplink = %link.name, uplink_mac = %link.mac, %director_mac,
        mode = ?mode, "speaker starts");
    let found = found.unwrap_or_default();
    let report = DirectorReport {
        healthy: true,
        applied: 0,
        programmed: found.vips,
        uplinks: Default::default(),
        digest: 0,
        failing: Default::default(),
        error: None,
    };
    let now = origin.elapsed();
    let mut core = Core::new(setup, keys, first.clone(), &saved, report, now)?;
    core.adopt(found.destinations, now);

    // Without a state file the node has booted, and kube-proxy with it.
    let idle = saved.boot_id == 0 || saved.idle;
    core.on_serves(!idle, now);
    let place = prober::Place {
        me: me.clone(),
        director: has_director.then_some(director_mac),
        boot_id,
        port: args.heartbeat_port,
    };
    let current = Current::new(link.clone());
    let tester = prober::begin(&place, &current, &first, &saved.paths, &verdict_tx, now);
    core.on_path(&verdict.borrow(), now);
    let (kept_tx, kept) = watch::channel(saved.paths.clone());
    let (serves_tx, serves) = watch::channel(!idle);
    if idle {
        tokio::spawn(crate::proxy::wait(
            client.clone(),
            verdict.clone(),
            serves_tx,
        ));
    }
    let (saved_tx, saved_rx) = watch::channel(Saved {
        idle,
        world: first,
        boot_id,
        kernel_boot,
        secrets: secrets.borrow().clone(),
        ..saved
    });
    // Else it would be kept beside the one that the API server tells, for as long as this runs.
    drop(saved.world);
    // The state file should hold what this start was made from, whatever comes next.
    saved_tx.send_modify(|_| ());
    let status_node = me.clone();
    let identity = status::Identity {
        node: me,
        interface: link.name.clone(),
        director_mac: director_mac.to_string(),
        uplink_mac: link.mac.to_string(),
        origin,
    };
    tokio::spawn(events::mended(
        client.clone(),
        identity.node.clone(),
        drift.subscribe(),
    ));
    tokio::spawn(events::run(
        client.clone(),
        identity.node.clone(),
        ownership.clone(),
        world.clone(),
    ));
    tokio::spawn(status::run(
        client,
        identity,
        uplink.clone(),
        ownership,
        world.clone(),
    ));
    let keeper = tokio::spawn(keep(args.state_file.clone(), saved_rx));
    let sockets = node::Sockets {
        port: args.heartbeat_port,
    };
    let (networks_tx, networks_rx) = watch::channel(Arc::from([]));
    let choice = Choice {
        name: args.uplink.clone(),
        node: status_node,
    };
    let (further_tx, further) = watch::channel(further);
    let told = uplink::Told {
        current: uplink_tx,
        networks: networks_tx,
        further: further_tx,
    };
    tokio::spawn(uplink::watch(choice, world.clone(), search, told));
    tokio::spawn(follow_facts(uplink.clone(), further.clone(), facts));
    let (paths_tx, paths_rx) = watch::channel(Arc::default());
    let inputs = prober::Inputs {
        uplink: uplink.clone(),
        peers: paths_rx,
        world: world.clone(),
        secrets: secrets.clone(),
        kept: kept_tx.clone(),
        stop: stop.clone(),
    };
    tokio::spawn(async move {
        if let Err(error) = prober::run(place, tester, inputs, verdict_tx.clone(), origin).await {
            tracing::error!(%error, "the network is not tested any more");
            // Nobody would ever find that it is not so any more, or wait for a word in vain.
            verdict_tx.send_replace(Arc::new(path::Verdict {
                judged: true,
                ..path::Verdict::default()
            }));
            kept_tx.send_replace(Default::default());
        }
    });
    let (groups_tx, groups_rx) = watch::channel(Default::default());
    tokio::spawn(crate::groups::run(uplink.clone(), used, groups_rx));
    let links = node::Links {
        uplink,
        serves,
        paths: paths_tx,
        verdict,
        kept,
        networks: networks_rx,
        further,
        used: used_tx,
        groups: groups_tx,
        world,
        secrets,
        reports,
        has_director: mode == VipMode::DirectRouting,
        director: director_tx,
        ownership: ownership_tx,
        snapshot: snapshot_tx,
        lateness: metrics.lateness,
        saved: saved_tx,
        stop,
    };
    let core = lightship_netio::spawn_thread_in(
        &lightship_netio::Netns::current()?,
        "core",
        move || {
            let priority = lightship_netio::raise_priority();
            if let Err(error) = &priority.scheduler {
                tracing::warn!(%error, "no real-time priority: a busy node may be late with heartbeats");
            }
            node::run(core, origin, sockets, links)
        },
    )?;
    let ended = tokio::task::spawn_blocking(move || core.join()).await?;
    // The senders are gone now, so the keeper writes the last state and ends, and so does the
    // director, when it has done what it was told last.
    keeper.await?;
    if let Some(thread) = director_thread {
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow::anyhow!("the director's thread panicked"))?;
    }
    // The last word to the API server is worth a moment, but no more.
    let _ = tokio::time::timeout(LAST_WORD, reporter).await;
    ended.map_err(|_| anyhow::anyhow!("the core thread panicked"))?
}

/// Which boot of the kernel this is; empty if it does not tell.
fn kernel_boot() -> Arc<str> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().into()
}

fn load(args: &Args, kernel_boot: &str) -> Saved {
    match cache::load(&args.state_file, kernel_boot) {
        Ok(saved) => {
            tracing::info!(
                vips = saved.world.vips.len(),
                owned = saved.claims.len(),
                "last known state read"
            );
            saved
        }
        Err(LoadError::Missing) => Saved::default(),
        Err(error) => {
            tracing::warn!(%error, "starting without the last known state");
            Saved::default()
        }
    }
}

/// The saved world, unless it is empty.
fn known(saved: &Saved) -> Option<Arc<World>> {
    (!saved.world.nodes.is_empty()).then(|| saved.world.clone())
}

/// Waits for a world in which the own node has an address that one of this machine's
/// interfaces carries. The saved world may be out of date; then the API server's word counts.
async fn first_world(
    args: &Args,
    me: &NodeName,
    world: &mut watch::Receiver<Option<Arc<World>>>,
    facts: &watch::Sender<Facts>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Option<(Arc<World>, Uplink)>> {
    // Opened before the first look, so that no change falls between.
    let mut monitor = Monitor::open()?;
    let mut said = String::new();
    loop {
        let latest = world.borrow_and_update().clone();
        let own = latest.as_ref().and_then(|w| w.nodes.get(me)).cloned();
        let trouble = match (latest, own) {
            (Some(world), Some(own)) => match uplink::find(args.uplink.as_deref(), &own).await {
                Ok(link) => {
                    facts.send_modify(|facts| facts.trouble = None);
                    return Ok(Some((world, link)));
                }
                Err(error) => format!("{error:#}"),
            },
            (Some(_), None) => format!("the cluster has no Node {me}; is --node-name right?"),
            (None, _) => String::new(),
        };
        if trouble != said {
            tracing::warn!("waiting for a change: {trouble}");
            let told = (!trouble.is_empty()).then(|| Trouble::new("UplinkMissing", &*trouble));
            facts.send_modify(|facts| facts.trouble = told);
            said = trouble;
        }
        tokio::select! {
            changed = world.changed() => if changed.is_err() { return Ok(None) },
            // An interface may come without any news from the API server.
            notice = monitor.next() => drop(notice?),
            _ = stop.changed() => return Ok(None),
        }
    }
}

/// Lets the Speaker object tell of the uplinks as they are.
async fn follow_facts(
    mut uplink: watch::Receiver<Current>,
    mut further: watch::Receiver<Arc<[Own]>>,
    facts: watch::Sender<Facts>,
) {
    loop {
        let link = Some(uplink.borrow_and_update().link.clone());
        let others = further.borrow_and_update().clone();
        let others: Vec<u32> = others.iter().map(|own| own.index).collect();
        facts.send_if_modified(|facts| {
            let changed = facts.uplink != link || facts.further != others;
            (facts.uplink, facts.further) = (link.clone(), others.clone());
            changed
        });
        let changed = tokio::select! {
            changed = uplink.changed() => changed,
            changed = further.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn first_keys(
    args: &Args,
    secrets: &mut watch::Receiver<Vec<Vec<u8>>>,
    facts: &watch::Sender<Facts>,
    mut stop: watch::Receiver<bool>,
) -> Option<lightship_membership::Keys> {
    let mut said = false;
    loop {
        if let Some(keys) = node::keys(&secrets.borrow_and_update()) {
            facts.send_modify(|facts| facts.trouble = None);
            return Some(keys);
        }
        if !std::mem::replace(&mut said, true) {
            let name = lightship_crds::HEARTBEAT_SECRET;
            let text = format!(
                "waiting for Secret {}/{name} with the heartbeat key, which the controller makes: it \
                 has to run, in this namespace; or else start all speakers with \
                 --insecure-heartbeats, and anybody on the network can forge heartbeats",
                args.namespace
            );
            tracing::warn!("{text}");
            facts.send_modify(|facts| facts.trouble = Some(Trouble::new("NoHeartbeatKey", text)));
        }
        tokio::select! {
            changed = secrets.changed() => changed.ok()?,
            _ = stop.changed() => return None,
        }
    }
}

type Director = (director::Found, lightship_netio::NetnsThread<()>);

/// Starts the director if this node can have one; says why it has one or not.
async fn start_director(
    mode: Mode,
    plan: director::Plan,
    intent: watch::Receiver<Arc<lightship_core::core::DirectorIntent>>,
    reports: mpsc::UnboundedSender<DirectorReport>,
    health: watch::Sender<director::Health>,
) -> anyhow::Result<(Option<Director>, String)> {
    if mode == Mode::Announce {
        let reason = "the speaker was started with --mode announce";
        return Ok((None, reason.to_owned()));
    }
    let uplink = plan.uplink.borrow().link.name.clone();
    match director::start(plan, intent, reports, health).await {
        Ok(found) => {
            let reason = format!("the kernel has IPVS, and {uplink} carries a director");
            Ok((Some(found), reason))
        }
        Err(error) if mode == Mode::Auto && error.is_not_supported() => {
            tracing::warn!(%error, "no director on this node: VIPs are only announced, \
                and the owner's kube-proxy takes their traffic");
            Ok((None, error.to_string()))
        }
        Err(error) => Err(error).context("cannot set up the director"),
    }
}

/// How long a change of the state waits for others before it is written.
const KEEP_WAIT: Duration = Duration::from_millis(200);

/// The shortest and the longest pause between two writes of the state file.
const KEEP_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Writes the state file whenever the state changes, the last time when the core has ended.
async fn keep(path: std::path::PathBuf, mut saved: watch::Receiver<Saved>) {
    let mut failing = false;
    let (mut open, mut news) = (true, false);
    loop {
        if open && !news {
            open = saved.changed().await.is_ok();
        }
        // A change seldom comes alone, and nobody should have to wait while it is written.
        if open {
            (open, _) = rest(&mut saved, KEEP_WAIT).await;
        }
        let state = saved.borrow_and_update().clone();
        let file = path.clone();
        let began = Instant::now();
        let result = tokio::task::spawn_blocking(move || cache::store(&file, &state)).await;
        match result {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) if !failing => {
                tracing::warn!(%error, path = %path.display(), "cannot keep the state; a restart \
                    will need the API server");
                failing = true;
            }
            _ => {}
        }
        if !open {
            return;
        }
        // Many changes in a row are one write, and writing takes at most a twentieth of the time.
        let pause = (began.elapsed() * 20).clamp(KEEP_PAUSE.0, KEEP_PAUSE.1);
        (open, news) = rest(&mut saved, pause).await;
    }
}

/// Waits so long, or until there will be no more changes. Whether there may be more, and whether there were any.
async fn rest(saved: &mut watch::Receiver<Saved>, time: Duration) -> (bool, bool) {
    let mut changed = false;
    let end = tokio::time::timeout(time, async {
        while saved.changed().await.is_ok() {
            changed = true;
        }
    });
    (end.await.is_err(), changed)
}
