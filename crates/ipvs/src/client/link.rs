//! The socket: sending, receiving with a deadline, matching replies.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_packet_core::DecodeError;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

use crate::codec::{Frame, Payload, frames};
use crate::error::Error;

/// Room for one datagram. The kernel fills dumps with up to 32 KiB at a time
/// when the reader offers that much.
const RECEIVE_LEN: usize = 64 * 1024;
/// Receive buffer asked of the kernel; it grants no more than
/// `net.core.rmem_max`.
const SOCKET_BUFFER: usize = 1 << 20;
/// `MSG_TRUNC`: have `recv` return the datagram's length, not what fitted.
const MSG_TRUNC: i32 = 0x20;
/// `MSG_DONTWAIT`: return at once when nothing is queued.
const MSG_DONTWAIT: i32 = 0x40;
/// `ENOBUFS`: how the kernel says that replies were lost.
const ENOBUFS: i32 = 105;

/// A netlink socket towards the kernel, with a sequence counter.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    sequence: u32,
    timeout: Duration,
    buffer: Vec<u8>,
}

/// All that the kernel answered to one request.
#[derive(Debug)]
pub(super) struct Reply<T> {
    pub(super) messages: Vec<T>,
    pub(super) interrupted: bool,
}

impl Link {
    pub(super) fn new(mut socket: Socket, timeout: Duration) -> Result<Self, Error> {
        socket.bind_auto()?;
        socket.set_non_blocking(false)?;
        // Refusals come with a text, and without our own message attached.
        // Kernels before 4.12 know neither; they only make replies longer.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let raw = SockRef::from(&socket);
        // A smaller buffer still holds a batch's acknowledgements.
        let _ = raw.set_recv_buffer_size(SOCKET_BUFFER);
        raw.set_write_timeout(Some(timeout))?;
        let mut link = Self {
            socket,
            sequence: 0,
            timeout,
            buffer: Vec::with_capacity(RECEIVE_LEN),
        };
        link.set_timeout(timeout)?;
        Ok(link)
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        if timeout.is_zero() {
            return Err(Error::Invalid("a timeout of zero".into()));
        }
        SockRef::from(&self.socket.as_fd()).set_read_timeout(Some(timeout))?;
        self.timeout = timeout;
        Ok(())
    }

    /// Down to the least that Linux grants.
    #[cfg(test)]
    pub(super) fn shrink_receive_buffer(&self) {
        SockRef::from(&self.socket).set_recv_buffer_size(1).unwrap();
    }

    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// When the replies to a request sent now must be there.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Sends one datagram of one or more requests.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(bytes, &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one datagram from the kernel.
    ///
    /// A steady trickle of foreign datagrams cannot hold it past `deadline`.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<&[u8], Error> {
        self.receive_with(MSG_TRUNC, deadline)
    }

    /// Receives one datagram that is queued already; [`Error::Timeout`] when
    /// none is.
    pub(super) fn receive_queued(&mut self) -> Result<&[u8], Error> {
        let deadline = self.deadline();
        self.receive_with(MSG_TRUNC | MSG_DONTWAIT, deadline)
    }

    fn receive_with(&mut self, flags: i32, deadline: Instant) -> Result<&[u8], Error> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, flags) {
                Ok((length, _)) if length > self.buffer.len() => {
                    return Err(Error::Decode(format!(
                        "a datagram of {length} bytes does not fit"
                    )));
                }
                Ok((_, sender)) if sender.port_number() == 0 => break,
                // Not from the kernel: other processes may send to our port.
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Err(Error::Timeout),
                    _ if error.raw_os_error() == Some(ENOBUFS) => return Err(Error::Overrun),
                    _ => return Err(error.into()),
                },
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout);
            }
        }
        Ok(&self.buffer)
    }

    /// Sends one request and gathers its replies, up to the acknowledgement or
    /// the end of the dump. Late replies to earlier requests are skipped.
    pub(super) fn exchange<T>(
        &mut self,
        request: &[u8],
        sequence: u32,
        parse: impl Fn(&Payload<'_>) -> Result<T, DecodeError>,
    ) -> Result<Reply<T>, Error> {
        self.send(request)?;
        let reply = self.gather(sequence, parse);
        if reply.is_err() {
            self.discard_queued();
        }
        reply
    }

    /// Reads away what is left of a reply: a dump that is not read to its end
    /// would make the kernel refuse the next one.
    fn discard_queued(&mut self) {
        let deadline = self.deadline();
        while Instant::now() < deadline {
            match self.receive_queued() {
                Ok(_) | Err(Error::Overrun | Error::Decode(_)) => {}
                Err(_) => return,
            }
        }
    }

    fn gather<T>(
        &mut self,
        sequence: u32,
        parse: impl Fn(&Payload<'_>) -> Result<T, DecodeError>,
    ) -> Result<Reply<T>, Error> {
        let mut reply = Reply {
            messages: Vec::new(),
            interrupted: false,
        };
        let mut deadline = self.deadline();
        let timeout = self.timeout;
        loop {
            let datagram = self.receive(deadline)?;
            let mut ours = false;
            for frame in frames(datagram) {
                let frame = frame?;
                if frame.sequence == sequence {
                    ours = true;
                    if reply.take(&frame, &parse)? {
                        return Ok(reply);
                    }
                }
            }
            // Once a datagram, not once a frame: some kernels' clocks cost a system call.
            let now = Instant::now();
            if ours {
                deadline = now + timeout;
            } else if now >= deadline {
                return Err(Error::Timeout);
            }
        }
    }
}

impl<T> Reply<T> {
    /// Takes a frame in; true when it was the last one.
    fn take(
        &mut self,
        frame: &Frame<'_>,
        parse: impl Fn(&Payload<'_>) -> Result<T, DecodeError>,
    ) -> Result<bool, Error> {
        self.interrupted |= frame.interrupted;
        match &frame.payload {
            Payload::Ack { errno, message } | Payload::Done { errno, message } => {
                if *errno == 0 {
                    Ok(true)
                } else {
                    Err(Error::Kernel {
                        errno: *errno,
                        message: message.clone(),
                    })
                }
            }
            Payload::Overrun => Err(Error::Overrun),
            Payload::Noop => Ok(false),
            data @ Payload::Data(_) => {
                self.messages.push(parse(data)?);
                Ok(false)
            }
        }
    }
}
