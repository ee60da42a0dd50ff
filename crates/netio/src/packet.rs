//! A packet socket for ARP and NDP frames on one interface.
//!
//! It is bound to all protocols, not to ARP: only such taps see a frame before
//! the receive handler of a macvlan or bridge takes it away
//! (`net/core/dev.c`, `__netif_receive_skb_core`). So a socket on the uplink also
//! sees frames for the MACs of the macvlans upon it. A kernel filter keeps
//! everything but the wanted protocols out.

use std::io;
use std::mem::{MaybeUninit, size_of};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::async_fd::{readable, register};
use crate::{Error, Netns, Result, run_in};

mod bpf;
mod filter;
mod search;

pub use filter::{Filter, Watched};

/// The kernel's view of whom a frame was for (`sll_pkttype`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// To the interface's own MAC.
    Host,
    /// To everybody.
    Broadcast,
    /// To a group.
    Multicast,
    /// To another MAC: that of a macvlan, or of a stranger.
    OtherHost,
    /// Sent by this host.
    Outgoing,
    /// A kind that this crate does not know.
    Other(u8),
}

/// Where a received frame came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketMeta {
    /// Whom it was for.
    pub pkttype: PacketType,
    /// Index of the interface.
    pub ifindex: u32,
}

/// An open packet socket. Receives and sends whole Ethernet frames.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<Socket>,
    ifindex: u32,
    filter: Filter,
}

/// A burst of requests for many VIPs after a take-over must not get lost while
/// the speaker is busy: about 4000 frames of ARP with their bookkeeping.
const RECEIVE_BUFFER: usize = 4 << 20;

impl PacketSocket {
    /// Opens a socket on the interface `ifindex` of the calling thread's
    /// namespace. Within a tokio runtime.
    ///
    /// Frames sent by this host never arrive at it, those of macvlans on the
    /// interface included: a socket on a sibling macvlan hears their broadcasts.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or no such interface ([`Error::is_not_found`]).
    pub fn open(ifindex: u32, filter: Filter) -> Result<PacketSocket> {
        let open = || -> io::Result<AsyncFd<Socket>> {
            // Deaf (protocol 0) until it is bound, so that nothing unfiltered queues.
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            socket.set_nonblocking(true)?;
            set_receive_buffer(&socket, RECEIVE_BUFFER)?;
            // Not only to save work: without it each frame that the host sends would be
            // cloned for this tap (dev_queue_xmit_nit). Since Linux 4.20; recv drops
            // what comes through on older ones.
            let _ = set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
            attach(&socket, filter.program())?;
            socket.bind(&link_address(ifindex)?)?;
            register(socket)
        };
        Ok(PacketSocket {
            fd: open()
                .map_err(|e| Error::os(format!("open packet socket on interface {ifindex}"), e))?,
            ifindex,
            filter,
        })
    }

    /// As [`Self::open`], in `ns`.
    ///
    /// # Errors
    /// As [`Self::open`] and [`run_in`].
    pub fn open_in(ns: &Netns, ifindex: u32, filter: Filter) -> Result<PacketSocket> {
        run_in(ns, || PacketSocket::open(ifindex, filter))?
    }

    /// The interface the socket is bound to.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// From now on only frames that are about these addresses are received, and few others. What
    /// the socket's [`Filter`] keeps out is not received anyway.
    ///
    /// No frame that is wanted before and after gets lost: the kernel changes filters at once,
    /// and that by protocol is in place meanwhile. Frames in the queue stay there.
    ///
    /// # Errors
    /// When the kernel takes no filter for want of memory; that by protocol holds then.
    pub fn watch(&self, watched: &Watched) -> Result<()> {
        let socket = self.fd.get_ref();
        let mut limit = usize::MAX;
        let mut attempt = || -> io::Result<()> {
            // In between, so that the kernel need not have room for two large ones: it counts
            // both against net.core.optmem_max, which was 20 KiB before Linux 6.7.
            attach(socket, self.filter.program())?;
            loop {
                let program = watched.program(limit);
                let length = program.len();
                match attach(socket, program) {
                    Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && length > COARSE => {
                        // Each range takes at least one instruction.
                        limit = limit.min(length) / 2;
                    }
                    other => return other,
                }
            }
        };
        attempt().map_err(|e| Error::os(format!("set a filter on interface {}", self.ifindex), e))
    }

    /// Waits for a frame and returns its length and origin; a frame longer than
    /// `buf` is cut (all wanted ones fit in 128 octets). Safe to cancel.
    ///
    /// # Errors
    /// [`Error::is_retryable`] when the link went down (`ENETDOWN`, once): frames
    /// come again when it is up. After the interface was deleted there are none
    /// any more and no further error; [`crate::Monitor`] tells of that.
    pub async fn recv(&self, buf: &mut [u8]) -> Result<(usize, PacketMeta)> {
        let what = || format!("receive on interface {}", self.ifindex);
        loop {
            let mut ready = readable(&self.fd).await.map_err(|e| Error::os(what(), e))?;
            match ready.try_io(|fd| recv_from(fd.get_ref(), buf)) {
                Ok(Ok((_, meta))) if meta.pkttype == PacketType::Outgoing => {}
                Ok(Ok(received)) => return Ok(received),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(Error::os(what(), e)),
                Err(_would_block) => {}
            }
        }
    }

