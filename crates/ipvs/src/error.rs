//! What can go wrong between us and the kernel.

use std::io;
use std::sync::Arc;

/// An error of the codec or the client.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The generic-netlink family `IPVS` does not exist: the kernel lacks
    /// `ip_vs`, or the module is not loaded.
    #[error("the kernel lacks ip_vs (no generic-netlink family \"IPVS\"; is the module loaded?)")]
    NotSupported,
    /// The kernel refused a request.
    #[error("{}{}", io::Error::from_raw_os_error(*.errno), extended_text(.message.as_deref()))]
    Kernel {
        /// The (positive) errno.
        errno: i32,
        /// The extended-ack text, where the kernel gave one.
        message: Option<String>,
    },
    /// A socket call failed.
    #[error("netlink socket: {0}")]
    Io(Arc<io::Error>),
    /// No reply within the client's timeout. Whether the request took effect
    /// is unknown.
    #[error("the kernel did not answer in time")]
    Timeout,
    /// The socket's receive buffer overflowed and the reply was lost. Whether
    /// the request took effect is unknown.
    #[error("the netlink receive buffer overflowed; the reply is lost")]
    Overrun,
    /// The table kept changing while it was read.
    #[error("the table changed during each attempt to dump it")]
    Interrupted,
    /// A message that is not what the protocol says.
    #[error("cannot decode a netlink message: {0}")]
    Decode(String),
    /// A value that the kernel's ABI cannot express.
    #[error("invalid value: {0}")]
    Invalid(String),
}

fn extended_text(message: Option<&str>) -> String {
    message.map(|text| format!(": {text}")).unwrap_or_default()
}

impl Error {
    /// The errno with which the kernel refused the request, if that is what
    /// happened.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<netlink_packet_core::DecodeError> for Error {
    fn from(error: netlink_packet_core::DecodeError) -> Self {
        Self::Decode(error.to_string())
    }
}
