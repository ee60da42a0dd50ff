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
