//! An API server in miniature: `World` applies the writes to objects of its own and feeds them
//! back as the watchers would.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use lightship_ipam::{Family, Order, Policy, PoolSpec, Sharing};

use lightship_crds::ServiceRef;

use super::lag::Lag;
use super::*;
use crate::model::{Key, SpeakerView};

/// What the API server would hold.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: u64,
    pub(super) services: BTreeMap<ServiceId, ServiceView>,
    pub(super) pools: BTreeMap<Arc<str>, PoolView>,
    pub(super) vips: BTreeMap<String, VirtualIPSpec>,
    /// Versions of the VirtualIPs; of those that a test put there itself it is 0.
    pub(super) versions: BTreeMap<String, u64>,
    /// The next version of anything.
    pub(super) version: u64,
    pub(super) nodes: Vec<NodeView>,
    pub(super) speakers: Vec<SpeakerView>,
    /// VirtualIPs that are not taken.
    pub(super) refused: BTreeSet<String>,
    /// Services whose status is not taken.
    pub(super) frozen: BTreeSet<ServiceId>,
    /// If set, nothing happens by itself.
    pub(super) lag: Option<Lag>,
    /// In which order a start lists what there is.
    pub(super) shuffle: usize,
    pub(super) notices: Vec<Notice>,
    pub(super) writes: Vec<Write>,
}

pub(super) fn id(name: &str) -> ServiceId {
    ServiceId::new("shop", name)
}

pub(super) fn wish() -> Wish {
    Wish {
        families: vec![Family::V4],
        policy: Policy::Single,
        addresses: vec![],
        pool: None,
    }
}

pub(super) fn service(name: &str, created: i64, demand: Demand) -> ServiceView {
    ServiceView {
        id: id(name),
        uid: format!("{name}-{created}"),
        version: String::new(),
        created,
        labels: BTreeMap::new(),
        demand,
        claims: vec![],
        sharing: Sharing::default(),
        ingress: vec![],
        told: None,
    }
}

pub(super) fn wants(name: &str, created: i64) -> ServiceView {
    service(name, created, Demand::Addresses(wish()))
}

pub(super) fn asks(name: &str, created: i64, address: &str) -> ServiceView {
    let addresses = vec![address.parse().unwrap()];
    service(
        name,
        created,
        Demand::Addresses(Wish {
            addresses,
            ..wish()
        }),
    )
}

pub(super) fn shown(address: &str) -> Ingress {
    Ingress {
        ip: Some(address.parse().unwrap()),
        plain: true,
    }
}

pub(super) fn pool(name: &str, created: i64, blocks: &[&str]) -> PoolView {
    PoolView {
        spec: PoolSpec {
            name: name.into(),
            created,
            blocks: blocks.iter().map(ToString::to_string).collect(),
            auto_assign: true,
            avoid_buggy: false,
            pinned: None,
            reuse_delay: Duration::ZERO,
            order: Order::Lowest,
            on_shrink: lightship_ipam::OnShrink::Keep,
            sharing_across_namespaces: false,
            external_ips: false,
        },
        allocation: None,
        uid: format!("{name}-{created}"),
        version: String::new(),
        generation: 1,
        status: None,
    }
}

impl World {
    /// A running controller.
    pub(super) fn started(pools: Vec<PoolView>) -> Self {
        let mut world = World::default();
        for pool in pools {
            world.pools.insert(pool.spec.name.clone(), pool);
        }
        world.restart();
        world
    }

    /// A new controller over the same objects.
    pub(super) fn restart(&mut self) {
        self.core = Core::default();
        self.notices.clear();
        self.writes.clear();
        fn turned<T>(mut all: Vec<T>, by: usize) -> Vec<T> {
            let len = all.len().max(1);
            all.rotate_left(by % len);
            all
        }
        let by = self.shuffle;
        let vips = self.vips.keys().filter_map(|name| self.vip(name));
        let vips = turned(vips.collect(), by);
        let services = turned(self.services.values().cloned().collect(), by);
        let pools = turned(self.pools.values().cloned().collect(), by);
        let shop = NamespaceView {
            name: "shop".into(),
            labels: BTreeMap::new(),
        };
        let lists = vec![
            Input::Vips(Change::Listed(vips)),
            Input::Services(Change::Listed(services)),
            Input::Namespaces(Change::Listed(vec![shop])),
            Input::Nodes(Change::Listed(self.nodes.clone())),
            Input::Speakers(Change::Listed(self.speakers.clone())),
            Input::Pools(Change::Listed(pools)),
        ];
        for list in turned(lists, by) {
            assert!(!self.core.ready() && self.writes.is_empty());
            self.feed(list);
        }
        assert!(self.core.ready());
    }

