//! SCTP in its one-to-one style (RFC 6458, section 4): an association behaves as a TCP
//! connection does, so that all that reads and writes lines works for both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// How many associations may wait to be accepted.
const BACKLOG: i32 = 128;

fn socket(of: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(of),
        Type::STREAM.nonblocking(),
        Some(Protocol::SCTP),
    )?;
    Ok(socket)
}

/// Both families on one socket, or IPv4 alone where the kernel has no IPv6.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let any = [
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
    ];
    let mut outcome = Err(io::Error::from(io::ErrorKind::Unsupported));
    for address in any {
        outcome = listen_on(SocketAddr::new(address, port));
        if outcome.is_ok() {
            break;
        }
    }
    outcome.with_context(|| {
        format!("cannot listen on SCTP port {port}: has this kernel its module \"sctp\"?")
    })
}

fn listen_on(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Opens an association.
pub(crate) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(to)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}
