//! Network interfaces.

use std::os::fd::AsRawFd;

use lightship_frames::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    MacVlanMode,
};

use super::{Rtnl, unless_exists, unless_missing};
use crate::{Error, Netns, Result};

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, unique within the namespace and not used again.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC, if it has one of 6 octets.
    pub mac: Option<Mac>,
    /// Octets of payload per frame.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it is up and has carrier (`IFF_LOWER_UP`): frames can pass.
    pub lower_up: bool,
    /// `macvlan`, `veth`, `bridge`, `bond`, `vlan`...; none for a physical NIC.
    pub kind: Option<String>,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Index of the link it is upon, or of its veth peer, in the namespace
    /// [`Self::link_netns_id`] if that is set.
    pub link: Option<u32>,
    /// The kernel's number for the namespace of [`Self::link`] when it is another one.
    pub link_netns_id: Option<i32>,
}

impl Link {
    /// Whether frames can pass: administratively up and with carrier.
    pub fn has_carrier(&self) -> bool {
        self.lower_up
    }
}

/// A macvlan to create, in mode `bridge` so that its siblings can reach it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macvlan {
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: Mac,
    /// Index of the interface it is put upon. The MTU becomes that one's.
    pub parent: u32,
}

/// A pair of virtual Ethernet links to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Name of this end.
    pub name: String,
    /// MAC of this end.
    pub mac: Mac,
    /// Name of the other end.
    pub peer_name: String,
    /// MAC of the other end.
    pub peer_mac: Mac,
    /// MTU of both ends.
    pub mtu: u32,
}

impl Rtnl {
    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let found = self
            .dump(
                RouteNetlinkMessage::GetLink(LinkMessage::default()),
                "list links",
            )
            .await?;
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// The interface of this index, if there is one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn link(&self, index: u32) -> Result<Option<Link>> {
        self.one_link(about(index), || format!("get link {index}"))
            .await
    }

    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// The kernel refuses, for example a name longer than 15 octets.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message, || format!("get link {name}")).await
    }

    async fn one_link(
        &self,
        message: LinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Option<Link>> {
        match self.get(RouteNetlinkMessage::GetLink(message), what).await {
            Ok(found) => Ok(read(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates a macvlan, directly in `into` if given. It is down at first.
    ///
    /// Returns `false` if the name is taken there; what has it may be something
    /// else, so look.
    ///
    /// # Errors
    /// [`Error::is_not_supported`] if the kernel has no macvlan;
    /// [`Error::is_busy`] if the parent cannot carry one (bridge port, bond
    /// member, ipvlan on it); [`Error::is_invalid`] if it is no Ethernet interface; [`Error::is_not_found`] if there is no such parent.
    pub async fn create_macvlan(&self, spec: &Macvlan, into: Option<&Netns>) -> Result<bool> {
        let mut message = named(&spec.name, spec.mac, into);
        message.attributes.push(LinkAttribute::Link(spec.parent));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                MacVlanMode::Bridge,
            )])),
        ]));
        // The parent's name is worth a look-up, but only for the error text.
        let parent = match self.link(spec.parent).await {
            Ok(Some(link)) => link.name,
            _ => format!("interface {}", spec.parent),
        };
        self.create(message, || {
            format!("create macvlan {} on {parent}", spec.name)
        })
        .await
    }

    /// Creates a veth pair: this end here, the other in `peer_into` if given.
    /// Both are down at first.
    ///
    /// Returns `false` if either name is taken; what has it may be something
    /// else, so look.
    ///
    /// # Errors
    /// [`Error::is_not_supported`] if the kernel has no veth.
    pub async fn create_veth(&self, spec: &Veth, peer_into: Option<&Netns>) -> Result<bool> {
        let mut peer = named(&spec.peer_name, spec.peer_mac, peer_into);
        peer.attributes.push(LinkAttribute::Mtu(spec.mtu));
        let mut message = named(&spec.name, spec.mac, None);
        message.attributes.push(LinkAttribute::Mtu(spec.mtu));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.create(message, || {
            format!("create veth {} with peer {}", spec.name, spec.peer_name)
        })
        .await
    }

    async fn create(&self, message: LinkMessage, what: impl Fn() -> String) -> Result<bool> {
        unless_exists(
            self.change(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
                what,
            )
            .await,
        )
    }

    /// Brings a link up or down. Doing so twice is no error.
    ///
    /// # Errors
    /// No such link.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let mut message = about(index);
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        let direction = if up { "up" } else { "down" };
        self.set(message, || format!("set link {index} {direction}"))
            .await
    }

    /// Sets the MTU, in octets.
    ///
    /// # Errors
    /// No such link, or it cannot have that MTU.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let mut message = about(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.set(message, || format!("set mtu of link {index} to {mtu}"))
            .await
    }

    /// Sets the MAC.
    ///
    /// # Errors
    /// No such link, or it cannot have that MAC now.
    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        let mut message = about(index);
        message
            .attributes
            .push(LinkAttribute::Address(mac.0.to_vec()));
        self.set(message, || format!("set mac of link {index} to {mac}"))
            .await
    }

    /// Moves a link into `ns`, where it gets a new index; it is down afterwards.
    ///
    /// # Errors
    /// No such link, its name is taken there, or it may not move (`lo`, bridges
    /// on older kernels).
    pub async fn move_link(&self, index: u32, ns: &Netns) -> Result<()> {
        let mut message = about(index);
        message
            .attributes
            .push(LinkAttribute::NetNsFd(ns.as_raw_fd()));
        self.set(message, || format!("move link {index} to another netns"))
            .await
    }

    async fn set(&self, message: LinkMessage, what: impl Fn() -> String) -> Result<()> {
        self.change(RouteNetlinkMessage::SetLink(message), 0, what)
            .await
    }

    /// Deletes a link, and its peer if it is a veth. Returns whether it was there.
    ///
    /// # Errors
    /// A physical NIC cannot be deleted ([`Error::is_not_supported`]).
    pub async fn delete_link(&self, index: u32) -> Result<bool> {
        unless_missing(
            self.change(RouteNetlinkMessage::DelLink(about(index)), 0, || {
                format!("delete link {index}")
            })
            .await,
        )
    }

    /// The interface of this index.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is none.
    pub async fn require_link_of(&self, index: u32) -> Result<Link> {
        self.link(index).await?.ok_or_else(|| Error::Missing {
            what: format!("link of index {index}"),
        })
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is none.
    pub async fn require_link(&self, name: &str) -> Result<Link> {
        self.link_by_name(name)
            .await?
            .ok_or_else(|| Error::Missing {
                what: format!("link {name}"),
            })
    }
}

fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn named(name: &str, mac: Mac, into: Option<&Netns>) -> LinkMessage {
    let mut message = LinkMessage::default();
    // All at creation, so that no moment exists in which a udev rule or a network
    // manager of the host sees the link and takes charge of it.
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.0.to_vec()),
    ];
    if let Some(ns) = into {
        message
            .attributes
            .push(LinkAttribute::NetNsFd(ns.as_raw_fd()));
    }
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        lower_up: message.header.flags.contains(LinkFlags::LowerUp),
        kind: None,
        master: None,
        link: None,
        link_netns_id: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = <[u8; 6]>::try_from(mac).ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.link = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.link_netns_id = Some(id),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}
