//! The heartbeat sockets: one for each family that the own node has an InternalIP of.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lightship_netio::{Awaited, Result, bind_datagram};

/// How often at most it is told of a peer that datagrams to it cannot be sent.
const SAY: Duration = Duration::from_secs(60);

/// How soon after a failure a socket is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Datagrams {
    port: u16,
    v4: Option<Bound>,
    v6: Option<Bound>,
    retry_at: Option<Duration>,
    failing: bool,
    v6_first: bool,
    unsent: Unsent,
    polled: bool,
}

#[derive(Debug)]
struct Bound {
    address: IpAddr,
    /// Does not block.
    socket: UdpSocket,
    /// The same socket, if each datagram is to wake whoever waits.
    awaited: Option<Awaited>,
}

impl Bound {
    fn arrange(&mut self, awaited: bool) -> std::io::Result<()> {
        if awaited != self.awaited.is_some() {
            let again = awaited.then(|| self.socket.try_clone()).transpose()?;
            self.awaited = again.map(Awaited::new).transpose()?;
        }
        Ok(())
    }

    fn try_recv_from(&self, buf: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
        match &self.awaited {
            Some(awaited) => awaited.try_recv_from(buf),
            None => self.socket.recv_from(buf),
        }
    }
}

impl Datagrams {
    /// No sockets yet; later ones use this port.
    pub(crate) fn new(port: u16) -> Self {
        Datagrams {
            port,
            v4: None,
            v6: None,
            retry_at: None,
            failing: false,
            v6_first: false,
            unsent: Unsent::default(),
            polled: false,
        }
    }

    /// Whether [`Self::readable`] returns at once and not when a datagram arrives. Where one comes each
    /// millisecond anyway, reading what has come now and then costs a fraction of being woken by each:
    /// the kernel does that whether or not somebody waits, once a socket is among those that are.
    pub(crate) fn poll(&mut self, polled: bool) {
        if std::mem::replace(&mut self.polled, polled) != polled {
            self.arrange();
        }
    }

    fn arrange(&mut self) {
        for slot in [&mut self.v4, &mut self.v6] {
            let Some(bound) = slot else { continue };
            if let Err(error) = bound.arrange(!self.polled) {
                tracing::warn!(%error, "a socket for heartbeats is opened anew");
                *slot = None;
                self.retry_at = Some(Duration::ZERO);
            }
        }
    }

    /// Has a socket at each of these addresses, of each family the first. Without any address
    /// those of before stay.
    ///
    /// # Errors
    /// A socket cannot be opened. Those that can are there, and [`Self::retry_at`] tells when to call
    /// this again.
    pub(crate) fn follow(&mut self, own: &[IpAddr], now: Duration) -> Result<()> {
        self.retry_at = None;
        if own.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        let port = self.port;
        for (v6, slot) in [(false, &mut self.v4), (true, &mut self.v6)] {
            let wanted = own.iter().copied().find(|ip| ip.is_ipv6() == v6);
            if slot.as_ref().map(|bound| bound.address) == wanted {
                continue;
            }
            *slot = None;
            let Some(address) = wanted else { continue };
            match bind_datagram(SocketAddr::new(address, port)) {
                Ok(socket) => {
                    tracing::info!(%address, port, "heartbeats");
                    *slot = Some(Bound {
                        address,
                        socket,
                        awaited: None,
                    });
                }
                // A kernel without IPv6 has no peers there either.
                Err(error) if v6 && error.is_not_supported() => {
                    tracing::warn!(%error, "no heartbeats over IPv6");
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.arrange();
        match &outcome {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "not all heartbeats can be received; trying on");
                }
            }
        }
        outcome
    }

    /// When [`Self::follow`] should be called although nothing changed.
    pub(crate) fn retry_at(&self) -> Option<Duration> {
        self.retry_at
    }

    /// Sends a datagram to a peer's heartbeat port. One that cannot be sent at once is lost: the
    /// next one follows in an interval, and waiting would delay the other peers'.
    pub(crate) fn send(&mut self, to: IpAddr, datagram: &[u8], now: Duration) {
        let slot = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let error = match slot {
            Some(bound) => {
                let to = SocketAddr::new(to, self.port);
                bound.socket.send_to(datagram, to).err()
            }
            None => Some(std::io::Error::other(
                "this node has no socket of that address family",
            )),
        };
        let Some(error) = error else { return };
        if let Some(lost) = self.unsent.count(to, now) {
            tracing::warn!(%to, %error, lost, "heartbeats cannot be sent to a peer");
        }
    }

