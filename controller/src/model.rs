//! The values between the parts: what was seen, and what is to be done about it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use lightship_crds::{AddressPoolStatus, LabelSet, ServiceAllocation, VirtualIPSpec};
use lightship_ipam::{Family, Policy, PoolSpec, ServiceId, Sharing};

/// The time as the pure part sees it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since the process started.
    pub mono: Duration,
    /// For time stamps in objects.
    pub wall: Timestamp,
}

/// A change of one kind of object.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// All objects there are; those not among them are gone.
    Listed(Vec<T>),
    /// One object is new or different.
    Applied(T),
    /// One object is gone.
    Gone(T),
}

/// What a watcher saw.
#[derive(Clone, Debug)]
pub enum Input {
    /// Services of any type.
    Services(Change<ServiceView>),
    /// Address pools.
    Pools(Change<PoolView>),
    /// Our own objects, and whatever else someone put among them.
    Vips(Change<VipView>),
    /// Namespaces, for their labels.
    Namespaces(Change<NamespaceView>),
    /// Nodes, whose own addresses are not to be given away.
    Nodes(Change<NodeView>),
    /// What the nodes' speakers report of their networks.
    Speakers(Change<SpeakerView>),
    /// The time that the core asked to be woken at has come.
    Tick,
    /// A write was refused because the object had changed, and nothing was heard of it
    /// since: it is to be looked at again.
    Recheck(Key),
    /// A write succeeded; it may have changed nothing, and then no watcher sees anything.
    Written(Key),
    /// The API server does not take a write, and why; it is tried again all the same.
    Refused(Key, String),
}

/// One state of one object, as the API server tells it apart from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Tells the object from others of the same name.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// What matters of a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Its name.
    pub id: ServiceId,
    /// Tells it from a later Service of the same name.
    pub uid: String,
    /// `metadata.resourceVersion`: what is decided now is void once the Service has another.
    pub version: String,
    /// Seconds since 1970; the older Service wins a conflict.
    pub created: i64,
    /// Its labels, for pool selectors.
    pub labels: LabelSet,
    /// What it asks for.
    pub demand: Demand,
    /// `spec.externalIPs`: claims, as far as pools take them.
    pub claims: Vec<IpAddr>,
    /// With whom it may share.
    pub sharing: Sharing,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// Our condition, if it has it.
    pub told: Option<Told>,
}

/// A condition as it stands on a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What it says.
    pub verdict: Verdict,
    /// Since when its status is what it is.
    pub since: Timestamp,
}

/// What our condition on a Service says.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the Service has what it asks for.
    pub met: bool,
    /// In one CamelCase word.
    pub reason: Cow<'static, str>,
    /// The whole story.
    pub message: String,
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// Nothing of ours: another type, or another load balancer's class.
    Nothing,
    /// Something that cannot be understood; says which field and why.
    Unclear(String),
    /// Addresses.
    Addresses(Wish),
}

/// The part of an [`lightship_ipam::Request`] that the Service alone determines.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// In order of preference.
    pub families: Vec<Family>,
    /// How many of them.
    pub policy: Policy,
    /// These and no others, or empty.
    pub addresses: Vec<IpAddr>,
    /// This pool and no other.
    pub pool: Option<NamedPool>,
}

/// A pool that a Service names.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPool {
    /// Its name.
    pub name: Arc<str>,
    /// The annotation that names it.
    pub by: &'static str,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// The address; absent for entries with a host name.
    pub ip: Option<IpAddr>,
    /// Whether it is as we write it: an address, `ipMode: VIP`, and nothing else.
    pub plain: bool,
}

/// What matters of an AddressPool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// For the allocator.
    pub spec: PoolSpec,
    /// Which Services may use it.
    pub allocation: Option<ServiceAllocation>,
    /// For events and conditions.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// The generation that the spec is of.
    pub generation: i64,
    /// What it reports.
    pub status: Option<AddressPoolStatus>,
}

/// What matters of a VirtualIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipView {
    /// The object's name.
    pub name: String,
    /// Which state of it this is.
    pub revision: Revision,
    /// What it says.
    pub spec: VirtualIPSpec,
}

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its addresses of any kind.
    pub addresses: Vec<IpAddr>,
}

/// What matters of a Speaker.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeakerView {
    /// The node's name.
    pub name: String,
    /// The node's addresses on its uplinks, with their networks.
    pub networks: Vec<IpNet>,
    /// Its routers there.
    pub gateways: Vec<IpAddr>,
}

/// What matters of a Namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: LabelSet,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Bring an object into this state, however often it takes.
    Write(Write),
    /// Tell the user, once.
    Notify(Notice),
}

