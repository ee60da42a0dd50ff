//! IPVS messages: typed attributes, whole messages, netlink framing.
//!
//! [`IpvsMessage`] is one request or reply; it is built from a model value or
//! an [`crate::Op`] and read back into one. [`encode`] and [`frames`] are the
//! framing around it. Decoding keeps attributes it does not know and never
//! panics, whatever the bytes.
//!
//! The numbers and layouts are `linux/ip_vs.h` and
//! `net/netfilter/ipvs/ip_vs_ctl.c` (`ip_vs_genl_*`).

mod attr;
mod command;
mod constants;
mod dest;
mod frame;
mod message;
mod nlctrl;
mod reply;
mod request;
mod service;
mod stats;

pub use command::Command;
pub use constants::{FAMILY_NAME, FAMILY_VERSION};
pub use dest::DestAttr;
pub(crate) use dest::forward_to_kernel;
pub use frame::{Frame, Payload, encode, frames};
pub use message::{Attr, IpvsMessage};
pub(crate) use nlctrl::{encode_family_request, parse_family_id};
pub use service::ServiceAttr;
pub use stats::{Counter, StatsAttr};

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