    pub(super) fn feed(&mut self, input: Input) {
        if let Some(lag) = &mut self.lag {
            return lag.see(input, true);
        }
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let clock = self.clock();
            for action in self.core.apply(input, clock) {
                match action {
                    Action::Notify(notice) => self.notices.push(notice),
                    Action::Write(write) => inputs.extend(self.perform(write)),
                }
            }
            self.now += 1;
            assert!(
                self.writes.len() < 10_000,
                "the controller fights with itself"
            );
        }
    }

    /// Lets time pass until nothing is due any more.
    pub(super) fn wait(&mut self, seconds: u64) {
        let end = self.now + seconds;
        while let Some(due) = self.core.deadline().filter(|due| due.as_secs() <= end) {
            self.now = self.now.max(due.as_secs());
            self.feed(Input::Tick);
        }
        self.now = self.now.max(end);
    }

    pub(super) fn clock(&self) -> Clock {
        Clock {
            mono: Duration::from_secs(self.now),
            wall: Timestamp::from_second(self.now as i64).unwrap(),
        }
    }

    /// Status, reason and message of a Service's condition.
    pub(super) fn told(&self, name: &str) -> (bool, String, String) {
        let told = self.services[&id(name)].told.clone().unwrap();
        let verdict = told.verdict;
        (verdict.met, verdict.reason.into_owned(), verdict.message)
    }

    /// A VirtualIP as a watcher sees it.
    pub(super) fn vip(&self, name: &str) -> Option<VipView> {
        let version = self.versions.get(name).copied().unwrap_or_default();
        Some(VipView {
            name: name.to_owned(),
            revision: Revision {
                uid: format!("uid of {name}"),
                version: version.to_string(),
            },
            spec: self.vips.get(name)?.clone(),
        })
    }

    /// Does a write as the API server would, if its object is as the decision saw it; returns
    /// what the watchers then see.
    pub(super) fn perform(&mut self, write: Write) -> Option<Input> {
        self.writes.push(write.clone());
        self.version += 1;
        let version = self.version;
        match write {
            Write::Vip { name, .. } if self.refused.contains(&name) => {
                Some(Input::Refused(Key::Vip(name), "denied by a policy".into()))
            }
            Write::Vip { name, seen, spec } => {
                if seen != self.vip(&name).map(|there| there.revision) {
                    return None;
                }
                self.vips.insert(name.clone(), spec);
                self.versions.insert(name.clone(), version);
                Some(Input::Vips(Change::Applied(self.vip(&name)?)))
            }
            Write::DropVip { name, seen } => {
                let there = self.vip(&name)?;
                if seen.is_some_and(|seen| seen != there.revision) {
                    return None;
                }
                self.vips.remove(&name);
                Some(Input::Vips(Change::Gone(there)))
            }
            Write::ServiceStatus {
                service,
                seen,
                addresses,
                told,
            } => {
                if self.frozen.contains(&service) {
                    return Some(Input::Refused(Key::Service(service), "frozen".into()));
                }
                let object = self.services.get_mut(&service)?;
                if (&object.uid, &object.version) != (&seen.uid, &seen.version) {
                    return None;
                }
                for address in addresses.iter().flatten() {
                    let vip = &self.vips[&virtual_ip_name(*address)];
                    let user = |user: &ServiceRef| user.to_string() == service.to_string();
                    assert!(vip.services.iter().any(user), "{address} is not claimed");
                }
                object.version = version.to_string();
                if let Some(addresses) = addresses {
                    let shown = addresses.iter().map(|ip| shown(&ip.to_string()));
                    object.ingress = shown.collect();
                }
                object.told = told;
                Some(Input::Services(Change::Applied(object.clone())))
            }
            Write::PoolStatus { name, seen, status } => {
                let object = self.pools.get_mut(&name)?;
                if (&object.uid, &object.version) != (&seen.uid, &seen.version) {
                    return None;
                }
                object.version = version.to_string();
                object.status = Some(status);
                Some(Input::Pools(Change::Applied(object.clone())))
            }
        }
    }

    /// Creates or changes a Service, as a user would: the status stays.
    pub(super) fn put(&mut self, mut view: ServiceView) {
        if let Some(before) = self
            .services
            .get(&view.id)
            .filter(|old| old.uid == view.uid)
        {
            view.ingress = before.ingress.clone();
            view.told = before.told.clone();
        }
        self.version += 1;
        view.version = self.version.to_string();
        self.services.insert(view.id.clone(), view.clone());
        self.feed(Input::Services(Change::Applied(view)));
    }

    pub(super) fn delete(&mut self, name: &str) {
        if let Some(view) = self.services.remove(&id(name)) {
            self.feed(Input::Services(Change::Gone(view)));
        }
    }

    pub(super) fn put_pool(&mut self, mut view: PoolView) {
        view.status = self
            .pools
            .get(&view.spec.name)
            .and_then(|old| old.status.clone());
        self.version += 1;
        view.version = self.version.to_string();
        self.pools.insert(view.spec.name.clone(), view.clone());
        self.feed(Input::Pools(Change::Applied(view)));
    }

    pub(super) fn delete_pool(&mut self, name: &str) {
        if let Some(view) = self.pools.remove(name) {
            self.feed(Input::Pools(Change::Gone(view)));
        }
    }

    pub(super) fn shows(&self, name: &str) -> Vec<String> {
        let ingress = &self.services[&id(name)].ingress;
        ingress
            .iter()
            .filter_map(|entry| entry.ip)
            .map(|ip| ip.to_string())
            .collect()
    }

    pub(super) fn vip_names(&self) -> Vec<&str> {
        self.vips.keys().map(String::as_str).collect()
    }

    pub(super) fn ready(&self, pool: &str) -> (String, String) {
        let status = self.pools[pool].status.as_ref().unwrap();
        (
            status.conditions[0].status.clone(),
            status.conditions[0].message.clone(),
        )
    }

    /// Reasons and notes since the last call.
    pub(super) fn heard(&mut self) -> Vec<String> {
        let notices = std::mem::take(&mut self.notices);
        notices
            .iter()
            .map(|n| format!("{}: {}", n.reason, n.note))
            .collect()
    }

    pub(super) fn quiet(&mut self) {
        assert_eq!(self.heard(), Vec::<String>::new());
        assert_eq!(std::mem::take(&mut self.writes), vec![]);
    }
}
