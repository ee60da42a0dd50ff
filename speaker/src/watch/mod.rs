//! Watches the API server and keeps one [`World`].
//!
//! One task owns the world and all watches. It publishes a world only when every kind has
//! been listed once, so that nobody acts on half the truth; until then (and while the API
//! server is away) the world of before is used. A watch that breaks is opened again with
//! back-off by the watcher itself; what was known stays known meanwhile.

mod convert;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, Resource, ResourceExt};
use lightship_crds::{AddressPool, L2Announcement, VirtualIP};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::metrics::Kind;
use lightship_core::world::{NodeName, Part, Service, ServiceRef, Slice, World};

pub use keys::{initial, keys};

/// At most this many events are taken together before the world is published.
const BATCH: usize = 512;

/// So many objects are listed at a time: of each far more is read than is kept, and what a page takes is not all
/// given back.
const PAGE: u32 = 100;

/// One change of one kind.
#[expect(clippy::large_enum_variant, reason = "each lives for one call")]
enum Change {
    Node(Event<core::Node>),
    Service(Event<core::Service>),
    Slice(Event<EndpointSlice>),
    Vip(Event<VirtualIP>),
    Announcement(Event<L2Announcement>),
    Pool(Event<AddressPool>),
}

const KINDS: usize = 6;

/// Gives an object's key and value, or no value for an object that is of no interest.
type Read<K, Key, Value> = fn(&K) -> Option<(Key, Option<Value>)>;

/// Watches until the receiver side of `world` is gone. `up` tells which watches work.
pub async fn run(
    client: Client,
    world: watch::Sender<Option<Arc<World>>>,
    up: Family<Kind, Gauge>,
) {
    let mut changes = futures::stream::select_all([
        stream(Api::all(client.clone()), &up, Change::Node),
        stream(Api::all(client.clone()), &up, Change::Service),
        stream(Api::all(client.clone()), &up, Change::Slice),
        stream(Api::all(client.clone()), &up, Change::Vip),
        stream(Api::all(client.clone()), &up, Change::Announcement),
        stream(Api::all(client), &up, Change::Pool),
    ]);
    let mut state = State::default();
    let mut published: Option<Arc<World>> = None;
    let mut shown = Shown::default();
    while let Some(first) = changes.next().await {
        state.take(first);
        for _ in 1..BATCH {
            match changes.next().now_or_never() {
                Some(Some(more)) => state.take(more),
                _ => break,
            }
        }
        if state.listed.len() == KINDS && std::mem::take(&mut state.news) {
            let next = shown.of(&state.world);
            // A Service without a VIP is nobody's business yet: a new one's address should not have to wait
            // while all speakers look at it.
            let touched = published.as_ref().and_then(|before| next.touched(before));
            if touched.is_none_or(|vips| !vips.is_empty()) {
                let next = Arc::new(next);
                published = Some(next.clone());
                world.send_replace(Some(next));
            }
        }
        if world.is_closed() {
            return;
        }
    }
}

fn stream<K>(
    api: Api<K>,
    up: &Family<Kind, Gauge>,
    wrap: fn(Event<K>) -> Change,
) -> BoxStream<'static, Change>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let up = up.get_or_create_owned(&Kind { kind: kind.clone() });
    // A server that vanished without a word is noticed after this many seconds.
    let config = Config::default().timeout(60).page_size(PAGE);
    lightship_kit::watch(api, config)
        .filter_map(move |event| {
            up.set(event.is_ok().into());
            let change = match event {
                Ok(event) => Some(wrap(event)),
                Err(error) => {
                    tracing::warn!(%error, "the watch of {kind}s broke; it is tried again");
                    None
                }
            };
            std::future::ready(change)
        })
        .boxed()
}

/// What is published of the world: no slices of Services without a VIP. Their Pods come and go all the
/// time, and matter to nobody here.
#[derive(Default)]
struct Shown {
    /// Services and slices as they were, and which of the latter are shown.
    services: Part<ServiceRef, Service>,
    slices: Slices,
    of_services: Slices,
}

type Slices = Part<ServiceRef, BTreeMap<String, Slice>>;

impl Shown {
    fn of(&mut self, world: &World) -> World {
        let mut next = world.clone();
        let services = world.services.differing(&self.services).into_iter();
        let touched: Vec<&ServiceRef> = services
            .chain(world.slices.differing(&self.slices))
            .collect();
        // Mostly it is about one Service: what is shown of the others stays the very same.
        for service in touched {
            if world.services.contains_key(service) {
                self.of_services.follow(&world.slices, service);
            } else {
                self.of_services.take(service);
            }
        }
        (self.services, self.slices) = (world.services.clone(), world.slices.clone());
        next.slices = self.of_services.clone();
        next
    }
}

