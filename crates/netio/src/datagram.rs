//! UDP sockets that outlive their address.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::async_fd::register_to_read;
use crate::packet::set_receive_buffer;
use crate::{Error, Result};

/// What 500 peers send while the receiver is away for some seconds must fit, with the kernel's
/// bookkeeping (about 800 octets for a short datagram).
const RECEIVE_BUFFER: usize = 4 << 20;

/// Opens a UDP socket at this address and port of the calling thread's namespace. It does not block.
///
/// The address need not be there yet and may come and go (`IP_FREEBIND`): while it is away nothing
/// is received and sending fails, and when it is back the same socket works again. An IPv6 socket
/// takes no IPv4. The receive buffer has 4 MiB, past `net.core.rmem_max` if CAP_NET_ADMIN allows it.
///
/// # Errors
/// Another socket has the port; the kernel does not know the family
/// ([`Error::is_not_supported`]).
pub fn bind_datagram(at: SocketAddr) -> Result<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        match at {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
            }
        }
        set_receive_buffer(&socket, RECEIVE_BUFFER)?;
        socket.bind(&SockAddr::from(at))?;
        Ok(socket.into())
    };
    open().map_err(|e| Error::os(format!("open UDP socket at {at}"), e))
}

/// A UDP socket whose datagrams are waited for. What it sends wakes nobody.
#[derive(Debug)]
pub struct Awaited(AsyncFd<UdpSocket>);

impl Awaited {
    /// Of a socket that does not block; a clone of it may send meanwhile.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        register_to_read(socket).map(Awaited)
    }

    /// Waits until [`Self::try_recv_from`] may find a datagram. Safe to cancel.
    pub async fn readable(&self) {
        // Whether there is anything left is seen when it is read.
        if let Ok(mut guard) = self.0.readable().await {
            guard.retain_ready();
        }
    }

    /// A datagram that is here already.
    ///
    /// # Errors
    /// There is none ([`io::ErrorKind::WouldBlock`]), or one that the socket was told of.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        // Of several interests at once this would never read.
        self.0
            .try_io(Interest::READABLE, |socket| socket.recv_from(buf))
    }
}
