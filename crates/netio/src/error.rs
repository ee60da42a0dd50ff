//! What can go wrong, always with the name of the thing it went wrong with.

use std::io;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel said no.
    #[error("{what}: {source}{}", detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Os {
        /// What was tried, with the names of the objects: `create macvlan ls-dir on eth0`.
        what: String,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's own words (netlink extended acknowledgement), if it gave any.
        detail: Option<String>,
    },
    /// The netlink socket, or the runtime that served it, is gone.
    #[error("{what}: netlink connection closed")]
    Closed {
        /// What was tried.
        what: String,
    },
    /// A thing that had to be there is not.
    #[error("no such {what}")]
    Missing {
        /// The kind and name of the thing.
        what: String,
    },
    /// A name or value that the kernel cannot take.
    #[error("{what}: {why}")]
    Invalid {
        /// The value.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Error {
    pub(crate) fn os(what: impl Into<String>, source: io::Error) -> Error {
        Error::Os {
            what: what.into(),
            source,
            detail: None,
        }
    }

    pub(crate) fn errno(what: impl Into<String>, errno: nix::errno::Errno) -> Error {
        Error::os(what, io::Error::from(errno))
    }

    /// The kernel's error number, if the kernel gave the answer.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Error::Os { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether this kernel lacks the feature: no macvlan, no IPv6, no such protocol.
    ///
    /// Trying again is of no use; the caller picks another way of forwarding.
    pub fn is_not_supported(&self) -> bool {
        matches!(
            self.os_error(),
            Some(
                libc::EOPNOTSUPP
                    | libc::EAFNOSUPPORT
                    | libc::EPROTONOSUPPORT
                    | libc::ESOCKTNOSUPPORT
                    | libc::ENOPROTOOPT
                    | libc::ENOSYS
            )
        )
    }

    /// Whether the kernel takes the request for senseless: for a macvlan, the parent is no Ethernet
    /// interface (`macvlan.c`, `macvlan_port_create`).
    pub fn is_invalid(&self) -> bool {
        self.os_error() == Some(libc::EINVAL)
    }

    /// Whether somebody else holds the thing: for a macvlan, the parent is a
    /// bridge port, a bond member or has an ipvlan (one receive handler per device).
    pub fn is_busy(&self) -> bool {
        self.os_error() == Some(libc::EBUSY)
    }

    /// Whether the object of the operation does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Missing { .. })
            || matches!(
                self.os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ESRCH | libc::EADDRNOTAVAIL)
            )
    }

    /// Whether the privilege is missing (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN).
    pub fn is_permission(&self) -> bool {
        matches!(self.os_error(), Some(libc::EPERM | libc::EACCES))
    }

    /// Whether the same call may work in a moment without anybody mending
    /// anything: the link is down, a queue is full, the call was interrupted.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.os_error(),
            Some(
                libc::ENETDOWN
                    | libc::ENETUNREACH
                    | libc::ENOBUFS
                    | libc::EAGAIN
                    | libc::EINTR
                    | libc::ENOMEM
            )
        )
    }
}