/// The world so far, and the lists that are being read.
#[derive(Default)]
struct State {
    world: World,
    /// It has changed since this was last taken.
    news: bool,
    /// What a list that is being read has brought so far: it replaces the kind's part of
    /// the world in one step when the list is complete.
    fresh: World,
    listed: std::collections::BTreeSet<&'static str>,
    /// Where a slice was filed, by its object's key: a deletion names the object.
    slices: BTreeMap<ServiceRef, ServiceRef>,
}

impl State {
    fn take(&mut self, change: Change) {
        match change {
            Change::Node(event) => self.fold(
                "Node",
                event,
                |w| &mut w.nodes,
                |o| Some((NodeName::from(o.name_any()), Some(convert::node(o)))),
            ),
            Change::Service(event) => self.fold(
                "Service",
                event,
                |w| &mut w.services,
                |o| Some((key(o), convert::service(o))),
            ),
            Change::Vip(event) => self.fold(
                "VirtualIP",
                event,
                |w| &mut w.vips,
                |o| convert::vip(o).map(|(address, vip)| (address, Some(vip))),
            ),
            Change::Announcement(event) => {
                self.fold(
                    "L2Announcement",
                    event,
                    |w| &mut w.announcements,
                    |o| Some((o.name_any(), Some(convert::announcement(o)))),
                );
            }
            Change::Pool(event) => self.fold(
                "AddressPool",
                event,
                |w| &mut w.pools,
                |o| {
                    Some((
                        o.name_any(),
                        Some(o.metadata.labels.clone().unwrap_or_default()),
                    ))
                },
            ),
            Change::Slice(event) => self.slice(event),
        }
    }

    /// Applies one event to the map that `part` picks.
    fn fold<K, Key: Ord + Clone, Value: Clone + PartialEq>(
        &mut self,
        kind: &'static str,
        event: Event<K>,
        part: fn(&mut World) -> &mut Part<Key, Value>,
        read: Read<K, Key, Value>,
    ) {
        let put = |map: &mut Part<Key, Value>, object: &K| match read(object) {
            Some((key, Some(value))) => map.put(key, value),
            Some((key, None)) => map.take(&key),
            None => false,
        };
        match event {
            Event::Init => *part(&mut self.fresh) = Part::default(),
            Event::InitApply(object) => {
                put(part(&mut self.fresh), &object);
            }
            Event::InitDone => {
                let mut read = std::mem::take(part(&mut self.fresh));
                read.share(part(&mut self.world));
                *part(&mut self.world) = read;
                self.listed.insert(kind);
                self.news = true;
            }
            // A Node's status is written every few minutes, and little of it matters here.
            Event::Apply(object) => self.news |= put(part(&mut self.world), &object),
            Event::Delete(object) => {
                if let Some((key, _)) = read(&object) {
                    self.news |= part(&mut self.world).take(&key);
                }
            }
        }
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        self.news |= !matches!(event, Event::Init | Event::InitApply(_));
        match event {
            Event::Init => self.fresh.slices = Part::default(),
            Event::InitApply(object) => file_slice(&mut self.fresh, &mut self.slices, &object),
            Event::InitDone => {
                let mut read = std::mem::take(&mut self.fresh.slices);
                read.share(&self.world.slices);
                self.world.slices = read;
                self.listed.insert("EndpointSlice");
            }
            Event::Apply(object) => file_slice(&mut self.world, &mut self.slices, &object),
            Event::Delete(object) => {
                remove_slice(&mut self.world, &mut self.slices, &key(&object));
            }
        }
    }
}

fn file_slice(
    world: &mut World,
    filed: &mut BTreeMap<ServiceRef, ServiceRef>,
    object: &EndpointSlice,
) {
    let own = key(object);
    let Some((service, slice)) = convert::slice(object) else {
        return remove_slice(world, filed, &own);
    };
    let of_service = world.slices.get(&service);
    if of_service.and_then(|slices| slices.get(&*own.name)) == Some(&slice) {
        return;
    }
    // A slice may be handed to another Service by its label.
    if filed.get(&own).is_some_and(|old| *old != service) {
        remove_slice(world, filed, &own);
    }
    let of_service = world.slices.or_default(service.clone());
    of_service.insert(own.name.to_string(), slice);
    filed.insert(own, service);
}

fn remove_slice(world: &mut World, filed: &mut BTreeMap<ServiceRef, ServiceRef>, own: &ServiceRef) {
    let Some(service) = filed.remove(own) else {
        return;
    };
    if let Some(slices) = world.slices.get_mut(&service) {
        slices.remove(&*own.name);
        if slices.is_empty() {
            world.slices.remove(&service);
        }
    }
}

fn key<K: ResourceExt>(object: &K) -> ServiceRef {
    ServiceRef::new(object.namespace().unwrap_or_default(), object.name_any())
}
