//! The `lightship.dev/v1beta1` API: one file per kind, and the CRDs generated from them.
//!
//! The controller owns `spec` of [`VirtualIP`] and `status` of [`AddressPool`]; the speakers
//! own `status` of [`VirtualIP`] and all of [`Speaker`]; everything else belongs to the user. `crdgen` writes the
//! YAML in `yaml/`, and a test keeps both alike.

mod address_pool;
mod generate;
mod l2_announcement;
mod names;
mod net;
mod selector;
mod speaker;
mod virtual_ip;
mod witness;

pub use address_pool::{
    AddressPool, AddressPoolSpec, AddressPoolStatus, AllocationOrder, FamilyUsage, OnShrink,
    RestingAddress, ServiceAllocation,
};
pub use generate::{CrdFile, crd_files};
pub use l2_announcement::{
    ForwardingMode, L2Announcement, L2AnnouncementSpec, PreferredNodes, WithoutEndpoints,
};
pub use names::*;
pub use net::AddressBlock;
pub use selector::{LabelSet, matches_any};
pub use speaker::{
    LostPeer, MAX_LOST_PEERS, MAX_UPLINK_ADDRESSES, Speaker, SpeakerSpec, SpeakerStatus,
    SpeakerUplink,
};
pub use virtual_ip::{
    Backend, LastMove, ServiceRef, VipMode, VirtualIP, VirtualIPSpec, VirtualIPStatus,
    virtual_ip_name,
};
pub use witness::{SPARE_WITNESSES, WITNESSES, witnesses};

/// The API group of every kind here.
pub const GROUP: &str = "lightship.dev";
/// The version of every kind here.
pub const VERSION: &str = "v1beta1";
