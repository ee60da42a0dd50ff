//! Whole IPVS messages.

use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NLA_F_NESTED, Nla, NlaBuffer, Parseable,
    ParseableParametrized, parse_u32,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::attr::{parse_list, put};
use super::constants::*;
use super::{DestAttr, ServiceAttr, dest, service};
use crate::diff::Op;
use crate::model::{
    Destination, DestinationState, Family, Info, Service, ServiceKey, Stats, Timeouts,
};

/// A command of the family (`IPVS_CMD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    NewService,
    SetService,
    DelService,
    GetService,
    NewDest,
    SetDest,
    DelDest,
    GetDest,
    NewDaemon,
    DelDaemon,
    GetDaemon,
    SetConfig,
    GetConfig,
    /// Only in replies to [`Command::GetInfo`].
    SetInfo,
    GetInfo,
    Zero,
    Flush,
    Other(u8),
}

impl From<Command> for u8 {
    fn from(command: Command) -> Self {
        match command {
            Command::NewService => CMD_NEW_SERVICE,
            Command::SetService => CMD_SET_SERVICE,
            Command::DelService => CMD_DEL_SERVICE,
            Command::GetService => CMD_GET_SERVICE,
            Command::NewDest => CMD_NEW_DEST,
            Command::SetDest => CMD_SET_DEST,
            Command::DelDest => CMD_DEL_DEST,
            Command::GetDest => CMD_GET_DEST,
            Command::NewDaemon => CMD_NEW_DAEMON,
            Command::DelDaemon => CMD_DEL_DAEMON,
            Command::GetDaemon => CMD_GET_DAEMON,
            Command::SetConfig => CMD_SET_CONFIG,
            Command::GetConfig => CMD_GET_CONFIG,
            Command::SetInfo => CMD_SET_INFO,
            Command::GetInfo => CMD_GET_INFO,
            Command::Zero => CMD_ZERO,
            Command::Flush => CMD_FLUSH,
            Command::Other(number) => number,
        }
    }
}

impl From<u8> for Command {
    fn from(number: u8) -> Self {
        match number {
            CMD_NEW_SERVICE => Self::NewService,
            CMD_SET_SERVICE => Self::SetService,
            CMD_DEL_SERVICE => Self::DelService,
            CMD_GET_SERVICE => Self::GetService,
            CMD_NEW_DEST => Self::NewDest,
            CMD_SET_DEST => Self::SetDest,
            CMD_DEL_DEST => Self::DelDest,
            CMD_GET_DEST => Self::GetDest,
            CMD_NEW_DAEMON => Self::NewDaemon,
            CMD_DEL_DAEMON => Self::DelDaemon,
            CMD_GET_DAEMON => Self::GetDaemon,
            CMD_SET_CONFIG => Self::SetConfig,
            CMD_GET_CONFIG => Self::GetConfig,
            CMD_SET_INFO => Self::SetInfo,
            CMD_GET_INFO => Self::GetInfo,
            CMD_ZERO => Self::Zero,
            CMD_FLUSH => Self::Flush,
            other => Self::Other(other),
        }
    }
}

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

/// Requests.
impl IpvsMessage {
    /// The request that carries an op out.
    #[must_use]
    pub fn from_op(op: &Op) -> Self {
        match op {
            Op::NewService(service) => Self::full_service(Command::NewService, service),
            Op::SetService(service) => Self::full_service(Command::SetService, service),
            Op::DelService(key) => Self::service_key(Command::DelService, *key),
            Op::NewDest(key, destination) => Self::full_dest(Command::NewDest, *key, destination),
            Op::SetDest(key, destination) => Self::full_dest(Command::SetDest, *key, destination),
            Op::DelDest(key, destination) => Self::dest_key(*key, *destination),
        }
    }

    /// Read all services (with the dump flag).
    #[must_use]
    pub fn dump_services() -> Self {
        Self::bare(Command::GetService)
    }

    /// Read one service (without the dump flag).
    #[must_use]
    pub fn get_service(key: ServiceKey) -> Self {
        Self::service_key(Command::GetService, key)
    }

    /// Read all destinations of a service (with the dump flag).
    #[must_use]
    pub fn dump_destinations(key: ServiceKey) -> Self {
        Self::service_key(Command::GetDest, key)
    }

    /// Read version and table size.
    #[must_use]
    pub fn get_info() -> Self {
        Self::bare(Command::GetInfo)
    }

    /// Read connection timeouts.
    #[must_use]
    pub fn get_timeouts() -> Self {
        Self::bare(Command::GetConfig)
    }

    /// Set connection timeouts.
    #[must_use]
    pub fn set_timeouts(timeouts: Timeouts) -> Self {
        let seconds = |value: Duration| u32::try_from(value.as_secs()).unwrap_or(u32::MAX);
        Self {
            command: Command::SetConfig,
            attrs: vec![
                Attr::TimeoutTcp(seconds(timeouts.tcp)),
                Attr::TimeoutTcpFin(seconds(timeouts.tcp_fin)),
                Attr::TimeoutUdp(seconds(timeouts.udp)),
            ],
        }
    }

    /// Zero the counters of one service, or all counters.
    #[must_use]
    pub fn zero(key: Option<ServiceKey>) -> Self {
        match key {
            Some(key) => Self::service_key(Command::Zero, key),
            None => Self::bare(Command::Zero),
        }
    }

    /// Delete all services.
    #[must_use]
    pub fn flush() -> Self {
        Self::bare(Command::Flush)
    }

    fn bare(command: Command) -> Self {
        Self {
            command,
            attrs: Vec::new(),
        }
    }

    fn full_service(command: Command, service: &Service) -> Self {
        Self {
            command,
            attrs: vec![Attr::Service(service::full_attrs(service))],
        }
    }

    fn service_key(command: Command, key: ServiceKey) -> Self {
        Self {
            command,
            attrs: vec![Attr::Service(service::key_attrs(key))],
        }
    }

    fn full_dest(command: Command, key: ServiceKey, destination: &Destination) -> Self {
        Self {
            command,
            attrs: vec![
                Attr::Service(service::key_attrs(key)),
                Attr::Dest(dest::full_attrs(destination)),
            ],
        }
    }

    fn dest_key(key: ServiceKey, destination: SocketAddr) -> Self {
        Self {
            command: Command::DelDest,
            attrs: vec![
                Attr::Service(service::key_attrs(key)),
                Attr::Dest(dest::key_attrs(destination)),
            ],
        }
    }
}

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
