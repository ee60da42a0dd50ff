//! Whole IPVS messages and their top-level attributes.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NLA_F_NESTED, Nla, NlaBuffer, Parseable,
    ParseableParametrized, parse_u32,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::attr::{parse_list, parse_list_but, put};
use super::constants::*;
use super::{Command, DestAttr, ServiceAttr};

/// A top-level attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attr {
    /// A service.
    Service(Vec<ServiceAttr>),
    /// A destination.
    Dest(Vec<DestAttr>),
    /// TCP timeout, seconds.
    TimeoutTcp(u32),
    /// TCP timeout after FIN, seconds.
    TimeoutTcpFin(u32),
    /// UDP timeout, seconds.
    TimeoutUdp(u32),
    /// IPVS version; only in [`Command::SetInfo`].
    InfoVersion(u32),
    /// Connection table size; only in [`Command::SetInfo`].
    InfoConnTabSize(u32),
    /// An attribute this crate does not know (or use: sync daemons).
    Other(DefaultNla),
}

impl Nla for Attr {
    fn value_len(&self) -> usize {
        match self {
            Self::Service(attrs) => attrs.as_slice().buffer_len(),
            Self::Dest(attrs) => attrs.as_slice().buffer_len(),
            Self::TimeoutTcp(_)
            | Self::TimeoutTcpFin(_)
            | Self::TimeoutUdp(_)
            | Self::InfoVersion(_)
            | Self::InfoConnTabSize(_) => 4,
            Self::Other(nla) => nla.value_len(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            // The nested bit as libnl sets it; kernels before 5.2 mask it out.
            Self::Service(_) => CMD_ATTR_SERVICE | NLA_F_NESTED,
            Self::Dest(_) => CMD_ATTR_DEST | NLA_F_NESTED,
            Self::TimeoutTcp(_) => CMD_ATTR_TIMEOUT_TCP,
            Self::TimeoutTcpFin(_) => CMD_ATTR_TIMEOUT_TCP_FIN,
            Self::TimeoutUdp(_) => CMD_ATTR_TIMEOUT_UDP,
            Self::InfoVersion(_) => INFO_ATTR_VERSION,
            Self::InfoConnTabSize(_) => INFO_ATTR_CONN_TAB_SIZE,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Service(attrs) => attrs.as_slice().emit(buffer),
            Self::Dest(attrs) => attrs.as_slice().emit(buffer),
            Self::TimeoutTcp(value)
            | Self::TimeoutTcpFin(value)
            | Self::TimeoutUdp(value)
            | Self::InfoVersion(value)
            | Self::InfoConnTabSize(value) => put(buffer, &value.to_ne_bytes()),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for Attr {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        let attr = match nla.kind() {
            CMD_ATTR_SERVICE => parse_list(value).map(Self::Service),
            CMD_ATTR_DEST => parse_list(value).map(Self::Dest),
            CMD_ATTR_TIMEOUT_TCP => parse_u32(value).map(Self::TimeoutTcp),
            CMD_ATTR_TIMEOUT_TCP_FIN => parse_u32(value).map(Self::TimeoutTcpFin),
            CMD_ATTR_TIMEOUT_UDP => parse_u32(value).map(Self::TimeoutUdp),
            _ => DefaultNla::parse(nla).map(Self::Other),
        };
        attr.with_context(|| format!("attribute {}", nla.kind()))
    }
}

/// A service or destination without its counters, which are more than half of what a reply says.
struct SettingsAttr(Attr);

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for SettingsAttr {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        let attr = match nla.kind() {
            CMD_ATTR_SERVICE => {
                parse_list_but(value, &[SVC_ATTR_STATS, SVC_ATTR_STATS64]).map(Attr::Service)
            }
            CMD_ATTR_DEST => {
                parse_list_but(value, &[DEST_ATTR_STATS, DEST_ATTR_STATS64]).map(Attr::Dest)
            }
            _ => return Attr::parse(nla).map(Self),
        };
        attr.map(Self)
            .with_context(|| format!("attribute {}", nla.kind()))
    }
}

/// The attributes of `IPVS_CMD_SET_INFO`, which number from 1 again.
struct InfoAttr(Attr);

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for InfoAttr {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        Ok(Self(match nla.kind() {
            INFO_ATTR_VERSION => Attr::InfoVersion(parse_u32(value)?),
            INFO_ATTR_CONN_TAB_SIZE => Attr::InfoConnTabSize(parse_u32(value)?),
            _ => Attr::Other(DefaultNla::parse(nla)?),
        }))
    }
}

/// One request or reply of the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpvsMessage {
    /// The command.
    pub command: Command,
    /// Its attributes.
    pub attrs: Vec<Attr>,
}

impl IpvsMessage {
    /// One of a service or a destination, without its counters.
    pub(super) fn parse_settings(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attrs = parse_list::<SettingsAttr>(bytes)?.into_iter();
        Ok(Self {
            command: Command::from(header.cmd),
            attrs: attrs.map(|settings| settings.0).collect(),
        })
    }
}

impl GenlFamily for IpvsMessage {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command.into()
    }

    fn version(&self) -> u8 {
        FAMILY_VERSION
    }
}

impl Emitable for IpvsMessage {
    fn buffer_len(&self) -> usize {
        self.attrs.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attrs.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for IpvsMessage {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let command = Command::from(header.cmd);
        let attrs = if command == Command::SetInfo {
            parse_list::<InfoAttr>(bytes)?
                .into_iter()
                .map(|info| info.0)
                .collect()
        } else {
            parse_list(bytes)?
        };
        Ok(Self { command, attrs })
    }
}
