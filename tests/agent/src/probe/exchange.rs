//! One question and its answer, over a new connection or datagram.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Target;
use crate::pod::Identity;
use crate::sctp;

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Failure {
    /// The connection was refused (RST on the SYN, or ICMP port unreachable).
    Refused,
    /// The connection was reset after it stood.
    Reset,
    /// The peer closed it.
    Closed,
    /// Nothing came in time.
    Timeout,
    /// No route, host unreachable and the like.
    Unreachable,
    /// What came is not an answer of a lab pod.
    Garbled,
    /// Anything else.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        to.write_str(name.as_str().unwrap_or_default())
    }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::InvalidData => Self::Garbled,
            _ => Self::Other,
        }
    }
}

/// Asks `target` once; the answer must come within `timeout`.
pub(super) async fn ask(target: Target, timeout: Duration) -> Result<Identity, Failure> {
    let exchange = async {
        if target.udp {
            datagram(target).await
        } else {
            Line::open(target).await?.ask().await
        }
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(answer) => answer.map_err(|error| Failure::from(&error)),
        Err(_) => Err(Failure::Timeout),
    }
}

/// Any address of the target's family, and the port that is wanted, if one is.
fn from(target: Target) -> SocketAddr {
    let any = match target.target {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(any, target.from_port.unwrap_or(0))
}

async fn connection(target: Target) -> io::Result<TcpStream> {
    if target.from_port.is_none() {
        return TcpStream::connect(target.target).await;
    }
    let socket = match target.target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(from(target))?;
    socket.connect(target.target).await
}

async fn datagram(target: Target) -> io::Result<Identity> {
    let socket = UdpSocket::bind(from(target)).await?;
    socket.connect(target.target).await?;
    socket.send(b"?\n").await?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await?;
    serde_json::from_slice(&buffer[..length]).map_err(io::Error::from)
}

/// A connection that speaks lines with a pod.
#[derive(Debug)]
pub(super) struct Line {
    stream: BufReader<TcpStream>,
    buffer: String,
}

impl Line {
    /// Connects.
    pub(super) async fn open(target: Target) -> io::Result<Self> {
        let stream = if target.sctp {
            sctp::connect(target.target).await?
        } else {
            let stream = connection(target).await?;
            stream.set_nodelay(true)?;
            stream
        };
        Ok(Self {
            stream: BufReader::new(stream),
            buffer: String::new(),
        })
    }

    /// Sends a line and reads the answer. After an error, or when dropped half way,
    /// the connection is of no further use.
    pub(super) async fn ask(&mut self) -> io::Result<Identity> {
        self.stream.write_all(b"?\n").await?;
        self.buffer.clear();
        if self.stream.read_line(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&self.buffer).map_err(io::Error::from)
    }
}
