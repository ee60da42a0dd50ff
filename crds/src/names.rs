//! Names that users and both daemons agree on: annotations, classes, field managers.

/// Service annotation: take the address from this pool only.
pub const ANNOTATION_POOL: &str = "lightship.dev/pool";
/// Service annotation: these addresses and no others, comma separated, at most one per family.
pub const ANNOTATION_ADDRESSES: &str = "lightship.dev/addresses";
/// VirtualIP annotation: move the address to this node, once.
pub const ANNOTATION_MOVE_TO: &str = "lightship.dev/move-to";
/// VirtualIP annotation: keep the address on this node while it can own it.
pub const ANNOTATION_PIN_TO: &str = "lightship.dev/pin-to";
/// Node annotation: move all addresses off this node. The value `false` means the same as none.
pub const ANNOTATION_DRAIN: &str = "lightship.dev/drain";
/// Service annotation: Services with the same value may share an address.
pub const ANNOTATION_SHARED_KEY: &str = "lightship.dev/shared-address-key";
/// MetalLB's annotations of the same meaning as our pool, addresses and sharing ones, each by its
/// present and its deprecated name.
pub const METALLB_ANNOTATIONS: [[&str; 2]; 3] = [
    [
        "metallb.io/address-pool",
        "metallb.universe.tf/address-pool",
    ],
    [
        "metallb.io/loadBalancerIPs",
        "metallb.universe.tf/loadBalancerIPs",
    ],
    [
        "metallb.io/allow-shared-ip",
        "metallb.universe.tf/allow-shared-ip",
    ],
];
/// Condition type on Services: whether they have the addresses they ask for, and if not why.
pub const CONDITION_ASSIGNED: &str = "lightship.dev/AddressAssigned";
/// The `spec.loadBalancerClass` that is ours.
pub const LOAD_BALANCER_CLASS: &str = "lightship.dev/l2";
/// Server-side apply manager of everything the controller writes.
pub const MANAGER_CONTROLLER: &str = "lightship-controller";
/// Server-side apply manager of everything the speakers write.
pub const MANAGER_SPEAKER: &str = "lightship-speaker";
/// The namespace that `deploy/` installs into.
pub const NAMESPACE: &str = "lightship-system";
/// The Secret with the key that authenticates heartbeats, in the daemons' own namespace.
pub const HEARTBEAT_SECRET: &str = "lightship-heartbeat";
/// The entry of [`HEARTBEAT_SECRET`] that holds the key in use: 32 random bytes.
pub const HEARTBEAT_SECRET_KEY: &str = "key";
/// Condition type that says whether an object is in full effect.
pub const CONDITION_READY: &str = "Ready";
/// Condition type on pools: they contain addresses that are somebody else's.
pub const CONDITION_WITHHELD: &str = "AddressesWithheld";
/// Condition type on pools: addresses in use that they do not offer any more.
pub const CONDITION_OUTSIDE: &str = "AddressesOutside";