    /// Waits until [`Self::try_recv`] may find a datagram, unless [`Self::poll`] has it not wait. Safe to cancel.
    pub(crate) async fn readable(&self) {
        tokio::select! {
            () = readable(&self.v4) => {}
            () = readable(&self.v6) => {}
        }
    }

    /// A datagram that is here already. The families take turns, so that a flood by one does not
    /// drown the other.
    pub(crate) fn try_recv(&mut self, buf: &mut [u8]) -> Option<(usize, IpAddr)> {
        self.v6_first = !self.v6_first;
        let mut slots = [&self.v4, &self.v6];
        if self.v6_first {
            slots.reverse();
        }
        let bound = slots.into_iter().flatten();
        let mut received = bound.filter_map(|bound| bound.try_recv_from(buf).ok());
        let (length, from) = received.next()?;
        Some((length, from.ip()))
    }
}

async fn readable(slot: &Option<Bound>) {
    match slot {
        Some(Bound {
            awaited: Some(awaited),
            ..
        }) => {
            awaited.readable().await;
        }
        Some(_) => {}
        None => std::future::pending().await,
    }
}

/// Datagrams that could not be sent, per peer.
#[derive(Debug, Default)]
struct Unsent(BTreeMap<IpAddr, (u64, Duration)>);

impl Unsent {
    /// Counts one; returns how many there were since the last time that this was worth a line.
    fn count(&mut self, to: IpAddr, now: Duration) -> Option<u64> {
        // The peers change over time, and nobody else forgets them here.
        self.0.retain(|_, (_, said)| now < *said + SAY * 10);
        let Some((count, said)) = self.0.get_mut(&to) else {
            self.0.insert(to, (0, now));
            return Some(1);
        };
        *count += 1;
        if now < *said + SAY {
            return None;
        }
        *said = now;
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_told_once_a_minute_per_peer() {
        let (mut unsent, second) = (Unsent::default(), Duration::from_secs(1));
        let (a, b) = ([192, 0, 2, 12].into(), [192, 0, 2, 13].into());
        assert_eq!(unsent.count(a, second), Some(1));
        assert_eq!(unsent.count(b, second), Some(1));
        for n in 2..61 {
            assert_eq!(unsent.count(a, n * second), None, "{n}");
        }
        assert_eq!(unsent.count(a, 61 * second), Some(60));
        assert_eq!(unsent.count(a, 62 * second), None);
    }

    async fn next(of: &mut Datagrams, buf: &mut [u8]) -> (usize, IpAddr) {
        let received = async {
            loop {
                of.readable().await;
                if let Some(received) = of.try_recv(buf) {
                    return received;
                }
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, received).await.unwrap()
    }

    /// Nodes with both families, with one each, and heartbeats among them over loopback.
    #[tokio::test]
    async fn each_family_has_a_socket_that_follows_its_address() {
        // Addresses of loopback of which any is there, and a port that nobody else has.
        let (one, two): (IpAddr, IpAddr) = ([127, 9, 77, 1].into(), [127, 9, 77, 2].into());
        let v6 = IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
        let probe = std::net::UdpSocket::bind((v6, 0)).unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let (mut dual, mut single) = (Datagrams::new(port), Datagrams::new(port));
        let now = Duration::ZERO;
        dual.follow(&[one, v6], now).unwrap();
        single.follow(&[two], now).unwrap();
        let mut buf = [0; 16];
        for to in [one, v6] {
            let from = if to.is_ipv4() { &mut single } else { &mut dual };
            // A loopback datagram to the own socket for IPv6.
            from.send(to, b"beat", now);
            let (length, sender) = next(&mut dual, &mut buf).await;
            let expected = if to.is_ipv4() { two } else { v6 };
            assert_eq!((&buf[..length], sender), (&b"beat"[..], expected));
        }
        // Its address changes; what is sent to the new one is heard there.
        let three: IpAddr = [127, 9, 77, 3].into();
        dual.follow(&[three, v6], now).unwrap();
        single.send(three, b"moved", now);
        let (length, _) = next(&mut dual, &mut buf).await;
        assert_eq!(&buf[..length], b"moved");
        // The same without being woken, and woken again.
        for polled in [true, false] {
            dual.poll(polled);
            single.poll(polled);
            if polled {
                dual.readable().await;
                assert_eq!(dual.try_recv(&mut buf), None);
            }
            single.send(three, b"on", now);
            let (length, sender) = next(&mut dual, &mut buf).await;
            assert_eq!((&buf[..length], sender), (&b"on"[..], two));
        }
        // Taken by another process: said, and tried again.
        assert!(single.follow(&[three], now).is_err());
        assert!(single.retry_at().is_some());
    }
}
