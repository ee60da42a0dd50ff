//! Names that users and both daemons agree on: annotations, classes, field managers.

/// Service annotation: take the address from this pool only.
pub const ANNOTATION_POOL: &str = "lightship.dev/pool";
/// Service annotation: these addresses and no others, comma separated, at most one per family.
pub const ANNOTATION_ADDRESSES: &str = "lightship.dev/addresses";
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
