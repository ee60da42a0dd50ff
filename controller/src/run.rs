//! The run loop: the one task that owns the state, for as long as this replica leads.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use lightship_kit::AdminAddress;

use crate::adapter::Dialect;
use crate::core::Core;
use crate::heartbeat_key;
use crate::leader::{Authority, Leadership};
use crate::lease::Timing;
use crate::metrics::{Metrics, Snapshot};
use crate::model::{Action, Clock, Input, Notice};
use crate::node_failure;
use crate::publish::Publisher;
use crate::sink::ApiServer;
use crate::throttle::Rate;
use crate::watch;
use crate::writer::{News, Writer};

/// How long writes under way may take after the signal to stop. What is not written by
/// then the next leader writes.
const GRACE: Duration = Duration::from_secs(1);

/// What the command line decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which Services are ours, and whose annotations count.
    pub dialect: Dialect,
    /// Where the Lease and the heartbeat key live.
    pub namespace: String,
    /// Tells replicas apart.
    pub instance: String,
    /// Of the Lease.
    pub timing: Timing,
    /// Of writes.
    pub rate: Rate,
    /// Whether Kubernetes is told early of dead nodes, and of how many at once.
    pub early_node_failure: Option<node_failure::Limit>,
    /// Of the monitoring port.
    pub metrics_address: AdminAddress,
}

/// How often at most what a leader knows is counted: with thousands of Services that takes a while.
const COUNT: Duration = Duration::from_secs(1);

/// Where a leader leaves its counts; they go with its tenure.
struct Board<'a>(&'a tokio::sync::watch::Sender<Option<Arc<Snapshot>>>);

impl Board<'_> {
    fn write(&self, core: &Core, writer: &Writer<ApiServer>) {
        let snapshot = Snapshot {
            pending: writer.pending(),
            ..core.snapshot()
        };
        self.0.send_replace(Some(Arc::new(snapshot)));
    }
}

impl Drop for Board<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// Why a tenure ended.
enum End {
    Stop,
    Lost,
}

/// Runs until `shutdown` ends.
pub async fn run(client: Client, options: Options, shutdown: impl Future<Output = &'static str>) {
    let key = heartbeat_key::keep(client.clone(), options.namespace.clone());
    tokio::spawn(key);
    let mut leadership = Leadership::start(
        client.clone(),
        &options.namespace,
        &options.instance,
        options.timing,
    );
    let metrics = Metrics::default();
    let (board, told) = tokio::sync::watch::channel(None);
    tokio::spawn(metrics.admin(told).serve(options.metrics_address));
    tokio::pin!(shutdown);
    loop {
        let authority = tokio::select! {
            signal = &mut shutdown => {
                tracing::info!(signal, "stopping");
                break;
            }
            authority = leadership.won() => authority,
        };
        let board = Board(&board);
        let tenure = lead(
            &client,
            &options,
            authority,
            &metrics,
            &board,
            shutdown.as_mut(),
        );
        match tenure.await {
            End::Stop => break,
            End::Lost => tracing::info!("standing by"),
        }
    }
    leadership.resign().await;
}

/// One tenure: everything is learnt anew, and nothing of it is kept.
async fn lead(
    client: &Client,
    options: &Options,
    authority: Authority,
    metrics: &Metrics,
    board: &Board<'_>,
    mut shutdown: Pin<&mut impl Future<Output = &'static str>>,
) -> End {
    let origin = Instant::now();
    let mut watchers = watch::start(client, options.dialect.clone());
    let publisher = Publisher::start(client.clone(), authority.clone(), options.instance.clone());
    let _watchman = options
        .early_node_failure
        .map(|limit| node_failure::start(client, authority.clone(), publisher.clone(), limit));
    let sink = ApiServer::new(client.clone(), authority.clone());
    let mut writer = Writer::new(sink, options.rate).counting(metrics.writes.clone());
    let mut core = Core::default();
    board.write(&core, &writer);
    let mut count: Option<Instant> = None;
    let lost = authority.lost();
    tokio::pin!(lost);
    loop {
        publisher.wait(writer.busy());
        let due = count.unwrap_or_else(Instant::now);
        let input = tokio::select! {
            signal = &mut shutdown => {
                tracing::info!(signal, "stopping");
                break;
            }
            () = &mut lost => return End::Lost,
            news = writer.step() => match news {
                Some(News::Recheck(key)) => Input::Recheck(key),
                Some(News::Written(key)) => Input::Written(key),
                Some(News::Refused(key, reason)) => Input::Refused(key, reason),
                None => {
                    count.get_or_insert_with(|| Instant::now() + COUNT);
                    continue;
                }
            },
            () = tokio::time::sleep_until(due.into()), if count.is_some() => {
                count = None;
                board.write(&core, &writer);
                continue;
            }
            () = until(core.deadline(), origin) => Input::Tick,
            input = watchers.next() => match input {
                Some(input) => input,
                None => {
                    tracing::error!("all watchers ended");
                    break;
                }
            },
        };
        // The process may have stood still since.
        if !authority.holds() {
            return End::Lost;
        }
        let was_ready = core.ready();
        let began = Instant::now();
        let actions = core.apply(input, now(origin));
        metrics.decisions.observe(began.elapsed().as_secs_f64());
        count.get_or_insert(began + COUNT);
        if core.ready() && !was_ready {
            let (addresses, writes) = (core.allocator().holdings().count(), actions.len());
            tracing::info!(addresses, writes, "ready");
            board.write(&core, &writer);
        }
        let mut notices = Vec::new();
        for action in actions {
            match action {
                Action::Write(write) => writer.submit(write),
                Action::Notify(notice) => notices.push(notice),
            }
        }
        // Before the first of them is seen: what people wait for comes before word of it.
        publisher.wait(writer.busy());
        for notice in notices {
            tell(notice, &publisher);
        }
    }
    let drained = tokio::time::timeout(GRACE, async {
        while !writer.idle() {
            writer.step().await;
        }
    });
    if drained.await.is_err() {
        tracing::warn!("stopped with writes under way");
    }
    End::Stop
}

fn tell(notice: Notice, publisher: &Publisher) {
    let (subject, reason, note) = (&notice.subject, notice.reason, &notice.note);
    if notice.warning {
        tracing::warn!(%subject, reason, note);
    } else {
        tracing::info!(%subject, reason, note);
    }
    publisher.notify(notice);
}

/// Waits for a moment given since `origin`, or for ever.
async fn until(moment: Option<Duration>, origin: Instant) {
    match moment {
        Some(moment) => tokio::time::sleep_until((origin + moment).into()).await,
        None => std::future::pending().await,
    }
}

fn now(origin: Instant) -> Clock {
    let wall = Timestamp::now();
    Clock {
        mono: origin.elapsed(),
        // Objects carry whole seconds.
        wall: Timestamp::from_second(wall.as_second()).unwrap_or(wall),
    }
}
