//! The echo of lines, for long-lived flows.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};

use super::{Server, next_line};

/// Answers the first line, that was read already, and each one after it.
pub(super) async fn serve(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    client: SocketAddr,
    server: &Server,
) -> io::Result<()> {
    let mut seq = 1;
    loop {
        write.write_all(&server.line(client, "lines", seq)).await?;
        if next_line(read).await?.is_none() {
            return Ok(());
        }
        seq += 1;
    }
}
