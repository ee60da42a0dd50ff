//! The name of a scheduling algorithm.

use std::borrow::Cow;
use std::fmt;

use crate::Error;

/// The name of a scheduler, as in the module name `ip_vs_<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheduler(Cow<'static, str>);

impl Scheduler {
    /// Maglev hashing: the one scheduler that maps a client to the same
    /// destination on every node that has the same table.
    pub const MH: Self = Self(Cow::Borrowed("mh"));
    /// Round robin.
    pub const RR: Self = Self(Cow::Borrowed("rr"));
    /// Weighted round robin.
    pub const WRR: Self = Self(Cow::Borrowed("wrr"));
    /// Weighted least connection, `ipvsadm`'s default.
    pub const WLC: Self = Self(Cow::Borrowed("wlc"));
    /// Source hashing.
    pub const SH: Self = Self(Cow::Borrowed("sh"));
    /// No scheduler: the service keeps destinations and serves nothing new, and
    /// a change of its destinations costs no more than the change itself. Not a
    /// module but a word that the kernel knows (`ip_vs_ctl.c:ip_vs_add_service`,
    /// `ip_vs_edit_service`); all kernels that have `mh` do.
    pub const NONE: Self = Self(Cow::Borrowed("none"));

    /// The longest name, in bytes (`IP_VS_SCHEDNAME_MAXLEN` less the NUL).
    pub const MAX_LEN: usize = 15;

    /// A scheduler by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is empty, holds a NUL, or is longer
    /// than [`Self::MAX_LEN`].
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, Error> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::MAX_LEN || name.contains('\0') {
            return Err(Error::Invalid(format!("scheduler name {name:?}")));
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
