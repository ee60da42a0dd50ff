//! What replies say, as model values.

use std::time::Duration;

use netlink_packet_core::DecodeError;

use super::message::{Attr, IpvsMessage};
use super::{dest, service};
use crate::model::{DestinationState, Family, Info, Service, Stats, Timeouts};

/// Replies.
impl IpvsMessage {
    /// The service in a reply.
    ///
    /// # Errors
    /// When there is none, or it lacks what identifies it.
    pub fn service(&self) -> Result<(Service, Stats), DecodeError> {
        self.attrs
            .iter()
            .find_map(|attr| match attr {
                Attr::Service(attrs) => Some(service::to_model(attrs)),
                _ => None,
            })
            .unwrap_or_else(|| Err("reply without a service".into()))
    }

    /// The destination in a reply. `service_family` is used where the kernel
    /// (before 3.18) does not name the destination's family.
    ///
    /// # Errors
    /// When there is none, or it lacks what identifies it.
    pub fn destination(&self, service_family: Family) -> Result<DestinationState, DecodeError> {
        self.attrs
            .iter()
            .find_map(|attr| match attr {
                Attr::Dest(attrs) => Some(dest::to_model(attrs, service_family)),
                _ => None,
            })
            .unwrap_or_else(|| Err("reply without a destination".into()))
    }

    /// The general information in a reply.
    ///
    /// # Errors
    /// When it is not there.
    pub fn info(&self) -> Result<Info, DecodeError> {
        let mut version = None;
        let mut size = None;
        for attr in &self.attrs {
            match attr {
                Attr::InfoVersion(value) => version = Some(*value),
                Attr::InfoConnTabSize(value) => size = Some(*value),
                _ => {}
            }
        }
        let (Some(version), Some(connection_table_size)) = (version, size) else {
            return Err("reply without version and table size".into());
        };
        let [_, major, minor, patch] = version.to_be_bytes();
        Ok(Info {
            version: (major, minor, patch),
            connection_table_size,
        })
    }

    /// The connection timeouts in a reply; one that is missing is zero (the
    /// kernel leaves out those of protocols it was built without).
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        let mut timeouts = Timeouts {
            tcp: Duration::ZERO,
            tcp_fin: Duration::ZERO,
            udp: Duration::ZERO,
        };
        for attr in &self.attrs {
            match attr {
                Attr::TimeoutTcp(secs) => timeouts.tcp = Duration::from_secs((*secs).into()),
                Attr::TimeoutTcpFin(secs) => timeouts.tcp_fin = Duration::from_secs((*secs).into()),
                Attr::TimeoutUdp(secs) => timeouts.udp = Duration::from_secs((*secs).into()),
                _ => {}
            }
        }
        timeouts
    }
}
