//! `--substrate`, wherever a lab is made.

use lightship_lab::options::SubstrateKind;

/// What nodes are made of.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Substrate {
    /// What this machine's kernel can do.
    Auto,
    Netns,
    Uml,
    Qemu,
}

impl Substrate {
    /// None: the lab chooses.
    pub(crate) fn kind(self) -> Option<SubstrateKind> {
        match self {
            Self::Auto => None,
            Self::Netns => Some(SubstrateKind::Netns),
            Self::Uml => Some(SubstrateKind::Uml),
            Self::Qemu => Some(SubstrateKind::Qemu),
        }
    }
}
