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
