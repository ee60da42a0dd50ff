//! UDP: each datagram is answered at once.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::Server;

/// Answers until its task is ended.
pub(super) async fn serve(socket: UdpSocket, server: Arc<Server>) {
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((_, client)) => {
                let _ = socket.send_to(&server.line(client, "udp", 0), client).await;
            }
            // An ICMP error for an earlier answer: not about this socket's health.
            Err(error) => tracing::debug!("udp: {error}"),
        }
    }
}