/// The state an object is to be in. A later write of the same [`Key`] replaces an earlier one.
///
/// Each carries the revision that the decision was made upon and is void if the object has
/// another by then: a leader that was paused and replaced can change nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A VirtualIP that exists.
    Vip {
        /// The object's name.
        name: String,
        /// What is there; if nothing is, it is created, which fails if something is after all.
        seen: Option<Revision>,
        /// What it says.
        spec: VirtualIPSpec,
    },
    /// A VirtualIP that does not exist.
    DropVip {
        /// The object's name.
        name: String,
        /// What is there; if nothing is, there is nothing to do.
        seen: Option<Revision>,
    },
    /// A Service's ingress and condition.
    ServiceStatus {
        /// The Service.
        service: ServiceId,
        /// This one, not a later one of the same name.
        seen: Revision,
        /// Its addresses, if they are other than they should be; none clears the list.
        addresses: Option<Vec<IpAddr>>,
        /// Its condition; none removes it.
        told: Option<Told>,
    },
    /// A pool's status.
    PoolStatus {
        /// The pool.
        name: Arc<str>,
        /// This one, not a later one of the same name.
        seen: Revision,
        /// What it reports.
        status: AddressPoolStatus,
    },
}

/// An object that is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A VirtualIP by name.
    Vip(String),
    /// A Service's status.
    Service(ServiceId),
    /// A pool's status.
    Pool(Arc<str>),
}

impl Key {
    /// The object's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Key::Vip(_) => "VirtualIP",
            Key::Service(_) => "Service",
            Key::Pool(_) => "AddressPool",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Vip(name) => write!(f, "VirtualIP {name}"),
            Key::Service(id) => write!(f, "Service {id}"),
            Key::Pool(name) => write!(f, "AddressPool {name}"),
        }
    }
}

impl Write {
    /// The object that is written.
    pub fn key(&self) -> Key {
        match self {
            Write::Vip { name, .. } | Write::DropVip { name, .. } => Key::Vip(name.clone()),
            Write::ServiceStatus { service, .. } => Key::Service(service.clone()),
            Write::PoolStatus { name, .. } => Key::Pool(name.clone()),
        }
    }

    /// The revision it was decided upon.
    pub fn seen(&self) -> Option<&Revision> {
        match self {
            Write::Vip { seen, .. } | Write::DropVip { seen, .. } => seen.as_ref(),
            Write::ServiceStatus { seen, .. } | Write::PoolStatus { seen, .. } => Some(seen),
        }
    }

    /// Bases the write on another revision: one that differs from the first only by a
    /// write of our own, so that the decision stands. `None`: the object is gone.
    pub fn rebase(&mut self, revision: Option<Revision>) {
        match self {
            Write::Vip { seen, .. } | Write::DropVip { seen, .. } => *seen = revision,
            Write::ServiceStatus { seen, .. } | Write::PoolStatus { seen, .. } => {
                if let Some(revision) = revision {
                    *seen = revision;
                }
            }
        }
    }

    /// Whether both want the same state, whatever they were decided upon.
    pub fn same_state(&self, other: &Write) -> bool {
        self.key() == other.key() && self.state() == other.state()
    }

    /// A digest of the wanted state, whatever it was decided upon.
    pub fn state(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let text = match self {
            Write::Vip { spec, .. } => format!("{spec:?}"),
            Write::DropVip { .. } => String::new(),
            Write::ServiceStatus {
                seen,
                addresses,
                told,
                ..
            } => format!("{} {addresses:?} {told:?}", seen.uid),
            Write::PoolStatus { status, .. } => format!("{status:?}"),
        };
        text.hash(&mut hasher);
        hasher.finish()
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A Service.
    Service {
        /// Its name.
        id: ServiceId,
        /// Its uid.
        uid: String,
    },
    /// An AddressPool.
    Pool {
        /// Its name.
        name: Arc<str>,
        /// Its uid.
        uid: String,
    },
    /// A Node.
    Node {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Service { id, .. } => write!(f, "Service {id}"),
            Subject::Pool { name, .. } => write!(f, "AddressPool {name}"),
            Subject::Node { name, .. } => write!(f, "Node {name}"),
        }
    }
}

/// A Kubernetes event.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What it is about.
    pub subject: Subject,
    /// Whether something is wrong.
    pub warning: bool,
    /// The reason in one CamelCase word.
    pub reason: &'static str,
    /// The whole story.
    pub note: String,
}

/// Labels by namespace.
pub type Namespaces = BTreeMap<String, LabelSet>;
