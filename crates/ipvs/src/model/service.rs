//! Services: as sent, as wanted, as found.

use super::{Destination, DestinationState, Scheduler, ServiceFlags, ServiceKey, Stats};

/// Persistence timeout, in seconds, that [`Service::from`] gives to a
/// [`ServiceSpec`] with [`ServiceFlags::PERSISTENT`]; the same as `ipvsadm -p`
/// without a value.
pub const DEFAULT_PERSISTENCE_SECS: u32 = 300;

/// All settings of one virtual service, without its destinations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Identity.
    pub key: ServiceKey,
    /// Scheduling algorithm.
    pub scheduler: Scheduler,
    /// Flags.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds; 0 where the service is not persistent.
    pub timeout_secs: u32,
    /// Prefix length that groups clients for persistence; 32 or 128 otherwise.
    pub netmask: u8,
    /// Name of the persistence engine (`sip`).
    pub persistence_engine: Option<String>,
}

impl Service {
    /// A service that is not persistent.
    #[must_use]
    pub fn new(key: ServiceKey, scheduler: Scheduler, flags: ServiceFlags) -> Self {
        Self {
            key,
            scheduler,
            flags,
            timeout_secs: if flags.contains(ServiceFlags::PERSISTENT) {
                DEFAULT_PERSISTENCE_SECS
            } else {
                0
            },
            netmask: key.family().host_prefix(),
            persistence_engine: None,
        }
    }
}

impl From<&ServiceSpec> for Service {
    fn from(spec: &ServiceSpec) -> Self {
        Self::new(spec.key, spec.scheduler.clone(), spec.flags)
    }
}

/// A service as it should be, with its destinations in canonical order.
///
/// Canonical order is insertion order: the order in which the kernel is to be
/// given the destinations. It must be alike on all nodes for `mh`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceSpec {
    /// Identity.
    pub key: ServiceKey,
    /// Scheduling algorithm.
    pub scheduler: Scheduler,
    /// Flags.
    pub flags: ServiceFlags,
    /// Destinations in canonical (insertion) order.
    pub destinations: Vec<Destination>,
}

/// A service as found in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    /// Its settings.
    pub service: Service,
    /// Its counters.
    pub stats: Stats,
    /// Its destinations in **insertion order**: oldest first. The kernel adds
    /// at the list's head and dumps from the head, so this is a dump reversed.
    pub destinations: Vec<DestinationState>,
}
