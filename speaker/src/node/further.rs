//! The packet sockets on the further uplinks in use.

use futures::future::{pending, select_all};
use lightship_netio::{Filter, PacketSocket, Result};

use lightship_core::core::Listen;
use lightship_core::further::{Own, Via};

/// A socket with its own buffer, so that all can be waited for at once.
struct Socket {
    uplink: Own,
    packets: PacketSocket,
    frame: Vec<u8>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Further {
    sockets: Vec<Socket>,
    /// Uplinks whose socket could not be opened, which has been said.
    refused: Vec<Own>,
}

impl Further {
    /// Opens what is missing and closes what is not in use any more. One that is just gone is news
    /// that is about to come; another that cannot be opened is to be tried again.
    pub(super) fn set(&mut self, used: &[Own], listen: Option<&Listen>) {
        self.sockets.retain(|socket| used.contains(&socket.uplink));
        self.refused.retain(|uplink| used.contains(uplink));
        for uplink in used {
            if self.sockets.iter().any(|socket| socket.uplink == *uplink) {
                continue;
            }
            match PacketSocket::open(uplink.index, Filter::ArpAndNdp) {
                Ok(packets) => {
                    self.refused.retain(|refused| refused != uplink);
                    if let Some(to) = listen {
                        super::listen(&packets, to);
                    }
                    self.sockets.push(Socket {
                        uplink: uplink.clone(),
                        packets,
                        frame: vec![0; 2048],
                    });
                }
                Err(error) if !self.refused.contains(uplink) => {
                    let interface = &uplink.told.interface;
                    tracing::warn!(%error, %interface, "cannot listen on a further uplink; trying on");
                    self.refused.push(uplink.clone());
                }
                Err(_) => {}
            }
        }
    }

    /// Has the kernel keep out what is about other machines.
    pub(super) fn listen(&self, to: &Listen) {
        for socket in &self.sockets {
            super::listen(&socket.packets, to);
        }
    }

    /// Sends a frame on the uplink of this name, without a wait. False if that cannot be.
    pub(super) fn send(&self, interface: &str, frame: &[u8]) -> bool {
        let mut sockets = self.sockets.iter();
        let socket = sockets.find(|socket| *socket.uplink.told.interface == *interface);
        let sent = socket.map(|socket| socket.packets.try_send(frame));
        if let Some(Err(error)) = &sent {
            tracing::debug!(%error, interface, "frame not sent");
        }
        matches!(sent, Some(Ok(())))
    }

    /// Waits for a frame on any of them, and tells where it came. Safe to cancel.
    pub(super) async fn recv(&mut self) -> (usize, Result<usize>) {
        if self.sockets.is_empty() {
            return pending().await;
        }
        let all = self.sockets.iter_mut().enumerate().map(|(at, socket)| {
            let Socket { packets, frame, .. } = socket;
            Box::pin(async move { (at, packets.recv(frame).await.map(|(length, _)| length)) })
        });
        select_all(all).await.0
    }

    /// Passes on a frame that [`Self::recv`] told of, and some of those that are here already.
    pub(super) fn pass(&mut self, at: usize, length: usize, mut on: impl FnMut(&Via, &[u8])) {
        let Some(socket) = self.sockets.get_mut(at) else {
            return;
        };
        let via = Via::Further(socket.uplink.told.interface.clone());
        let hear = |heard: &[u8]| on(&via, heard);
        socket
            .packets
            .pass(length, &mut socket.frame, super::BURST, hear);
    }

    /// Closes one that has failed for good.
    pub(super) fn close(&mut self, at: usize) {
        if at < self.sockets.len() {
            self.sockets.remove(at);
        }
    }
}
