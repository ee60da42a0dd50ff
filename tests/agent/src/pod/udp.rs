//! UDP: each datagram is answered at once. One that is a number gets an answer of at least so many bytes.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::Server;

/// Most that a datagram carries over IPv4.
const LONGEST: usize = 65_507;

/// Answers until its task is ended.
pub(super) async fn serve(socket: UdpSocket, server: Arc<Server>) {
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let mut answer = server.line(client, "udp", 0);
                let least = least(&buffer[..length]).min(LONGEST);
                answer.resize(answer.len().max(least), b' ');
                let _ = socket.send_to(&answer, client).await;
            }
            // An ICMP error for an earlier answer: not about this socket's health.
            Err(error) => tracing::debug!("udp: {error}"),
        }
    }
}

/// How long an answer a question asks for, in bytes.
fn least(question: &[u8]) -> usize {
    let text = std::str::from_utf8(question).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