    /// Passes on the frame of `length` octets that [`Self::recv`] has put into `buf`, and those that are here
    /// already, at most `limit` in all. An error ends it.
    pub fn pass(&self, length: usize, buf: &mut [u8], limit: usize, mut on: impl FnMut(&[u8])) {
        on(&buf[..length.min(buf.len())]);
        for _ in 1..limit {
            let Ok(Some((length, _))) = self.try_recv(buf) else {
                break;
            };
            on(&buf[..length.min(buf.len())]);
        }
    }

    /// A frame that is here already, or `None`, without going round the runtime.
    fn try_recv(&self, buf: &mut [u8]) -> Result<Option<(usize, PacketMeta)>> {
        loop {
            match recv_from(self.fd.get_ref(), buf) {
                Ok((_, meta)) if meta.pkttype == PacketType::Outgoing => {}
                Ok(received) => return Ok(Some(received)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => {
                    let what = format!("receive on interface {}", self.ifindex);
                    return Err(Error::os(what, e));
                }
            }
        }
    }

    /// Sends a whole Ethernet frame if that needs no wait.
    ///
    /// # Errors
    /// As [`Self::send`]; a full socket is a retryable error here.
    pub fn try_send(&self, frame: &[u8]) -> Result<()> {
        loop {
            match self.fd.get_ref().send(frame) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let what = format!("send on interface {}", self.ifindex);
                    return Err(Error::os(what, e));
                }
            }
        }
    }

    /// Sends a whole Ethernet frame, without check sequence. Safe to cancel: the
    /// frame is then either sent or not.
    ///
    /// # Errors
    /// [`Error::is_retryable`] when the link is down or its queue is full;
    /// [`Error::is_not_found`] when the interface is gone.
    pub async fn send(&self, frame: &[u8]) -> Result<()> {
        let what = || format!("send on interface {}", self.ifindex);
        loop {
            // Tried first: the socket nearly always has room, and then no wait is needed.
            match self.fd.get_ref().send(frame) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(Error::os(what(), e)),
            }
            let mut ready = self.fd.writable().await.map_err(|e| Error::os(what(), e))?;
            match ready.try_io(|fd| fd.get_ref().send(frame)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(Error::os(what(), e)),
                Err(_would_block) => {}
            }
        }
    }
}

/// A program of no more instructions is not made coarser: that would not help.
const COARSE: usize = 256;

fn attach(socket: &Socket, program: Vec<bpf::Op>) -> io::Result<()> {
    let program: Vec<SockFilter> = program.into_iter().map(SockFilter::from).collect();
    socket.attach_filter(&program)
}

fn recv_from(socket: &Socket, buf: &mut [u8]) -> io::Result<(usize, PacketMeta)> {
    // SAFETY: u8 and MaybeUninit<u8> have the same layout, and recv_from never
    // writes uninitialised bytes into the buffer (socket2's own documented promise).
    let uninit = unsafe { &mut *(std::ptr::from_mut(buf) as *mut [MaybeUninit<u8>]) };
    let (len, from) = socket.recv_from(uninit)?;
    Ok((len, meta(&from)?))
}

fn meta(from: &SockAddr) -> io::Result<PacketMeta> {
    if i32::from(from.family()) != libc::AF_PACKET
        || (from.len() as usize) < std::mem::offset_of!(libc::sockaddr_ll, sll_addr)
    {
        return Err(io::Error::from_raw_os_error(libc::EPROTO));
    }
    // SAFETY: the family says that the storage holds a sockaddr_ll; a SockAddr's
    // storage is a whole sockaddr_storage, larger and more strictly aligned.
    let ll = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
    Ok(PacketMeta {
        pkttype: match ll.sll_pkttype {
            libc::PACKET_HOST => PacketType::Host,
            libc::PACKET_BROADCAST => PacketType::Broadcast,
            libc::PACKET_MULTICAST => PacketType::Multicast,
            libc::PACKET_OTHERHOST => PacketType::OtherHost,
            libc::PACKET_OUTGOING => PacketType::Outgoing,
            other => PacketType::Other(other),
        },
        ifindex: ll.sll_ifindex.unsigned_abs(),
    })
}

/// The address to bind to: all protocols on one interface.
fn link_address(ifindex: u32) -> io::Result<SockAddr> {
    // SAFETY: sockaddr_ll consists of integers, for which all zeroes is a value.
    let mut ll: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    ll.sll_family = libc::AF_PACKET as libc::sa_family_t;
    ll.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    // 0 would mean every interface.
    ll.sll_ifindex = i32::try_from(ifindex)
        .ok()
        .filter(|index| *index > 0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: the closure writes one sockaddr_ll, which a sockaddr_storage has room
    // and alignment for, and sets the length to just that.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            storage.cast::<libc::sockaddr_ll>().write(ll);
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// Sets the receive buffer, past `net.core.rmem_max` if CAP_NET_ADMIN allows it.
pub(crate) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let value = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value)
        .or_else(|_| socket.set_recv_buffer_size(bytes))
}

fn set_option(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the pointer and length describe `value`, an int on this stack frame,
    // which the kernel only reads.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
