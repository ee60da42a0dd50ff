//! What can go wrong with the director.

/// An error of the director.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A link, route, sysctl or namespace.
    #[error(transparent)]
    Network(#[from] lightship_netio::Error),
    /// The IPVS table cannot be read or its settings changed.
    #[error("IPVS: {0}")]
    Ipvs(#[from] lightship_ipvs::Error),
    /// This kernel lacks something that a director needs.
    #[error("{what}: {reason}")]
    Unsupported {
        /// What it lacks.
        what: &'static str,
        /// How we know, and what to do.
        reason: String,
    },
    /// The director's thread ended before it had started.
    #[error("the director's thread ended at once")]
    Gone,
}

impl Error {
    /// What a failure to put a macvlan upon the uplink means.
    pub(super) fn of_macvlan(error: lightship_netio::Error) -> Self {
        if error.is_invalid() {
            return Error::Unsupported {
                what: "the uplink carries no macvlan",
                reason: format!(
                    "{error}; it is no Ethernet interface (a tunnel, WireGuard, the loopback); \
                     name another by --uplink if there is one"
                ),
            };
        }
        error.into()
    }

    /// Whether this node cannot have a director at all, so that trying again is no use.
    pub fn is_not_supported(&self) -> bool {
        match self {
            Error::Network(error) => error.is_not_supported() || error.is_busy(),
            Error::Ipvs(error) => matches!(error, lightship_ipvs::Error::NotSupported),
            Error::Unsupported { .. } => true,
            Error::Gone => false,
        }
    }
}
