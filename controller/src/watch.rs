//! Watchers: one task per kind, each feeding the run loop.

use std::fmt::Debug;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Error, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::adapter::{self, Dialect};
use crate::model::{Change, Input};

/// Changes on their way to the run loop at most; beyond that the watchers wait.
const QUEUE: usize = 1024;

/// The watchers and what they see. Dropped, it ends them, and with them all they hold.
pub struct Watchers {
    inputs: mpsc::Receiver<Input>,
    _tasks: JoinSet<()>,
}

impl Watchers {
    /// The next thing seen; none if all watchers have ended. Cancelling is safe.
    pub async fn next(&mut self) -> Option<Input> {
        self.inputs.recv().await
    }
}

/// Starts all watchers.
pub fn start(client: &Client, dialect: Dialect) -> Watchers {
    let (sender, inputs) = mpsc::channel(QUEUE);
    let mut starter = Starter::new(client, sender);
    let service = move |object| adapter::service(object, &dialect);
    starter.watch::<Service, _>("services", service, Input::Services);
    starter.watch("addresspools", adapter::pool, Input::Pools);
    starter.watch("virtualips", adapter::vip, Input::Vips);
    // Only their metadata crosses the wire.
    starter.watch::<PartialObjectMeta<Namespace>, _>(
        "namespaces",
        adapter::namespace,
        Input::Namespaces,
    );
    starter.watch("nodes", adapter::node, Input::Nodes);
    starter.watch("speakers", adapter::speaker, Input::Speakers);
    Watchers {
        inputs,
        _tasks: starter.tasks,
    }
}

/// Starts watchers that feed one queue.
pub(crate) struct Starter<'a, I> {
    client: &'a Client,
    sender: mpsc::Sender<I>,
    /// The watchers. Dropped, it ends them.
    pub(crate) tasks: JoinSet<()>,
}

impl<'a, I: Send + 'static> Starter<'a, I> {
    pub(crate) fn new(client: &'a Client, sender: mpsc::Sender<I>) -> Self {
        Self {
            client,
            sender,
            tasks: JoinSet::new(),
        }
    }

    /// Watches all objects of a kind.
    pub(crate) fn watch<K, T>(
        &mut self,
        kind: &'static str,
        view: impl Fn(K) -> T + Send + 'static,
        input: fn(Change<T>) -> I,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        T: Debug + Send + 'static,
    {
        self.watch_in(Api::all(self.client.clone()), kind, view, input);
    }

    /// Watches what `api` shows.
    pub(crate) fn watch_in<K, T>(
        &mut self,
        api: Api<K>,
        kind: &'static str,
        view: impl Fn(K) -> T + Send + 'static,
        input: fn(Change<T>) -> I,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        T: Debug + Send + 'static,
    {
        // The default lists what is newest, not what a cache of the API server has: an address
        // must not be given away because its holder is not in the cache yet.
        let stream = lightship_kit::watch(api, Config::default());
        let feed = feed(kind, stream, view, input, self.sender.clone());
        self.tasks.spawn(feed);
    }
}

async fn feed<K, T, I>(
    kind: &'static str,
    stream: impl Stream<Item = Result<Event<K>, Error>>,
    view: impl Fn(K) -> T,
    input: fn(Change<T>) -> I,
    inputs: mpsc::Sender<I>,
) where
    T: Debug,
{
    pin_mut!(stream);
    let mut listing = Vec::new();
    let mut failing = false;
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listing.push(view(object));
                continue;
            }
            Ok(Event::InitDone) => {
                tracing::info!(kind, objects = listing.len(), "listed");
                Change::Listed(std::mem::take(&mut listing))
            }
            Ok(Event::Apply(object)) => Change::Applied(view(object)),
            Ok(Event::Delete(object)) => Change::Gone(view(object)),
            Err(error) => {
                // Said once per outage; the watcher tries again by itself.
                if !failing {
                    tracing::warn!(kind, %error, "watch interrupted");
                }
                failing = true;
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!(kind, "watch restored");
        }
        if inputs.send(input(change)).await.is_err() {
            return;
        }
    }
}
